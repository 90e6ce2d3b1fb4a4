"""Reads an ad: its words, the string of their concepts, and the patterns of the knowledge found in it."""

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from scoring.ad import Ad
from scoring.knowledge import COMMA, END, Knowledge, Pattern, cancelled_letter, letter
from scoring.links import LinkEvidence, find_links
from scoring.normalise import clean, fold_scripts, to_latin
from scoring.phones import PhoneEvidence, find_phones
from scoring.spacing import Gatherer
from scoring.words import Dictionary, Word, follows

_TOKEN = re.compile(r"[^\W_]+(?:[@$*|'][^\W_]+)*|[.!?;,\n]")
_MIXED_ADDRESS = re.compile(r"[\w\-]+(?:[.@][\w\-]+)+")
_BOTH_SCRIPTS = re.compile(r"[a-z][а-я]|[а-я][a-z]")
# Not the short ones: `8-9lб-ОЗl` are look-alikes of digits.
_LETTERS_ONLY = re.compile(r"(?<![^\W_])[^\W\d_]{4,}(?![^\W_])")
_ABBREVIATION = 3  # a full stop after so short a word ends no sentence
_CANCEL_ROUNDS = 4


@dataclass(slots=True)
class Reading:
    """One ad as read.

    ``text`` is cleaned with its case kept, ``lower`` has no case and no addresses, ``words`` are in order
    and the first ``title_words`` of them are the name's. ``masks`` has the bits of each word's concepts,
    with those of the phrases that begin with it. ``hits`` are the patterns found, ``counts`` counts them by
    rule and strength, with ``cancelled`` for what did not count; ``themes`` says by rule which of its
    themes are there.
    """

    ad: Ad
    text: str
    lower: str
    words: list[Word]
    masks: list[int]
    title_words: int
    spaced_out: int
    links: LinkEvidence
    phones: PhoneEvidence
    concepts: str = ""
    mask: int = 0
    hits: list[Pattern] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    themes: dict[str, list[bool]] = field(default_factory=dict)


class Reader:
    """Turns ads into readings by one body of knowledge; safe to use from several threads."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.dictionary = Dictionary(knowledge)
        self._gatherer = Gatherer(knowledge)
        self._patterns = _by_letter(knowledge.patterns)
        self._cancels = _by_letter(knowledge.cancels)

    def read(self, ad: Ad) -> Reading:
        """Read one ad; any text is fine, the empty one too."""
        title = clean(ad.name)
        text = f"{title}\n{clean(ad.description)}"
        lower, spaced_out = self._gatherer.gather(text.lower().replace("%", " процент "))
        is_mixed = _BOTH_SCRIPTS.search(lower) is not None
        links = find_links(_MIXED_ADDRESS.sub(_latin, lower) if is_mixed else lower)
        lower = links.text
        words: list[Word] = []
        pieces: list[str] = []
        title_words, in_title = 0, True
        look_up = self.dictionary.look_up
        for token in _TOKEN.findall(lower):
            if token == ",":
                pieces.append(COMMA)
                continue
            if token in ".!?;\n":
                if in_title and token == "\n":  # a name runs on into its description
                    title_words, in_title = len(words), False
                elif token != "." or not words or len(words[-1].text) > _ABBREVIATION:
                    pieces.append(END)
                continue
            word = look_up(token)
            words.append(word)
            pieces.append(word.letters)
        masks = self._add_phrases(words, pieces)
        dictated = _LETTERS_ONLY.sub(lambda found: fold_scripts(found[0]), lower) if is_mixed else lower
        phones = find_phones(dictated, sum(word.numerals for word in words))
        reading = Reading(ad, text, lower, words, masks, title_words, spaced_out, links, phones)
        reading.concepts = " ".join(pieces) + " "
        for mask in masks:
            reading.mask |= mask
        self._cancel(reading)
        self._match(reading)
        return reading

    def _add_phrases(self, words: list[Word], pieces: list[str]) -> list[int]:
        """Add the concepts of phrases to the pieces of their first words; return the bits of each word."""
        masks = [word.mask for word in words]
        places: list[int] = []
        for index, (word, following) in enumerate(pairwise(words), start=1):
            if not word.phrases:
                continue
            for parts, sign, bit in word.phrases.get(following.text[0], ()):
                if follows(words, index, parts):
                    places = places or [
                        place for place, piece in enumerate(pieces) if piece not in (END, COMMA)
                    ]
                    pieces[places[index - 1]] += sign
                    masks[index - 1] |= bit
        return masks

    def _cancel(self, reading: Reading) -> None:
        for index in _candidates(self._cancels, reading):
            pattern = self.knowledge.cancels[index]
            for _ in range(_CANCEL_ROUNDS):
                found = pattern.regex.search(reading.concepts)
                if not found:
                    break
                reading.counts[pattern.rule, "cancelled"] += 1
                reading.concepts = _cancel_at(reading.concepts, found.start("cancelled"), pattern.cancels)

    def _match(self, reading: Reading) -> None:
        for index in _candidates(self._patterns, reading):
            pattern = self.knowledge.patterns[index]
            if pattern.regex.search(reading.concepts):
                reading.hits.append(pattern)
                reading.counts[pattern.rule, pattern.strength] += 1
        present = set(reading.concepts)
        for rule, themes in self.knowledge.themes.items():
            reading.themes[rule] = [not present.isdisjoint(theme.letters) for theme in themes]


# For each concept's letter the patterns that cannot be found without it or one of its alternatives: their
# numbers and the bits they need besides.
_Index = dict[str, list[tuple[int, tuple[int, ...]]]]


def _by_letter(patterns: list[Pattern]) -> _Index:
    index: _Index = {}
    for number, pattern in enumerate(patterns):
        rarest = min(pattern.needs, key=int.bit_count)
        for concept in range(rarest.bit_length()):
            if rarest >> concept & 1:
                index.setdefault(letter(concept), []).append((number, pattern.needs))
    return index


def _candidates(index: _Index, reading: Reading) -> list[int]:
    """List the patterns that may be found, in their order: all the concepts they need are there."""
    mask = reading.mask
    found: set[int] = set()
    for character in set(reading.concepts):
        for number, needs in index.get(character, ()):
            for need in needs:
                if not need & mask:
                    break
            else:
                found.add(number)
    return sorted(found)


def _latin(found: re.Match[str]) -> str:
    """Write an address of two scripts in the one that addresses have."""
    return to_latin(found[0]) if _BOTH_SCRIPTS.search(found[0]) else found[0]


def _cancel_at(concepts: str, place: int, cancelled: str) -> str:
    start = concepts.rfind(" ", 0, place) + 1
    end = concepts.index(" ", place)
    word = "".join(
        cancelled_letter(ord(character) - 0xE000) if character in cancelled else character
        for character in concepts[start:end]
    )
    return concepts[:start] + word + concepts[end:]
