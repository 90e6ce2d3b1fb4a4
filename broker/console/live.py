"""Repeats an answer until Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator

from ..process import clock
from .output import Answer, Output, no_color, rich_tables


def watch(output: Output, answers: Iterator[Answer], interval_s: float) -> None:
    """Show each answer in the place of the one before it; one below the other without a terminal."""
    if not output.is_terminal:
        for answer in answers:
            output.show(answer)
            clock.sleep(interval_s)
        return
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(highlight=False, no_color=no_color())
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for answer in answers:
            live.update(Group(*rich_tables(answer, console.width)), refresh=True)
            clock.sleep(interval_s)
