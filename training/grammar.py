"""Reads the grammars that ads are composed from: training/grammar/train and training/grammar/test.

A goods file lists, by category, things (``items 5: sofa | bed``) and sentences about them (``details 5:
...``), and sentences that fit any ad (``common``) or end it (``close``), longer ones (``prose``) and lines
of a list (``spec``). A rule file has, for its rule, families of templates::

    violation segment                  sentences that break the rule, put into an ad of any category
    near segment                       sentences that nearly do
    violation whole categories=10,20   whole ads, written `name :: description`

In a template ``{slot}`` is a slot's value, ``(a|b)`` a choice, ``<text>`` what a seller would disguise.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "grammar"
LANGUAGES = ("ru", "en")


@dataclass(frozen=True, slots=True)
class Template:
    """One template and its family; ``rule`` is the rule it breaks or, if ``near``, nearly breaks."""

    text: str
    family: str
    rule: str
    near: bool
    whole: bool
    language: str
    categories: tuple[int, ...]


@dataclass(slots=True)
class Goods:
    """The parts of one language's honest ads."""

    items: dict[int, list[str]] = field(default_factory=dict)
    details: dict[int, list[str]] = field(default_factory=dict)
    common: list[str] = field(default_factory=list)
    close: list[str] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    spec: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Grammar:
    """All of one split: goods by language, templates, and slots by (rule, language)."""

    goods: dict[str, Goods] = field(default_factory=dict)
    templates: list[Template] = field(default_factory=list)
    slots: dict[tuple[str, str], dict[str, list[str]]] = field(default_factory=dict)

    def vocabulary(self) -> Iterator[str]:
        """Yield every value that a slot can take, as written."""
        for goods in self.goods.values():
            for values in (
                *goods.items.values(),
                *goods.details.values(),
                goods.common,
                goods.close,
                goods.prose,
                goods.spec,
            ):
                yield from values
        for slots in self.slots.values():
            for values in slots.values():
                yield from values


@lru_cache(maxsize=2)
def load_grammar(split: str) -> Grammar:
    """Read the grammar of ``split`` ("train", "test"); a mistake is a ValueError that names file and line."""
    grammar = Grammar()
    for path in sorted((FOLDER / split).glob("*.txt")):
        reader = _FileReader(grammar, f"{split}/{path.stem}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            try:
                reader.read(line, number)
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path}:{number}: {error}") from error
    return grammar


class _FileReader:
    """Takes a file's lines one by one; remembers the language, the rule and the family they stand under."""

    def __init__(self, grammar: Grammar, name: str) -> None:
        self.grammar = grammar
        self.name = name
        self.language = ""
        self.rule = ""
        self.heading: re.Match[str] | None = None
        self.family = ""

    def read(self, line: str, number: int) -> None:
        word, _, rest = line.partition(" ")
        heading = re.fullmatch(r"(violation|near) (segment|whole)(?: categories=([\d,]+))?", line)
        if word == "-":
            self._template(rest)
        elif heading:
            self.heading = heading
            self.family = f"{self.name}:{self.language}:{number}"
        elif word == "lang":
            self.language = rest
        elif word == "rule":
            self.rule = rest
        elif word == "slot":
            name, _, values = rest.partition(":")
            slots = self.grammar.slots.setdefault((self.rule, self.language), {})
            slots.setdefault(name, []).extend(_values(values))
        else:
            self._goods(line)

    def _template(self, text: str) -> None:
        if self.heading is None:
            raise ValueError("a template before any heading")
        kind, extent, categories = self.heading.groups()
        numbers = tuple(map(int, categories.split(","))) if categories else ()
        if (extent == "whole") != ("::" in text):
            raise ValueError("a whole ad is written `name :: description`, a segment without `::`")
        # Each template is a family of its own: what it yields shares its words.
        index = len(self.grammar.templates)
        self.grammar.templates.append(
            Template(
                text,
                f"{self.family}:{index}",
                self.rule,
                kind == "near",
                extent == "whole",
                self.language,
                numbers,
            )
        )

    def _goods(self, line: str) -> None:
        goods = self.grammar.goods.setdefault(self.language, Goods())
        head, colon, values = line.partition(":")
        if not colon:
            raise ValueError(f"not understood: {line[:40]!r}")
        kind, _, category = head.partition(" ")
        if kind in ("items", "details"):
            getattr(goods, kind).setdefault(int(category), []).extend(_values(values))
        elif kind in ("common", "close", "prose", "spec"):
            getattr(goods, kind).extend(_values(values))
        else:
            raise ValueError(f"not understood: {head!r}")


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split("|")]
