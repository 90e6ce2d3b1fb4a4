"""Repeats an answer until Ctrl-C, also beyond an outage of Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from dramatiq.errors import BrokerConnectionError

from .. import NotAuthorized
from ..process import clock
from . import texts
from .output import Answer, Output, no_color, rich_tables


def watch(output: Output, answer: Callable[[], Answer], interval_s: float) -> None:
    """Show each answer in the place of the one before it; one below the other without a terminal.

    Parameters:
      answer: Asks Kafka. The errors of the first call end the command; later ones of an outage are shown
        beside the last answer.
    """
    first = answer()
    if not output.is_terminal:
        output.show(first)
        for found, outage in _answers(answer, interval_s):
            if outage is None and found is not None:
                output.show(found)
            elif outage is not None:
                output.say(outage)
        return
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(highlight=False, no_color=no_color())
    with Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(Group(*rich_tables(first, console.width)), refresh=True)
        for found, outage in _answers(answer, interval_s):
            shown = first = first if found is None else found
            if outage is not None:
                shown = replace(first, lines=[outage, "The answer is that of the time before.", *first.lines])
            live.update(Group(*rich_tables(shown, console.width)), refresh=True)


def _answers(answer: Callable[[], Answer], interval_s: float) -> Iterator[tuple[Answer | None, str | None]]:
    """The answers after the first, each after a pause; or None and a sentence while Kafka does not answer."""
    down_ms: int | None = None
    while True:
        clock.sleep(interval_s)
        began_ms = clock.wall_ms()
        try:
            found = answer()
        except NotAuthorized:
            raise
        except BrokerConnectionError as e:
            down_ms = began_ms if down_ms is None else down_ms
            yield None, f"Kafka does not answer since {texts.moment(down_ms)}: {e}"
        else:
            down_ms = None
            yield found, None
