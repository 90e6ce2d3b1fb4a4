"""Reads the knowledge about ads: words grouped into concepts, and orders of concepts that have a meaning.

The files in scoring/knowledge/ are written by hand, one per rule, in four kinds of sections::

    [concepts]         NAME: word stem* two_words ~fuzzy    the words of NAME; `*` is any ending
    [cancel]           NEG ..2 -PREPAY                      in this order the marked concept does not count
    [strong] [weak]    PAY ..4 FIRST                        evidence of the file's rule
    [counter]          TOY ..2 GUN                          evidence of a near miss
    [themes]           PAY|MONEY                            subjects of such ads: the more, the worse

A pattern is a list of atoms. An atom is concepts (upper case) or words (lower case, `*` as above), with `|`
between alternatives. `..3` between two atoms lets up to three other words of the same sentence in, `...3`
of any sentence, `~3` is `..3` in either order. A [cancel] line does not reach over a comma either: in "not
here, in the messenger" the messenger counts. ``GUN&TOOL`` is one word with concepts of both; ``PAY!``
counts even where it was cancelled.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "knowledge"
SECTIONS = ("concepts", "cancel", "strong", "weak", "counter", "themes")
STRENGTHS = ("strong", "weak", "counter")

# A text becomes a string in which each word is the letters of its concepts and a space: patterns are then
# ordinary regular expressions over a short string. Letters are private-use characters.
END = "."  # stands for the end of a sentence
COMMA = ","
_FIRST_LETTER = 0xE000
_FIRST_CANCELLED = 0xF0000
_BETWEEN_WORDS = re.compile(r"[-:/.+%]")
_WITHIN_CLAUSE = r"(?:[^ .,]* ){{0,{count}}}?"
_WITHIN_SENTENCE = r"(?:, )?(?:[^ .,]* (?:, )?){{0,{count}}}?"
_ANYWHERE = r"(?:[.,] )*(?:[^ .,]* (?:[.,] )*){{0,{count}}}?"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One compiled pattern: ``needs`` are the bits of which each must meet the text's concepts."""

    text: str
    rule: str
    strength: str
    needs: tuple[int, ...]
    regex: re.Pattern[str]
    cancels: str = ""


@dataclass(frozen=True, slots=True)
class Theme:
    """A subject of the ads of a rule: its line in the file, and the letters of its concepts."""

    text: str
    letters: str


@dataclass(slots=True)
class Knowledge:
    """All concepts and patterns.

    ``exact`` and ``prefix`` map a word or a stem to concept numbers; ``themes`` has those of each rule.
    """

    names: list[str] = field(default_factory=list)
    exact: dict[str, list[int]] = field(default_factory=dict)
    prefix: dict[str, list[int]] = field(default_factory=dict)
    phrases: dict[str, list[tuple[tuple[str, ...], int]]] = field(default_factory=dict)
    phrase_prefixes: dict[str, list[tuple[tuple[str, ...], int]]] = field(default_factory=dict)
    fuzzy: dict[str, int] = field(default_factory=dict)
    patterns: list[Pattern] = field(default_factory=list)
    cancels: list[Pattern] = field(default_factory=list)
    themes: dict[str, list[Theme]] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """Return the number of a concept; a new name gets the next number."""
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def add_word(self, entry: str, concept: int) -> None:
        """Let ``entry`` (a word, a stem with ``*``, words joined by ``_``, ``~`` first) mean ``concept``."""
        if entry.startswith("~"):
            entry = entry[1:]
            self.fuzzy[entry.rstrip("*")] = concept
        entry = _BETWEEN_WORDS.sub("_", entry.replace("ё", "е")).strip("_")
        head, *rest = entry.split("_")
        if rest:
            table = self.phrase_prefixes if head.endswith("*") else self.phrases
            table.setdefault(head.rstrip("*"), []).append((tuple(rest), concept))
        else:
            plain = self.prefix if head.endswith("*") else self.exact
            plain.setdefault(head.rstrip("*"), []).append(concept)


def letter(concept: int) -> str:
    """Return the character that stands for a concept."""
    return chr(_FIRST_LETTER + concept)


def cancelled_letter(concept: int) -> str:
    """Return the character that stands for a concept that does not count where it stands."""
    return chr(_FIRST_CANCELLED + concept)


