"""Durations in fixed exponential buckets. Pure.

Two buckets cover each doubling: bucket ``i`` holds the durations of at least ``BASE ** i`` seconds and below
``BASE ** (i + 1)``, where ``BASE`` is the square root of 2. These are the buckets of an OpenTelemetry
exponential histogram of scale 1, except for durations that lie exactly on a boundary. The buckets are the
same in each process, so histograms are added bucket by bucket.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

BASE = math.sqrt(2)
#: Bucket -40 ends at 1.35 microseconds and holds all shorter durations; bucket 43 begins at 34 days.
FIRST_BUCKET = -40
LAST_BUCKET = 43
BUCKET_COUNT = LAST_BUCKET - FIRST_BUCKET + 1
#: ``bisect_right(UPPER_BOUNDS_S, duration_s)`` is the slot of a duration: the position of its bucket in a
#: list of all buckets. A function of this module would take longer to call than to run.
UPPER_BOUNDS_S = [BASE**bucket for bucket in range(FIRST_BUCKET + 1, LAST_BUCKET + 1)]


@dataclass(frozen=True, slots=True)
class Histogram:
    """The distribution of some durations.

    Attributes:
      first_bucket: The number of the bucket of ``counts[0]``.
      counts: The number of durations in consecutive buckets.
      sum_s: The sum of the durations, in seconds.
    """

    first_bucket: int = 0
    counts: tuple[int, ...] = ()
    sum_s: float = 0.0

    @classmethod
    def of_slots(cls, slots: Sequence[int], sum_s: float) -> Histogram:
        """The histogram of a list of all buckets, without the empty ones at both ends."""
        used = [slot for slot, count in enumerate(slots) if count]
        if not used:
            return cls()
        return cls(used[0] + FIRST_BUCKET, tuple(slots[used[0] : used[-1] + 1]), sum_s)

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    @property
    def mean_s(self) -> float | None:
        """The mean in seconds; None without a duration."""
        return self.sum_s / self.count if self.count else None

    def quantile_s(self, share: float) -> float | None:
        """An estimate of a quantile in seconds, off by 19 % at most; None without a duration.

        Parameters:
          share: From 0 to 1: 0.5 for the median.
        """
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        for bucket, count in enumerate(self.counts, start=self.first_bucket):
            rank -= count
            if rank <= 0:
                return float(BASE ** (bucket + 0.5))
        raise AssertionError("a share is at most 1")

    def __add__(self, other: Histogram) -> Histogram:
        """The distribution of the durations of both."""
        if not other.counts or not self.counts:
            return self if self.counts else other
        first = min(self.first_bucket, other.first_bucket)
        end = max(h.first_bucket + len(h.counts) for h in (self, other))
        slots = [0] * (end - first)
        for histogram in (self, other):
            for bucket, count in enumerate(histogram.counts, start=histogram.first_bucket):
                slots[bucket - first] += count
        return Histogram(first, tuple(slots), self.sum_s + other.sum_s)


EMPTY = Histogram()


class DurationCounter:
    """Counts durations. One thread at a time adds some; others may read it."""

    __slots__ = ("_slots", "_sum_s")

    def __init__(self) -> None:
        self._slots = [0] * BUCKET_COUNT
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        self._slots[bisect_right(UPPER_BOUNDS_S, duration_s)] += 1
        self._sum_s += duration_s

    def read(self) -> Histogram:
        """The durations so far."""
        return Histogram.of_slots(self._slots[:], self._sum_s)
