"""Commits what the ack trackers say: on an interval, and at once where something has to be durable first."""

from __future__ import annotations

import logging
import time
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

logger = logging.getLogger(__name__)

#: How long a commit that something waits for may take before that thing is tried again later.
SYNC_COMMIT_TIMEOUT_S = 5.0
REBALANCE_POLL_MS = 50

Offsets = dict[TopicPartition, OffsetAndMetadata]


class Snapshot:
    """What one commit says, and the assignments that say it."""

    def __init__(self, assigned_partitions: Iterable[AssignedPartition], *, clean: bool = False) -> None:
        self.offsets: Offsets = {}
        self._counted: list[tuple[AssignedPartition, int]] = []
        for assigned in assigned_partitions:
            said = self.offsets[assigned.partition] = to_kafka(assigned.snapshot(clean=clean))
            assigned.said.append((said.offset, said.metadata))
            assigned.dirty = False
            assigned.unanswered += 1
            self._counted.append((assigned, assigned.uncommitted))

    def taken(self) -> None:
        for assigned, counted in self._counted:
            assigned.unanswered -= 1
            assigned.uncommitted -= counted

    def refused(self) -> None:
        for assigned, _ in self._counted:
            assigned.unanswered -= 1
            assigned.dirty = True


class Committer:
    """Sends the commits of one consumer.

    At most one interval commit is under way, so none overtakes another. Driven by the consumer's thread,
    except :meth:`hand_over`, which the rebalance listener calls on kafka-python's I/O thread.

    Parameters:
      on_denial: Takes the error of a commit that this client has no right to.
    """

    def __init__(
        self,
        kafka: ConsumerClient,
        in_flight: InFlightDeliveries,
        *,
        interval_s: float,
        on_denial: Callable[[KafkaError], None] = lambda error: None,
    ) -> None:
        self._on_denial = on_denial
        self._kafka = kafka
        self._in_flight = in_flight
        self._interval_s = interval_s
        self._next_at_s = 0.0
        self._under_way = False
        self._failing = False

    def commit_when_due(
        self, assigned_partitions: Iterable[AssignedPartition], *, force: bool = False
    ) -> None:
        """Start a commit of what has changed, if the last one was answered and the interval has passed.

        Parameters:
          at_once: Whether the interval need not have passed.
        """
        now_s = time.monotonic()
        if self._under_way or (now_s < self._next_at_s and not force):
            return
        self._next_at_s = now_s + self._interval_s
        with self._in_flight.lock:
            changed = [
                assigned for assigned in assigned_partitions if assigned.dirty and not assigned.revoked
            ]
            snapshot = Snapshot(changed)
        if changed:
            self._under_way = True
            self._kafka.commit_async(snapshot.offsets, callback=partial(self._interval_answer, snapshot))

    def commit_now(self, assigned_partitions: Iterable[AssignedPartition]) -> bool:
        """Commit ``assignments`` and wait for the answer; False when Kafka did not take it."""
        with self._in_flight.lock:
            snapshot = Snapshot(assigned_partitions)
        failure = self._commit(snapshot, SYNC_COMMIT_TIMEOUT_S)
        self._answer(snapshot, failure)
        return failure is None

    def hand_over(self, assigned_partitions: Iterable[AssignedPartition]) -> Awaitable[object]:
        """Start the last commit of partitions that another member of the group will get."""
        with self._in_flight.lock:
            snapshot = Snapshot(assigned_partitions, clean=True)
        return self._kafka.commit_async(
            snapshot.offsets, callback=lambda _, response: self._answer(snapshot, response)
        )

    def hand_over_now(self, assigned_partitions: Iterable[AssignedPartition], *, timeout_s: float) -> None:
        """Make the last commit before leaving the group, however far a rebalance has got."""
        with self._in_flight.lock:
            snapshot = Snapshot(assigned_partitions, clean=True)
        deadline_s = time.monotonic() + timeout_s
        failure = self._commit(snapshot, timeout_s)
        while isinstance(failure, RebalanceInProgressError) and (left_s := deadline_s - time.monotonic()) > 0:
            failure = self._commit(snapshot, left_s, poll_first=True)
        self._answer(snapshot, failure)

    def _commit(self, snapshot: Snapshot, timeout_s: float, *, poll_first: bool = False) -> KafkaError | None:
        try:
            if poll_first:  # nothing can be committed during a rebalance, and only polling brings it on
                self._kafka.poll(timeout_ms=REBALANCE_POLL_MS)
            self._kafka.commit(snapshot.offsets, timeout_ms=timeout_s * 1000)
        except KafkaError as e:
            return e
        return None

    def _interval_answer(self, snapshot: Snapshot, _: Offsets, response: Any) -> None:
        self._under_way = False
        self._answer(snapshot, response)

    def _answer(self, snapshot: Snapshot, response: Any) -> None:
        """Note how a commit ended. What one that failed would have said is said by the next one."""
        failed = isinstance(response, BaseException)
        with self._in_flight.lock:
            snapshot.refused() if failed else snapshot.taken()
        if isinstance(response, KafkaError) and is_denial(response):
            self._on_denial(response)
        elif failed and not self._failing and not isinstance(response, RebalanceInProgressError):
            logger.warning("A commit failed; the next one says what it would have said: %r", response)
            self._failing = True
        elif not failed:
            self._failing = False


def to_kafka(state: CommitState) -> OffsetAndMetadata:
    return OffsetAndMetadata(state.next_offset, encode(state), state.leader_epoch)