def concept_of(character: str) -> int:
    """Return the number of the concept that a character stands for."""
    code = ord(character)
    return code - (_FIRST_LETTER if code < _FIRST_CANCELLED else _FIRST_CANCELLED)


def is_counted(character: str) -> bool:
    """Return whether a character stands for a concept that counts where it stands."""
    return ord(character) < _FIRST_CANCELLED


def bits_set(number: int) -> list[int]:
    """List the places of the bits that are set, the lowest first."""
    places = []
    while number:
        place = number.bit_length() - 1
        places.append(place)
        number ^= 1 << place
    return places[::-1]


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """Read the files of scoring/knowledge/; a mistake in one is a ValueError that names the line."""
    knowledge = Knowledge()
    for path in sorted(FOLDER.glob("*.txt")):
        section = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            line = line.split("#", 1)[0].strip()
            if not line:
                continue
            if line.startswith("["):
                section = line.strip("[]")
                if section not in SECTIONS:
                    raise ValueError(f"{path.name}:{number}: no section is called {section!r}")
                continue
            try:
                _read_line(knowledge, path.stem, section, line)
            except ValueError as error:
                raise ValueError(f"{path.name}:{number}: {error}") from error
    return knowledge


def _read_line(knowledge: Knowledge, rule: str, section: str, line: str) -> None:
    if section == "concepts":
        name, colon, words = line.partition(":")
        if not colon or not name.isupper():
            raise ValueError("a concept is written NAME: words")
        for word in words.split():
            knowledge.add_word(word.lower(), knowledge.number(name))
    elif section == "themes":
        letters = "".join(letter(_atom_concept(knowledge, word)) for word in line.split("|"))
        knowledge.themes.setdefault(rule, []).append(Theme(line, letters))
    elif section == "cancel":
        knowledge.cancels.extend(_compile(knowledge, rule, section, line))
    elif section:
        knowledge.patterns.extend(_compile(knowledge, rule, section, line))
    else:
        raise ValueError("a line before the first section")


def _compile(knowledge: Knowledge, rule: str, section: str, line: str) -> list[Pattern]:
    """Compile a line; an either-order gap makes two patterns of it."""
    orders = [line.split()]
    for index, part in enumerate(orders[0]):
        if re.fullmatch(r"~\d+", part):
            if len(orders[0]) != 3:
                raise ValueError("`~` stands between two atoms only")
            left, right = orders[0][index - 1], orders[0][index + 1]
            orders = [[left, f"..{part[1:]}", right], [right, f"..{part[1:]}", left]]
            break
    return [_compile_one(knowledge, rule, section, line, parts) for parts in orders]


def _compile_one(knowledge: Knowledge, rule: str, section: str, line: str, parts: list[str]) -> Pattern:
    needs: list[int] = []
    source = ""
    cancels = ""
    for part in parts:
        gap = re.fullmatch(r"(\.{2,3})(\d+)", part)
        if gap:
            reach = (
                _ANYWHERE if gap[1] == "..." else _WITHIN_CLAUSE if section == "cancel" else _WITHIN_SENTENCE
            )
            source += reach.format(count=gap[2])
            continue
        marked = part.startswith("-")
        part, _, beside = part.lstrip("-").partition("&")
        also_cancelled = "!" in part
        part = part.replace("!", "")
        concepts = [_atom_concept(knowledge, word) for word in part.split("|")]
        letters = "".join(letter(concept) for concept in concepts)
        if also_cancelled:
            letters += "".join(cancelled_letter(concept) for concept in concepts)
        needs.append(sum(1 << concept for concept in set(concepts)))
        lead = "[^ ]*" if source else ""
        if beside:
            also = "".join(letter(_atom_concept(knowledge, word)) for word in beside.split("|"))
            lead = rf"(?<![^ ])(?=[^ ]*[{also}])[^ ]*?"
        source += f"{lead}(?P<cancelled>[{letters}])[^ ]* " if marked else f"{lead}[{letters}][^ ]* "
        cancels = letters if marked else cancels
    if bool(cancels) != (section == "cancel"):
        raise ValueError("a [cancel] line marks one atom with `-`, others none")
    return Pattern(line, rule, section, tuple(needs), re.compile(source), cancels)


def _atom_concept(knowledge: Knowledge, word: str) -> int:
    if word.isupper():
        return knowledge.number(word)
    name = f"'{word}'"
    known = name in knowledge.names
    number = knowledge.number(name)
    if not known:
        knowledge.add_word(word, number)
    return number
