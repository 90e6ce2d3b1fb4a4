"""Reads an ad: its words, the string of their concepts, and the patterns of the knowledge found in it."""

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from scoring.ad import Ad
from scoring.knowledge import COMMA, END, Knowledge, Pattern, bits_set, cancelled_letter, letter
from scoring.links import LinkEvidence, find_links
from scoring.normalise import clean, fold_scripts, to_latin
from scoring.phones import PhoneEvidence, find_phones
from scoring.spacing import Gatherer
from scoring.words import PHRASE_KEY, Dictionary, Word, follows

_TOKEN = re.compile(r"[^\W_]+(?:[@$*|'][^\W_]+)*|[.!?;,\n]")
_SIGNS = frozenset(".!?;,\n")
_MIXED_ADDRESS = re.compile(r"(?<![\w\-])[\w\-]+(?:[.@][\w\-]+)+")
# One class of characters first: the engine then skips to the few Latin letters of a Russian text.
_BOTH_SCRIPTS = re.compile(r"[a-z](?:(?<=[а-я].)|(?=[а-я]))")
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
    rule and strength, with ``cancelled`` for what did not count; ``themes`` has by rule a bit for each of
    its themes that is there.
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
    hits: list[Pattern] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    themes: dict[str, int] = field(default_factory=dict)


class Reader:
    """Turns ads into readings by one body of knowledge. Several threads may use a reader at once."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.dictionary = Dictionary(knowledge)
        self._gatherer = Gatherer(knowledge)
        self._patterns = Candidates(knowledge.patterns)
        self._cancels = Candidates(knowledge.cancels)
        self._themes = _bits_of_themes(knowledge)

    def read(self, ad: Ad) -> Reading:
        """Read one ad; any text is fine, the empty one too."""
        title = clean(ad.name)
        text = f"{title}\n{clean(ad.description)}"
        lower, spaced_out = self._gatherer.gather(text.lower().replace("%", " процент "))
        is_mixed = not lower.isascii() and _BOTH_SCRIPTS.search(lower) is not None
        links = find_links(_MIXED_ADDRESS.sub(_latin, lower) if is_mixed else lower)
        lower = links.text
        words: list[Word] = []
        pieces: list[str] = []
        title_words, in_title = 0, True
        dictionary = self.dictionary
        for token in _TOKEN.findall(lower):
            if token not in _SIGNS:
                word = dictionary[token]
                words.append(word)
                pieces.append(word.letters)
            elif token == ",":
                pieces.append(COMMA)
            elif in_title and token == "\n":  # a name runs on into its description
                title_words, in_title = len(words), False
            elif token != "." or not words or len(words[-1].text) > _ABBREVIATION:
                pieces.append(END)
        masks = self._add_phrases(words, pieces)
        dictated = _LETTERS_ONLY.sub(lambda found: fold_scripts(found[0]), lower) if is_mixed else lower
        phones = find_phones(dictated, sum([word.numerals for word in words]))
        reading = Reading(ad, text, lower, words, masks, title_words, spaced_out, links, phones)
        reading.concepts = " ".join(pieces) + " "
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
            for parts, sign, bit in word.phrases.get(following.text[:PHRASE_KEY], ()):
                if follows(words, index, parts):
                    places = places or [
                        place for place, piece in enumerate(pieces) if piece not in (END, COMMA)
                    ]
                    pieces[places[index - 1]] += sign
                    masks[index - 1] |= bit
        return masks

    def _cancel(self, reading: Reading) -> None:
        for index in self._cancels.in_text(set(reading.concepts)):
            pattern = self.knowledge.cancels[index]
            for _ in range(_CANCEL_ROUNDS):
                found = pattern.regex.search(reading.concepts)
                if not found:
                    break
                reading.counts[pattern.rule, "cancelled"] += 1
                reading.concepts = _cancel_at(reading.concepts, found.start("cancelled"), pattern.cancels)

    def _match(self, reading: Reading) -> None:
        present = set(reading.concepts)
        for index in self._patterns.in_text(present):
            pattern = self.knowledge.patterns[index]
            if pattern.regex.search(reading.concepts):
                reading.hits.append(pattern)
                reading.counts[pattern.rule, pattern.strength] += 1
        for rule, bits_of in self._themes.items():
            bits = 0
            for character in present & bits_of.keys():
                bits |= bits_of[character]
            reading.themes[rule] = bits


class Candidates:
    """Finds the patterns that a text may hold: those whose needs are all met by the concepts in it.

    Patterns have few needs. The bits of a letter are a block for the first needs, one bit a pattern, then a
    block for the second needs, and so on; a pattern is a candidate if its bit is set in every block.
    """

    def __init__(self, patterns: list[Pattern]) -> None:
        self._count = len(patterns)
        self._depth = max((len(pattern.needs) for pattern in patterns), default=0)
        self._always = 0  # the needs that a pattern does not have
        self._bits: dict[str, int] = {}
        for number, pattern in enumerate(patterns):
            for block in range(self._depth):
                bit = 1 << block * self._count + number
                if block >= len(pattern.needs):
                    self._always |= bit
                    continue
                for concept in bits_set(pattern.needs[block]):
                    # A cancelled concept too: some atoms count even then, and the pattern itself decides.
                    for character in (letter(concept), cancelled_letter(concept)):
                        self._bits[character] = self._bits.get(character, 0) | bit

    def in_text(self, present: set[str]) -> list[int]:
        """List the numbers of the candidates in their order, by the letters of the concepts there."""
        met = self._always
        for character in present & self._bits.keys():
            met |= self._bits[character]
        found = (1 << self._count) - 1
        for block in range(self._depth):
            found &= met >> block * self._count
        return bits_set(found)


def _bits_of_themes(knowledge: Knowledge) -> dict[str, dict[str, int]]:
    """Return for each rule and letter of a concept the bits of the rule's themes that it belongs to."""
    return {
        rule: {
            character: sum(1 << number for number, theme in enumerate(themes) if character in theme.letters)
            for character in set().union(*(theme.letters for theme in themes))
        }
        for rule, themes in knowledge.themes.items()
    }


def _latin(found: re.Match[str]) -> str:
    """Write an address of two scripts in Latin letters."""
    return to_latin(found[0]) if _BOTH_SCRIPTS.search(found[0]) else found[0]


def _cancel_at(concepts: str, place: int, cancelled: str) -> str:
    start = concepts.rfind(" ", 0, place) + 1
    end = concepts.index(" ", place)
    word = "".join(
        cancelled_letter(ord(character) - 0xE000) if character in cancelled else character
        for character in concepts[start:end]
    )
    return concepts[:start] + word + concepts[end:]
