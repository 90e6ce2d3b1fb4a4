"""The output of `python -m dev`: steps with their durations, and a table, in plain text."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def say(text: str = "") -> None:
    print(text, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print a step, and its duration at its end.

    A terminal shows the step while it runs. A pipe gets the whole line at its end.
    """
    on_terminal = sys.stdout.isatty()
    if on_terminal:
        print(f"  {what} ...", end="", flush=True)
    started_at = time.monotonic()
    try:
        yield
    except BaseException:
        say("" if on_terminal else f"  {what} ...")
        raise
    took = f" {time.monotonic() - started_at:.1f} s"
    say(took if on_terminal else f"  {what} ...{took}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
