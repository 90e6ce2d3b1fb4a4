"""Training and test ads share no template and no slot value: what the test measures was never seen."""

import re

from training.generator import generate
from training.grammar import Grammar, load_grammar

_SLOT = re.compile(r"\{[^}]*\}")
_WORD = re.compile(r"[^\W_]+")
SHARED_RUN = 6  # words in a row; shorter runs are the language's own


def _words(text: str) -> list[str]:
    return _WORD.findall(_SLOT.sub(" ", text).lower())


def _templates(grammar: Grammar) -> set[tuple[str, ...]]:
    return {tuple(_words(template.text)) for template in grammar.templates}


def _runs(grammar: Grammar) -> set[tuple[str, ...]]:
    texts = [*(template.text for template in grammar.templates), *grammar.vocabulary()]
    return {
        tuple(words[start : start + SHARED_RUN])
        for words in map(_words, texts)
        for start in range(len(words) - SHARED_RUN + 1)
    }


def test_no_template_is_in_both_splits() -> None:
    shared = _templates(load_grammar("train")) & _templates(load_grammar("test"))
    assert not {template for template in shared if len(template) > 1}


def test_no_slot_value_is_in_both_splits() -> None:
    train, test = (
        {value.lower().strip(" .!") for value in load_grammar(split).vocabulary()}
        for split in ("train", "test")
    )
    assert not train & test


def test_not_even_a_stretch_of_words_is_in_both_splits() -> None:
    assert not _runs(load_grammar("train")) & _runs(load_grammar("test"))


def test_no_ad_is_in_both_splits() -> None:
    train, test = (
        {labelled.ad.description.lower() for labelled in generate(2_000, seed=1, split=split)}
        for split in ("train", "test")
    )
    assert not {text for text in train & test if text}
