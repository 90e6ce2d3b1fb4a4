"""Shows the progress of a change of many messages, and says after Ctrl-C how much of it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .output import Output

#: Takes the number of messages that are done, and of all.
OnProgress = Callable[[int, int], None]


@contextmanager
def changing(output: Output, verb: str, total: int, done: str, *, repeat: str = "") -> Iterator[OnProgress]:
    """A progress bar on stderr. Ctrl-C passes, after a sentence that says how far the change is.

    Parameters:
      verb: The name of the change: ``"redrive"``.
      total: The number of messages.
      done: The sentence's end: ``"dead letters were redriven"``.
      repeat: What to change in the command that does the rest; by default nothing.
    """
    bar = output.progress(verb)
    reached = 0

    def note(so_far: int, of: int) -> None:
        nonlocal reached
        reached = so_far
        bar(so_far, of)

    try:
        yield note
    except KeyboardInterrupt:
        bar.close()
        again = f"The same command {repeat}" if repeat else "The same command"
        output.say(
            f"dkb: Interrupted: {reached:,} of {total:,} {done}, and perhaps a part of one more batch. "
            f"{again} does the rest, and sends nothing twice."
        )
        raise
    finally:
        bar.close()
