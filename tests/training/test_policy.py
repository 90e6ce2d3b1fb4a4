"""The policy and the code agree."""

import re
from pathlib import Path

import pytest

from scoring.categories import CATEGORIES
from scoring.rules import RULES
from scoring.topics import NEIGHBOURS

FOLDER = Path(__file__).parents[2] / "training"
POLICIES = ("policy.md", "policy.ru.md")


@pytest.mark.parametrize("name", POLICIES)
def test_the_policy_and_the_model_excuse_the_same_neighbouring_categories(name: str) -> None:
    rows = re.findall(
        r"^\| (\d+)-(\d+) [^|]*\| ([^|]+?) \|$", (FOLDER / name).read_text("utf-8"), re.MULTILINE
    )
    assert {frozenset((int(one), int(other))) for one, other, _ in rows} == NEIGHBOURS
    assert len(rows) == len(NEIGHBOURS)
    assert all(reason for _, _, reason in rows)


@pytest.mark.parametrize("name", POLICIES)
def test_the_policy_has_a_section_for_every_rule(name: str) -> None:
    headings = re.findall(r"^## (\w+)$", (FOLDER / name).read_text("utf-8"), re.MULTILINE)
    assert set(RULES) <= set(headings)


def test_neighbours_are_categories_that_have_names() -> None:
    assert {category for pair in NEIGHBOURS for category in pair} <= set(CATEGORIES)
