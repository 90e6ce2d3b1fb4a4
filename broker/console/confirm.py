"""Asks the operator to confirm what changes messages."""

from __future__ import annotations

import sys

from .exits import ExitCode
from .output import Output
from .session import Refused


def confirm_count(output: Output, count: int, what: str) -> None:
    """Let the operator type the number of messages.

    Parameters:
      what: The action on them: ``"redrive 3 dead letters of 'mail'"``.

    Raises:
      Refused: When another number is typed, or nobody can type one.
    """
    print(f"This will {what}. Type {count} to confirm: ", end="", file=sys.stderr, flush=True)  # noqa: T201
    typed = sys.stdin.readline()
    if not typed:
        output.say("")
    if typed.strip().replace(",", "") != str(count):
        raise Refused(
            "Not confirmed, so nothing was done. --yes confirms without a question.", ExitCode.REFUSED
        )
