"""The one place where the broker reads a clock or sleeps.

The functions ask the clock of this process, which is the system's until a test replaces it with :func:`use`.
Lint forbids the functions of ``time`` elsewhere in the broker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Clock(Protocol):
    """A source of time. Thread-safe."""

    def monotonic_s(self) -> float:
        """Seconds that never go back, from an arbitrary beginning: for deadlines and pauses."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, in UTC: for the times in records. They may jump."""

    def sleep(self, duration_s: float) -> None:
        """Let ``duration_s`` pass; a duration of 0 or less lets other threads run."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until ``event`` is set, for ``timeout_s`` at most; return whether it is."""


class SystemClock:
    """The operating system's clocks. ``monotonic_s`` is unaffected by changes of the wall clock."""

    # Not a function of its own around it: a send and a dispatch ask for the time several times.
    monotonic_s = staticmethod(time.monotonic)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, duration_s: float) -> None:
        time.sleep(max(0.0, duration_s))

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s)


_current: Clock = SystemClock()


def monotonic_s() -> float:
    """Seconds that never go back; see :class:`Clock`."""
    return _current.monotonic_s()


def wall_ms() -> int:
    """Milliseconds since 1970; see :class:`Clock`."""
    return _current.wall_ms()


def sleep(duration_s: float) -> None:
    """Let ``duration_s`` pass; see :class:`Clock`."""
    _current.sleep(duration_s)


def wait(event: threading.Event, timeout_s: float) -> bool:
    """Wait until ``event`` is set, for ``timeout_s`` at most; see :class:`Clock`."""
    return _current.wait(event, timeout_s)


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Use ``clock`` in the whole process for a while. For tests."""
    global _current
    before, _current = _current, clock
    try:
        yield
    finally:
        _current = before
