"""docs/console.md has every verb, and every field of every document."""

from __future__ import annotations

import re
from typing import Any, get_type_hints, is_typeddict

import pytest

from broker.console import documents
from broker.console.exits import ExitCode
from dev.stack import ROOT
from tests.broker.console.documents_schema import DOCUMENTS
from tests.broker.console.test_command import commands

PAGE = (ROOT / "docs" / "console.md").read_text(encoding="utf-8")
ROWS = [found for found in vars(documents).values() if is_typeddict(found)]


def section(name: str) -> str:
    """The text under the heading ``### name``."""
    return PAGE.partition(f"\n### {name}\n")[2].partition("\n### ")[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.__name__))
def test_the_page_has_each_field_of_a_row_and_no_other_one(row: Any) -> None:
    fields = set(get_type_hints(row, vars(documents)))
    if row is documents.DeadLetterDetail:  # the page says that it has these, too
        fields -= set(documents.DeadLetterRow.__annotations__)
    assert set(re.findall(r"^\| `(\w+)`", section(row.__name__), flags=re.MULTILINE)) == fields


@pytest.mark.parametrize("verb", DOCUMENTS)
def test_the_page_has_the_fields_of_each_document(verb: str) -> None:
    table = PAGE.partition("## JSON documents")[2].partition("\n### ")[0]
    (line,) = re.findall(rf"^\| `{verb}` \| (.*) \|$", table, flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", line) == list(DOCUMENTS[verb])


def test_each_verb_has_a_document_and_a_line_in_the_page() -> None:
    verbs = {" ".join(verb) for verb in commands()}
    assert verbs - {"console", "dlq export", "metrics"} == set(DOCUMENTS)
    table = PAGE.partition("\n## Verbs\n")[2].partition("\n## Output\n")[0]
    for verb in verbs:
        assert all(re.search(rf"\b{word}\b", table) for word in verb.split()), verb


def test_the_page_has_each_exit_code() -> None:
    table = PAGE.partition("| exit code |")[2].partition("## JSON documents")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)} == set(ExitCode)
