"""Durations in the buckets of a Prometheus histogram. Pure.

A report's histogram has two buckets for each doubling (see ``reports.histogram``). Two of them make one
bucket here, whose bound is a power of two of a second, so that no duration is counted in a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

#: The bounds, as powers of two of a second: from 1 ms to 4.5 hours.
FIRST_POWER = -10
LAST_POWER = 14
BOUNDS_S = [2.0**power for power in range(FIRST_POWER, LAST_POWER + 1)]


class Durations(Protocol):
    """A histogram of a report."""

    @property
    def first_bucket(self) -> int: ...

    @property
    def counts(self) -> Sequence[int]: ...

    @property
    def sum_s(self) -> float: ...


class Distribution:
    """The sum of the increases of many histograms.

    Attributes:
      counts: The number of durations up to each bound, and above the last one.
      sum_s: Their sum in seconds.
    """

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, new: Durations, old: Durations | None) -> None:
        """Add the durations of ``new`` that are not in ``old``, an earlier reading of the same histogram."""
        known = {} if old is None else dict(enumerate(old.counts, start=old.first_bucket))
        for bucket, count in enumerate(new.counts, start=new.first_bucket):
            self.counts[_index(bucket)] += max(0, count - known.get(bucket, 0))
        self.sum_s += max(0.0, new.sum_s - (0.0 if old is None else old.sum_s))

    def cumulative(self, unit_s: float = 1.0) -> list[tuple[float, int]]:
        """The number of durations up to each bound; the last bound is infinite.

        Parameters:
          unit_s: The unit of the bounds.
        """
        total = 0
        found = []
        for bound_s, count in zip([*BOUNDS_S, math.inf], self.counts, strict=True):
            total += count
            found.append((bound_s / unit_s, total))
        return found


def _index(bucket: int) -> int:
    """The index of the lowest bound that no duration of a report's bucket exceeds.

    The bucket ends at ``2 ** ((bucket + 1) / 2)``.
    """
    power = (bucket + 2) // 2
    return min(max(power - FIRST_POWER, 0), len(BOUNDS_S))
