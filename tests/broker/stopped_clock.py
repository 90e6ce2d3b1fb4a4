"""A clock for tests whose time passes only for threads that sleep or wait."""

from __future__ import annotations

import threading


class StoppedClock:
    """Stands still until a thread sleeps or waits, and then jumps by that time."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if not event.is_set():
            self.now_s += timeout_s
        return event.is_set()
