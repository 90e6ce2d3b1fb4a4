"""The dictionary of a process: each word is studied once and remembered."""

import re
from dataclasses import dataclass

from scoring.knowledge import Knowledge, letter
from scoring.normalise import foldings, readings
from scoring.numerals import numerals_in

MEMO_WORDS = 60_000  # about 30 MB; a full dictionary is emptied and fills again with the words in use
STEM_LETTERS = 6
# Words that hold sentences together: a heap of keywords has hardly any.
_FUNCTION_WORDS = (
    "и в во не на я с со что как а то все она так его но да ты к у же вы за бы по только ее мне было "
    "вот от меня еще нет о из ему когда даже ну ли если или ни быть был до вас уже вам при для под без "
    "есть это этот эта эти чтобы можно через после также там тут здесь очень был была были будет "
    "который которая которые мы наш нас им их the a an and or of in on at to for with from by is are "
    "was were be been it this that these those i you we they my your our have has had do does did not "
    "no can will would if but so as than very just all some any there here it's i'm comes used also "
    "only one each obo sold фото шт руб размер "
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_LETTERS = re.compile(r"[^\W\d_]+")
_SHORTEST_READING = 4  # a shorter one is part of too many words
_SHORTEST_FOREIGN = 5  # letters in common with a word of the other script: `pick` is not `риск`, of `рис*`
_SHORTEST_FUZZY = 6
_LONGEST_WORD = 40  # the lexicon has no longer word: such a run is letters without a space

# The words after the first, each with whether any ending will do, and the concept's letter and bit.
Phrase = tuple[tuple[tuple[str, bool], ...], str, int]
# Phrases by how their second word begins: few have the one that follows.
PHRASE_KEY = 2
Phrases = dict[str, list[Phrase]]


@dataclass(slots=True, frozen=True)
class Word:
    """One word as written in lower case, with its meaning.

    ``mask`` has the bit of every concept, ``letters`` their letters; ``phrases`` begin with this word.
    ``odd`` says that it means something only when its look-alike characters are read as letters,
    ``is_content`` that it is neither a number nor one of `FUNCTION_WORDS`, ``is_topical`` that it may tell
    what the ad is about.
    """

    text: str
    stem: str
    mask: int
    letters: str
    phrases: Phrases
    odd: bool
    mixed: bool
    is_number: bool
    is_content: bool
    is_topical: bool
    numerals: int


class Dictionary(dict[str, Word]):
    """The `Word` of each lower-case text, studied when it is first met. Several threads may share one."""

    def __init__(self, knowledge: Knowledge) -> None:
        super().__init__()
        self._knowledge = knowledge
        self._number = knowledge.number("NUM")
        self._fuzzy = _one_letter_off(knowledge.fuzzy)
        self._phrase_words, self._phrase_stems = _words_of_phrases(knowledge)

    def __missing__(self, text: str) -> Word:
        if len(self) >= MEMO_WORDS:
            self.clear()
        word = self[text] = self._study(text)
        return word

    def _study(self, text: str) -> Word:
        cut = text[:_LONGEST_WORD]
        spellings = foldings(cut)
        mixed = len(spellings) > 1
        read_as, concepts = self._understand(spellings, is_odd=mixed or not cut.isalpha())
        odd = mixed or (bool(concepts) and read_as != cut)
        if not concepts and len(read_as) >= _SHORTEST_FUZZY:
            concepts = self._typing_errors(read_as)
        if read_as[0].isdigit():
            concepts = [*concepts, self._number]
        return Word(
            text=read_as,
            stem=read_as[:STEM_LETTERS],
            mask=sum(1 << concept for concept in set(concepts)),
            letters="".join(letter(concept) for concept in dict.fromkeys(concepts)),
            phrases=self._phrases(read_as),
            odd=odd and bool(concepts),
            mixed=mixed,
            is_number=cut.isdigit(),
            is_content=not cut.isdigit() and read_as not in FUNCTION_WORDS,
            is_topical=not cut.isdigit() and len(read_as) > 1,
            numerals=sum(map(numerals_in, _LETTERS.findall(spellings[0]))) if len(cut) > 1 else 0,
        )

    def _understand(self, spellings: list[str], *, is_odd: bool) -> tuple[str, list[int]]:
        """Return the first spelling or reading that means something, else one that stands in a phrase, else
        the word as it is."""
        further = [reading for word in spellings for reading in readings(word)]
        candidates = [*spellings, *(word for word in further if len(word) >= _SHORTEST_READING)]
        for word in candidates:
            is_foreign = spellings[0].isascii() and not word.isascii()
            concepts = self._concepts(word, _SHORTEST_FOREIGN if is_foreign else 1)
            if concepts:
                return word, concepts
        if is_odd:
            for word in candidates:
                if self._is_in_phrases(word):
                    return word, []
        return spellings[0], []

    def _is_in_phrases(self, word: str) -> bool:
        if word in self._phrase_words:
            return True
        return any(word[:length] in self._phrase_stems for length in range(_SHORTEST_READING, len(word) + 1))

    def _concepts(self, word: str, shortest: int) -> list[int]:
        """List the concepts of a word by the entries of at least ``shortest`` letters."""
        found = list(self._knowledge.exact.get(word, ())) if len(word) >= shortest else []
        prefixes = self._knowledge.prefix
        for length in range(max(2, shortest), len(word) + 1):
            stem = prefixes.get(word[:length])
            if stem:
                found += stem
        return found

    def _typing_errors(self, word: str) -> list[int]:
        for variant in _shortened(word):
            concept = self._fuzzy.get(variant)
            if concept is not None:
                return [concept]
        return []

    def _phrases(self, word: str) -> Phrases:
        found = list(self._knowledge.phrases.get(word, ()))
        for length in range(2, len(word) + 1):
            found += self._knowledge.phrase_prefixes.get(word[:length], ())
        phrases: Phrases = {}
        for rest, concept in found:
            parts = tuple((part.rstrip("*"), part.endswith("*")) for part in rest)
            phrases.setdefault(rest[0][:PHRASE_KEY], []).append((parts, letter(concept), 1 << concept))
        return phrases


def follows(words: list[Word], start: int, parts: tuple[tuple[str, bool], ...]) -> bool:
    """Return whether the words from ``start`` on are ``parts``."""
    if start + len(parts) > len(words):
        return False
    for offset, (text, any_ending) in enumerate(parts, start):
        word = words[offset].text
        if not word.startswith(text) or not (any_ending or len(word) == len(text)):
            return False
    return True


def _words_of_phrases(knowledge: Knowledge) -> tuple[frozenset[str], frozenset[str]]:
    """Return the whole words and the stems of all phrases."""
    words, stems = set(knowledge.phrases), set(knowledge.phrase_prefixes)
    for phrases in (*knowledge.phrases.values(), *knowledge.phrase_prefixes.values()):
        for part in (part for rest, _ in phrases for part in rest):
            (stems if part.endswith("*") else words).add(part.rstrip("*"))
    return frozenset(words), frozenset(stems)


def _shortened(word: str) -> list[str]:
    """List the word and it with each one letter left out: two words one letter apart share one of these."""
    return [word, *(word[:i] + word[i + 1 :] for i in range(len(word)))]


def _one_letter_off(stems: dict[str, int]) -> dict[str, int]:
    index: dict[str, int] = {}
    for stem, concept in stems.items():
        if len(stem) >= _SHORTEST_FUZZY and "_" not in stem:
            for variant in _shortened(stem):
                index.setdefault(variant, concept)
    return index
