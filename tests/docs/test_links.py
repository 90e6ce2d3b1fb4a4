"""The Markdown of the repository: its links lead somewhere, and its lines are short enough to read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
README_LINES = 150
COLUMNS = 100
#: Written by programs: the bench, and the evaluation of the model.
GENERATED = ("bench/results/", "training/EVALUATION.md")

_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<text>.+?) *$", re.MULTILINE)


def markdown_files(root: Path = ROOT) -> list[Path]:
    """Every Markdown file outside directories with a dot, such as the virtual environment."""
    files = (path.relative_to(root) for path in root.rglob("*.md"))
    return sorted(root / path for path in files if not any(part.startswith(".") for part in path.parts))


def without(pattern: re.Pattern[str], text: str) -> str:
    """The text with each match blanked, so that the others stay in their lines."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub derives them."""
    found: set[str] = set()
    for heading in _HEADING.finditer(without(_FENCE, path.read_text(encoding="utf-8"))):
        text = _LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading["text"])
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def relative_links(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the target of each link that names no host."""
    text = without(_INLINE_CODE, without(_FENCE, path.read_text(encoding="utf-8")))
    for link in _LINK.finditer(text):
        if not re.match(r"[a-z]+:", link["target"]):
            yield text.count("\n", 0, link.start()) + 1, link["target"]


def broken_links(path: Path) -> list[str]:
    broken = []
    for line, target in relative_links(path):
        place, _, anchor = target.partition("#")
        page = (path.parent / place).resolve() if place else path
        if not page.exists():
            broken.append(f"{path.name}:{line}: {target}: there is no such file")
        elif anchor and page.suffix == ".md" and anchor not in anchors(page):
            broken.append(f"{path.name}:{line}: {target}: there is no such heading")
    return broken


def long_lines(path: Path) -> list[str]:
    """Lines of prose above COLUMNS. Tables and code may be as wide as they must."""
    lines = enumerate(without(_FENCE, path.read_text(encoding="utf-8")).splitlines(), start=1)
    return [
        f"{path.name}:{number}: {len(line)} columns"
        for number, line in lines
        if len(line) > COLUMNS and not line.lstrip().startswith("|")
    ]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", markdown_files(), ids=name)
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    assert broken_links(path) == []


@pytest.mark.parametrize(
    "path", [path for path in markdown_files() if not name(path).startswith(GENERATED)], ids=name
)
def test_prose_is_wrapped(path: Path) -> None:
    assert long_lines(path) == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_description_of_the_distribution_has_no_relative_links() -> None:
    """PyPI shows it without the files beside it."""
    assert list(relative_links(ROOT / "broker" / "README.md")) == []


def test_every_decision_is_in_the_index_with_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    records = [path for path in markdown_files(folder) if path.name != "README.md"]
    assert records
    entries = {
        path.name: path.read_text(encoding="utf-8").partition("\n")[0].partition(". ")[2] for path in records
    }
    assert [f for f, title in entries.items() if f"[{title}]({f})" not in index] == []


def test_a_missing_file_a_missing_heading_and_a_long_line_are_named(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One heading\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#one-heading) [b](other.md#two) [c](gone.md) `[d](code.md)`\n\n" + "long " * 30,
        encoding="utf-8",
    )
    assert broken_links(page) == [
        "page.md:1: other.md#two: there is no such heading",
        "page.md:1: gone.md: there is no such file",
    ]
    assert long_lines(page) == ["page.md:3: 150 columns"]
