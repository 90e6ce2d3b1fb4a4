"""The counters of a worker's consumers since its boot: commits, moved partitions, repeated deliveries."""

from __future__ import annotations

from dataclasses import dataclass

from ..process.forks import reset_on_fork
from .histogram import EMPTY, DurationCounter, Histogram


@dataclass(frozen=True, slots=True)
class Consumption:
    """The consumption of one queue by one worker, since its boot.

    Attributes:
      commit_time: The durations of the commits that Kafka has accepted, until its answer.
      failed_commits: The commits that Kafka has not accepted. The next one covers the same changes.
      assigned, revoked, lost: The partitions that rebalances have given to the worker, moved away, and taken
        because its membership had ended.
      redelivered: The dispatched records that an earlier owner of the partition had dispatched, too.
    """

    commit_time: Histogram = EMPTY
    failed_commits: int = 0
    assigned: int = 0
    revoked: int = 0
    lost: int = 0
    redelivered: int = 0

    def __add__(self, other: Consumption) -> Consumption:
        return Consumption(
            self.commit_time + other.commit_time,
            self.failed_commits + other.failed_commits,
            self.assigned + other.assigned,
            self.revoked + other.revoked,
            self.lost + other.lost,
            self.redelivered + other.redelivered,
        )


class QueueCounters:
    """The consumption of one queue. Its consumer changes it, on one thread at a time for each attribute."""

    __slots__ = ("assigned", "commit_time", "failed_commits", "lost", "redelivered", "revoked")

    def __init__(self) -> None:
        self.commit_time = DurationCounter()
        self.failed_commits = self.assigned = self.revoked = self.lost = self.redelivered = 0

    def read(self) -> Consumption:
        return Consumption(
            self.commit_time.read(),
            self.failed_commits,
            self.assigned,
            self.revoked,
            self.lost,
            self.redelivered,
        )


class ConsumptionCounters:
    """The consumption of all queues by this process's worker, and its forwards of delayed messages."""

    def __init__(self) -> None:
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Count from 0: the counts belong to the parent."""
        self.begin_boot()

    def begin_boot(self) -> None:
        """Begin with new counters."""
        self._queues: dict[str, QueueCounters] = {}
        self._forward_lateness = DurationCounter()

    def of(self, queue_name: str) -> QueueCounters:
        """The counters of a queue. They are replaced at a boot, so the caller keeps none."""
        counters = self._queues.get(queue_name)
        if counters is None:
            counters = self._queues.setdefault(queue_name, QueueCounters())
        return counters

    def note_forward(self, lateness_s: float) -> None:
        """Note that a delayed message has reached its queue.

        Parameters:
          lateness_s: The time since it was due.
        """
        self._forward_lateness.add(max(0.0, lateness_s))

    def read(self) -> dict[str, Consumption]:
        """The consumption of each queue."""
        return {name: counters.read() for name, counters in self._queues.copy().items()}

    @property
    def forward_lateness(self) -> Histogram:
        """The times from the due time of delayed messages until they were in their queues."""
        return self._forward_lateness.read()
