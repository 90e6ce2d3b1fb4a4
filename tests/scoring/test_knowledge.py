"""The knowledge that people write is read whole, or refused with the line that is wrong."""

from pathlib import Path

import pytest

from scoring import knowledge
from scoring.knowledge import STRENGTHS, load_knowledge
from scoring.rules import RULES


def test_every_rule_that_words_can_break_has_patterns_of_each_strength() -> None:
    known = {(pattern.rule, pattern.strength) for pattern in load_knowledge().patterns}
    lexical = [rule for rule in RULES if rule != "wrong_category"]
    assert {(rule, strength) for rule in lexical for strength in STRENGTHS} <= known


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Read a file of the given text as the only knowledge there is."""

    def read(text: str) -> knowledge.Knowledge:
        (tmp_path / "contacts.txt").write_text(text, encoding="utf-8")
        monkeypatch.setattr(knowledge, "FOLDER", tmp_path)
        return load_knowledge.__wrapped__()

    return read


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[recipes]\n", "contacts.txt:1: no section is called 'recipes'"),
        ("PAY FIRST\n", "contacts.txt:1: a line before the first section"),
        ("[concepts]\n\nno colon\n", "contacts.txt:3: a concept is written NAME: words"),
        ("[cancel]\nnot ..2 prepay\n", "marks one atom"),
        ("[strong]\n-pay first\n", "marks one atom"),
        ("[strong]\na ~3 b ~3 c\n", "two atoms only"),
    ],
)
def test_a_mistake_is_reported_by_file_and_line(written, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        written(text)


def test_a_pattern_in_either_order_is_two(written) -> None:
    read = written("[concepts]\nPAY: pay*\nFIRST: first\n[strong]\nPAY ~2 FIRST\n")
    assert [pattern.text for pattern in read.patterns] == ["PAY ~2 FIRST", "PAY ~2 FIRST"]
