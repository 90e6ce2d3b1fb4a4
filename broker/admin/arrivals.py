"""Counts the records that came to a queue, by time, from the offsets in its log. No record is read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from ..errors import ParameterRefused
from ..kafka.clients import Clients
from ..kafka.rights import reading
from ..kafka.topics import Topics
from ..kafka.types import TopicPartition
from ..kafka.watermarks import high_watermarks
from ..process import clock

#: The number of intervals; each takes a request to the leaders of the queue's partitions.
MAX_INTERVALS = 1_440
REQUEST_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The records that came to a queue in a period: messages, retries and redrives.

    Attributes:
      since: The begin of the period. Records that retention has removed since are missing.
      interval_s: The length of an interval.
      counts: The number of records by interval. The last interval ends now, and may be shorter.
      elapsed_s: The length of the period.
    """

    since: datetime
    interval_s: float
    counts: tuple[int, ...]
    elapsed_s: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def per_s(self) -> float:
        """The mean number of records per second."""
        return self.count / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def peak_per_s(self) -> float:
        """The number of records per second of the interval with the most; the mean where it is larger."""
        return max(self.per_s, max(self.counts, default=0) / self.interval_s)


class ArrivalCounter:
    """Counts arrivals."""

    def __init__(self, clients: Clients, topics: Topics) -> None:
        self._clients = clients
        self._topics = topics

    def count(self, queue_name: str, since: datetime, interval_s: float) -> Arrivals:
        """See ``KafkaBroker.arrivals``."""
        now_ms, since_ms = clock.wall_ms(), round(since.timestamp() * 1000)
        elapsed_s = (now_ms - since_ms) / 1000
        if elapsed_s <= 0 or interval_s <= 0:
            raise ParameterRefused(
                f"since={since} and interval_s={interval_s}: both have to be a past period"
            )
        if elapsed_s / interval_s > MAX_INTERVALS:
            raise ParameterRefused(
                f"a period of {elapsed_s:,.0f} s has more than {MAX_INTERVALS:,} intervals of "
                f"{interval_s:g} s"
            )
        starts_ms = range(since_ms, now_ms, max(1, round(interval_s * 1000)))
        topic = self._topics.queue(queue_name)
        positions = self._clients.ask(
            lambda: self._positions(topic, starts_ms),
            f"The topic {topic!r} could not be read",
            rights=reading(topic),
        )
        counts = tuple(max(0, after - before) for before, after in pairwise(positions))
        return Arrivals(datetime.fromtimestamp(since_ms / 1000, UTC), interval_s, counts, elapsed_s)

    def _positions(self, topic: str, starts_ms: Sequence[int]) -> list[int]:
        """The sums of the offsets of all partitions at the begin of each interval, and at the end."""
        with closing(self._clients.consumer()) as kafka:
            partitions = [TopicPartition(topic, p) for p in sorted(kafka.partitions_for_topic(topic) or ())]
            ends = high_watermarks(kafka, partitions)
            sums = []
            for start_ms in starts_ms:
                times = dict.fromkeys(partitions, start_ms)
                found = kafka.offsets_for_times(times, timeout_ms=REQUEST_TIMEOUT_MS)
                sums.append(
                    sum(
                        ends[p] if (at := found.get(p)) is None else min(at.offset, ends[p])
                        for p in partitions
                    )
                )
            return [*sums, sum(ends.values())]
