"""The pauses between the attempts of an operation that fails."""

from __future__ import annotations

import random

from . import clock


class Backoff:
    """Decides when an operation that failed is tried again.

    One thread notes failures and successes. Any thread may ask for the rest of the pause.

    Parameters:
      first_s: The pause after the first failure, in seconds.
      max_s: The longest pause. Each failure in a row doubles the pause up to it; by default all pauses are
        equal.
      jitter: Whether each pause is random between 0 and its length, so that several processes do not try
        again at the same moment.
    """

    def __init__(self, first_s: float, max_s: float | None = None, *, jitter: bool = False) -> None:
        self._first_s = first_s
        self._max_s = first_s if max_s is None else max_s
        self._jitter = jitter
        self._has_failed = False
        self._length_s = 0.0
        self._until_s = 0.0

    def fail(self) -> float:
        """Begin the pause after a failure, and return its length in seconds."""
        self._length_s = min(2 * self._length_s, self._max_s) if self._has_failed else self._first_s
        self._has_failed = True
        pause_s = random.uniform(0.0, self._length_s) if self._jitter else self._length_s
        self._until_s = clock.monotonic_s() + pause_s
        return pause_s

    def reset(self) -> None:
        """Note a success: there is no pause, and the next one is the first again."""
        self._has_failed = False
        self._until_s = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed."""
        return self._has_failed

    @property
    def remaining_s(self) -> float:
        """The rest of the pause in seconds; 0 when the operation may be tried."""
        return max(0.0, self._until_s - clock.monotonic_s())

    @property
    def is_over(self) -> bool:
        """Whether the operation may be tried."""
        return clock.monotonic_s() >= self._until_s
