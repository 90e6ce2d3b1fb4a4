"""Commits the state of the ack trackers: on an interval, and at once before a step that depends on it."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from ..deliveries.assigned_partition import AssignedPartition
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.errors import KafkaError, RebalanceInProgressError
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import is_denial
from ..kafka.types import OffsetAndMetadata, TopicPartition
from ..offsets.commit_metadata import CommitState, encode
from ..process import clock
from ..reports.consumption import QueueCounters

logger = logging.getLogger(__name__)

#: The timeout of a commit that a later step waits for.
SYNC_COMMIT_TIMEOUT_S = 5.0
REBALANCE_POLL_MS = 50

Offsets = dict[TopicPartition, OffsetAndMetadata]


class Snapshot:
    """The content of one commit, and the assigned partitions that it covers."""

    def __init__(self, assigned_partitions: Iterable[AssignedPartition], *, clean: bool = False) -> None:
        self.offsets: Offsets = {}
        self._counted: list[tuple[AssignedPartition, int]] = []
        self.began_s = clock.monotonic_s()
        for assigned in assigned_partitions:
            commit = self.offsets[assigned.partition] = to_kafka(assigned.snapshot(clean=clean))
            assigned.sent_commits.append((commit.offset, commit.metadata))
            assigned.dirty = False
            assigned.dispatched_s = math.inf
            assigned.unanswered += 1
            self._counted.append((assigned, assigned.uncommitted))

    def taken(self) -> None:
        for assigned, counted in self._counted:
            assigned.unanswered -= 1
            assigned.uncommitted -= counted
            assigned.committed_offset = self.offsets[assigned.partition].offset

    def refused(self) -> None:
        for assigned, _ in self._counted:
            assigned.unanswered -= 1
            assigned.dirty = True


class Committer:
    """Sends the commits of one consumer.

    At most one interval commit is in flight, so none overtakes another. The consumer's thread calls all
    methods except :meth:`hand_over`, which the rebalance listener calls on kafka-python's I/O thread.

    Parameters:
      on_denial: Called with the error of a commit that Kafka denies to this client.
      counters: Returns the present counters of the queue.

    Attributes:
      next_at_s: The time (``clock.monotonic_s()``) before which only a forced commit is due.
    """

    def __init__(
        self,
        kafka: ConsumerClient,
        in_flight: InFlightDeliveries,
        *,
        interval_s: float,
        on_denial: Callable[[KafkaError], None] = lambda error: None,
        counters: Callable[[], QueueCounters] = QueueCounters,
    ) -> None:
        self._counters = counters
        self._on_denial = on_denial
        self._kafka = kafka
        self._in_flight = in_flight
        self._interval_s = interval_s
        self.next_at_s = 0.0
        self._under_way = False
        self._failing = False

    def commit_when_due(
        self, assigned_partitions: Iterable[AssignedPartition], *, force: bool = False
    ) -> None:
        """Start a commit of the changed partitions, if none is in flight and the interval has passed.

        A record that was dispatched is a change after an interval: a short task is in one commit, at its end,
        and a long one does not count as waiting.

        Parameters:
          force: Commit before the interval has passed, too.
        """
        now_s = clock.monotonic_s()
        if self._under_way or (now_s < self.next_at_s and not force):
            return
        self.next_at_s = now_s + self._interval_s
        with self._in_flight.lock:
            changed = [
                assigned
                for assigned in assigned_partitions
                if (assigned.dirty or now_s - assigned.dispatched_s >= self._interval_s)
                and not assigned.revoked
            ]
            snapshot = Snapshot(changed)
        if changed:
            self._under_way = True
            self._kafka.commit_async(snapshot.offsets, callback=partial(self._interval_answer, snapshot))

    def commit_now(self, assigned_partitions: Iterable[AssignedPartition]) -> bool:
        """Commit ``assigned_partitions`` and wait for the response; False when Kafka did not accept it."""
        with self._in_flight.lock:
            snapshot = Snapshot(assigned_partitions)
        failure = self._commit(snapshot, SYNC_COMMIT_TIMEOUT_S)
        self._answer(snapshot, failure)
        return failure is None

    def hand_over(self, assigned_partitions: Iterable[AssignedPartition]) -> Awaitable[object]:
        """Start the last commit of partitions that move to another member of the group."""
        with self._in_flight.lock:
            snapshot = Snapshot(assigned_partitions, clean=True)
        return self._kafka.commit_async(
            snapshot.offsets, callback=lambda _, response: self._answer(snapshot, response)
        )

    def hand_over_now(self, assigned_partitions: Iterable[AssignedPartition], *, timeout_s: float) -> None:
        """Make the last commit before leaving the group, even during a rebalance."""
        with self._in_flight.lock:
            snapshot = Snapshot(assigned_partitions, clean=True)
        deadline_s = clock.monotonic_s() + timeout_s
        failure = self._commit(snapshot, timeout_s)
        while (
            isinstance(failure, RebalanceInProgressError) and (left_s := deadline_s - clock.monotonic_s()) > 0
        ):
            failure = self._commit(snapshot, left_s, poll_first=True)
        self._answer(snapshot, failure)

    def _commit(self, snapshot: Snapshot, timeout_s: float, *, poll_first: bool = False) -> KafkaError | None:
        try:
            if (
                poll_first
            ):  # Kafka accepts no commit during a rebalance, and only polling advances the rebalance
                self._kafka.poll(timeout_ms=REBALANCE_POLL_MS)
            self._kafka.commit(snapshot.offsets, timeout_ms=timeout_s * 1000)
        except KafkaError as e:
            return e
        return None

    def _interval_answer(self, snapshot: Snapshot, _: Offsets, response: Any) -> None:
        self._under_way = False
        self._answer(snapshot, response)

    def _answer(self, snapshot: Snapshot, response: Any) -> None:
        """Note the result of a commit. After a failure the next commit covers the same changes."""
        failed = isinstance(response, BaseException)
        with self._in_flight.lock:
            snapshot.refused() if failed else snapshot.taken()
            self._count(snapshot, failed=failed)
        if isinstance(response, KafkaError) and is_denial(response):
            self._on_denial(response)
        elif failed and not self._failing and not isinstance(response, RebalanceInProgressError):
            logger.warning("A commit failed; the next one covers its changes, too: %r", response)
            self._failing = True
        elif not failed:
            self._failing = False

    def _count(self, snapshot: Snapshot, *, failed: bool) -> None:
        counters = self._counters()
        if failed:
            counters.failed_commits += 1
        else:
            counters.commit_time.add(clock.monotonic_s() - snapshot.began_s)


def to_kafka(state: CommitState) -> OffsetAndMetadata:
    return OffsetAndMetadata(state.next_offset, encode(state), state.leader_epoch)
