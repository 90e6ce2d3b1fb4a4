"""The one place where the broker reads a clock or sleeps.

The functions are those of this process's clock, the system's until a test replaces it with :func:`use`.
Lint forbids the functions of ``time`` elsewhere in the broker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
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

    monotonic_s = staticmethod(time.monotonic)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, duration_s: float) -> None:
        time.sleep(max(0.0, duration_s))

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s)


def _set(clock: Clock) -> None:
    global _current, monotonic_s, wall_ms, sleep, wait
    _current = clock
    monotonic_s, wall_ms, sleep, wait = clock.monotonic_s, clock.wall_ms, clock.sleep, clock.wait


_current: Clock
#: The methods of the clock in use; see :class:`Clock`. They are no functions around it, since a task asks for
#: the time eight times. Call them as ``clock.monotonic_s()``: a reference that is kept stays with its clock.
monotonic_s: Callable[[], float]
wall_ms: Callable[[], int]
sleep: Callable[[float], None]
wait: Callable[[threading.Event, float], bool]
_set(SystemClock())


@contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Use ``clock`` in the whole process for a while. For tests."""
    before = _current
    _set(clock)
    try:
        yield
    finally:
        _set(before)
