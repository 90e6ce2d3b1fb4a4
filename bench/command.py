"""The arguments and exit codes that the commands of the bench have in common."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path

from bench.results import RowResult
from bench.sizes import FULL, SMOKE, Sizes


def arguments(program: str, description: str, names: Sequence[str]) -> argparse.Namespace:
    """Read the command line; every field of :class:`Sizes` is an option. Wrong arguments exit with 2.

    Parameters:
      names: The names of the rows.
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--smoke", action="store_true", help="the short form: small sizes, one round")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="these contestants")
    parser.add_argument("--rounds", type=int, help="3 by default")
    parser.add_argument("--rest-s", type=float, default=0.0, help="a pause after each measurement")
    parser.add_argument(
        "--most-others",
        type=float,
        default=math.inf,
        metavar="CORES",
        help="repeat a measurement during which other processes used more cores; only some rows tell",
    )
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="write JSON, Markdown and SVG there")
    for size in fields(FULL):
        kind = type(getattr(FULL, size.name))
        parser.add_argument(
            f"--{size.name.replace('_', '-')}", type=kind, help=f"{getattr(FULL, size.name):,} by default"
        )
    given = parser.parse_args()
    if unknown := {name for name in given.rows if not any(is_named(row, [name]) for row in names)}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return given


def is_named(row: str, names: Collection[str]) -> bool:
    """Whether a row is one of ``names``, or belongs to one: ``recovery-only`` belongs to ``recovery``."""
    return any(row == name or row.startswith(f"{name}-") for name in names)


def sizes_of(given: argparse.Namespace) -> Sizes:
    """Return the sizes of the requested form, with the sizes of the command line in their place."""
    named = {size.name: getattr(given, size.name) for size in fields(FULL)}
    return replace(
        SMOKE if given.smoke else FULL, **{key: value for key, value in named.items() if value is not None}
    )


def exit_code(results: list[RowResult]) -> int:
    """Return 1 when a contestant whose server runs failed, or lacks a figure. The exit code does not depend
    on the figures themselves: a person compares them with a target, on an idle machine.
    """
    broken = [f"{result.row.name}: {key}: {why}" for result in results for key, why in result.failed.items()]
    broken += [f"{result.row.name}: no figure for {what}" for result in results for what in result.lacking()]
    for line in broken:
        print(f"BROKEN {line}", file=sys.stderr)
    return 1 if broken else 0


def say(text: str) -> None:
    print(text, flush=True)
