"""Reads ads that people have labelled: the file of ``--data`` and the challenge set."""

import csv
from collections.abc import Sequence
from pathlib import Path

from scoring.ad import Ad
from scoring.rules import RULES
from training.generator import LabelledAd

REQUIRED = ("name", "description", "category", "images_qty", "is_verified_seller", "is_violation")
OPTIONAL = ("rule", "near_miss_of", "language")
UNKNOWN_RULE = "violation"  # the class of violations whose rule nobody wrote down
_YES, _NO = {"1", "true", "yes", "t", "y", "да"}, {"0", "false", "no", "f", "n", "нет"}
_LARGEST_FIELD = 1_000_000
_MOST_DIGITS = 20  # Python refuses to read a number of thousands


class BadCsv(ValueError):
    """The file is unusable for training; the text names the line and the expected value."""


def read_labelled_csv(path: str | Path) -> list[LabelledAd]:
    """Read a UTF-8 CSV with a header line.

    Columns `REQUIRED` must be there, in any order and case; ``rule`` (one of `RULES`, or empty),
    ``near_miss_of`` and ``language`` may be.

    Raises
    ------
    BadCsv
        The file is missing, not UTF-8, lacks a column, has a value that is none, or no ads of both kinds.
    """
    path = Path(path)
    csv.field_size_limit(_LARGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = _columns(path, reader.fieldnames)
            ads = [
                _labelled(path, reader.line_num, number, row) for number, row in enumerate(reader, start=1)
            ]
    except OSError as error:
        raise BadCsv(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadCsv(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise BadCsv(f"{path} is not a CSV file: {error}") from error
    if not ads:
        raise BadCsv(f"{path} has a header and no ads")
    if len({bool(labelled.rule) for labelled in ads}) < 2:
        raise BadCsv(f"{path} has ads of one kind only: is_violation must be 1 for some and 0 for others")
    return ads


def _columns(path: Path, header: Sequence[str] | None) -> list[str]:
    """Return the names in the header without blanks and in lower case, each column once."""
    names = [name.strip().lower() for name in header or ()]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        has = ", ".join(names) or "none"
        if len(names) == 1 and any(sign in has for sign in ";\t"):
            has += ": separate the columns with commas"
        raise BadCsv(f"{path} lacks the columns {', '.join(missing)}; it has {has}")
    twice = [name for name in (*REQUIRED, *OPTIONAL) if names.count(name) > 1]
    if twice:
        raise BadCsv(f"{path} has more than one column {', '.join(twice)}")
    return names


def _labelled(path: Path, line: int, number: int, row: dict[str, str | None]) -> LabelledAd:
    def refuse(column: str, expected: str) -> BadCsv:
        return BadCsv(f"{path}, line {line}: {column} is {row.get(column)!r}, expected {expected}")

    def whole(column: str, low: int, high: int) -> int:
        text = (row.get(column) or "").strip()
        if not text.isdecimal() or len(text) > _MOST_DIGITS or not low <= int(text) <= high:
            raise refuse(column, f"a whole number from {low} to {high}")
        return int(text)

    def yes(column: str) -> bool:
        text = (row.get(column) or "").strip().lower()
        if text not in _YES | _NO:
            raise refuse(column, "1 or 0 (also true, false, yes, no)")
        return text in _YES

    def rule(column: str) -> str:
        text = (row.get(column) or "").strip()
        if text and text not in RULES:
            raise refuse(column, f"empty or one of {', '.join(RULES)}")
        return text

    violates = yes("is_violation")
    if rule("rule") and not violates:
        raise refuse("rule", "nothing, because is_violation is 0")
    ad = Ad(
        item_id=number,
        seller_id=number,
        is_verified_seller=yes("is_verified_seller"),
        name=row.get("name") or "",
        description=row.get("description") or "",
        category=whole("category", 0, 100),
        images_qty=whole("images_qty", 0, 1_000),
    )
    broken = (rule("rule") or UNKNOWN_RULE) if violates else ""
    language = (row.get("language") or "").strip()
    return LabelledAd(
        ad, broken, rule("near_miss_of"), language, family=f"{path.name}:{line}", author=path.stem
    )
