"""A clock that a test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

#: The longest real wait between two looks at a clock that flows, which a test may advance meanwhile.
SLICE_S = 0.02


class ManualClock:
    """See ``process.clock.Clock``. Thread-safe.

    A still clock moves only when a test moves it, and each wait and each sleep moves it to its end at once. A
    clock that flows lets real time pass as well, for tests with worker threads.

    Attributes:
      flows: Whether real time passes as well.
    """

    def __init__(self, *, flows: bool = False) -> None:
        self._flowing_since_s = time.monotonic() if flows else None
        self._lock = threading.Lock()
        self._began_s = time.monotonic()
        self._wall_began_ms = time.time_ns() // 1_000_000
        self._moved_s = 0.0
        self._wall_moved_ms = 0.0
        self._attend: tuple[int, Callable[[], None]] | None = None

    def monotonic_s(self) -> float:
        return self._began_s + self._flowed_s() + self._moved_s

    def wall_ms(self) -> int:
        return self._wall_began_ms + int(1000 * self._flowed_s() + self._wall_moved_ms)

    @property
    def flows(self) -> bool:
        return self._flowing_since_s is not None

    @flows.setter
    def flows(self, flows: bool) -> None:
        with self._lock:
            flowed_s = self._flowed_s()
            self._moved_s += flowed_s
            self._wall_moved_ms += 1000 * flowed_s
            self._flowing_since_s = time.monotonic() if flows else None

    def _flowed_s(self) -> float:
        since_s = self._flowing_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    @contextmanager
    def attended(self, attend: Callable[[], None]) -> Iterator[None]:
        """Call ``attend`` before each wait of this thread on the still clock, so that what it waits for may
        happen.
        """
        before, self._attend = self._attend, (threading.get_ident(), attend)
        try:
            yield
        finally:
            self._attend = before

    def _let_others_act(self) -> None:
        if self._attend is None or self._attend[0] != threading.get_ident():
            return
        attend = self._attend
        self._attend = None  # what happens meanwhile waits without it
        try:
            attend[1]()
        finally:
            self._attend = attend

    def sleep(self, duration_s: float) -> None:
        if not self.flows:
            self._let_others_act()
            self._pass(duration_s)
            return
        until_s = self.monotonic_s() + duration_s
        while True:
            left_s = until_s - self.monotonic_s()
            time.sleep(max(0.0, min(left_s, SLICE_S)))
            if left_s <= SLICE_S:
                return

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if event.is_set():
            return True
        if not self.flows:
            self._let_others_act()
            if not event.is_set():
                self._pass(timeout_s)
            return event.is_set()
        until_s = self.monotonic_s() + timeout_s
        while (left_s := until_s - self.monotonic_s()) > 0:
            if event.wait(min(left_s, SLICE_S)):
                return True
        return event.is_set()

    def advance(self, duration: timedelta) -> None:
        """Let time pass.

        Raises:
          ValueError: When ``duration`` is negative: a monotonic clock never goes back. See
            :meth:`jump`.
        """
        if duration < timedelta(0):
            raise ValueError(f"advance by {duration}: time does not go back; jump() sets the wall clock back")
        self._pass(duration.total_seconds())

    def _pass(self, duration_s: float) -> None:
        # In seconds: a timedelta has whole microseconds, and a deadline would never come that is closer.
        with self._lock:
            self._moved_s += max(0.0, duration_s)
            self._wall_moved_ms += 1000 * max(0.0, duration_s)

    def tick(self, duration_s: float) -> None:
        """Let time pass that is not on the wall clock: deadlines and pauses end, and no message is due."""
        with self._lock:
            self._moved_s += duration_s

    def jump(self, duration: timedelta) -> None:
        """Set the wall clock forward or back, as NTP or an operator does."""
        with self._lock:
            self._wall_moved_ms += 1000 * duration.total_seconds()
