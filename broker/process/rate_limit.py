"""Limits the rate of an operator's sends."""

from __future__ import annotations

import math

from . import clock


class RateLimit:
    """Limits the messages per second, a batch at a time.

    Parameters:
      rate_per_s: The maximum number of messages per second; None for no limit.
      max_batch: The maximum number of messages in a batch.

    Raises:
      ValueError: When the rate is no number above 0.

    Attributes:
      max_batch: The maximum number of messages in a batch, at most those of a second.
    """

    def __init__(self, rate_per_s: float | None, *, max_batch: int) -> None:
        if rate_per_s is not None and not 0 < rate_per_s < math.inf:
            raise ValueError(f"rate_per_s={rate_per_s}: a rate is a number above 0, or None for no limit")
        self._rate_per_s = rate_per_s
        self.max_batch = max_batch if rate_per_s is None else max(1, min(max_batch, int(rate_per_s)))
        self._free_at_s = 0.0

    def wait(self, count: int) -> None:
        """Wait until ``count`` further messages may be sent."""
        if self._rate_per_s is None:
            return
        now_s = clock.monotonic_s()
        clock.sleep(max(0.0, self._free_at_s - now_s))
        self._free_at_s = max(now_s, self._free_at_s) + count / self._rate_per_s
