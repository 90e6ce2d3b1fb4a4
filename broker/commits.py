"""Commits what the ack trackers say: on an interval, and at once where something has to be durable first."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from kafka.future import Future
from kafka.structs import OffsetAndMetadata, TopicPartition

from .assignment import Assignment
from .commit_metadata import CommitState, encode
from .ledger import Ledger

logger = logging.getLogger(__name__)

#: How long a commit that something waits for may take before that thing is tried again later.
SYNC_COMMIT_TIMEOUT_MS = 5_000

Offsets = dict[TopicPartition, OffsetAndMetadata]


class Snapshot:
    """What one commit says, and the assignments that say it."""

    def __init__(self, assignments: Iterable[Assignment], *, clean: bool = False) -> None:
        self.offsets: Offsets = {}
        self._counted: list[tuple[Assignment, int]] = []
        for assignment in assignments:
            self.offsets[assignment.partition] = to_kafka(assignment.snapshot(clean=clean))
            assignment.dirty = False
            assignment.unanswered += 1
            self._counted.append((assignment, assignment.uncommitted))

    def taken(self) -> None:
        for assignment, counted in self._counted:
            assignment.unanswered -= 1
            assignment.uncommitted -= counted

    def refused(self) -> None:
        for assignment, _ in self._counted:
            assignment.unanswered -= 1
            assignment.dirty = True


class Commits:
    """Sends the commits of one consumer.

    At most one interval commit is under way, so none overtakes another. Driven by the consumer's thread,
    except :meth:`hand_over`, which the rebalance listener calls on kafka-python's I/O thread.
    """

    def __init__(self, kafka: KafkaConsumer, ledger: Ledger, *, interval_s: float) -> None:
        self._kafka = kafka
        self._ledger = ledger
        self._interval_s = interval_s
        self._next_at_s = 0.0
        self._under_way = False
        self._failing = False

    def commit_when_due(self, assignments: Iterable[Assignment]) -> None:
        """Start a commit of what has changed, if the interval has passed and the last one was answered."""
        now_s = time.monotonic()
        if now_s < self._next_at_s or self._under_way:
            return
        self._next_at_s = now_s + self._interval_s
        with self._ledger.lock:
            changed = [
                assignment for assignment in assignments if assignment.dirty and not assignment.revoked
            ]
            snapshot = Snapshot(changed)
        if changed:
            self._under_way = True
            self._kafka.commit_async(snapshot.offsets, callback=partial(self._interval_answer, snapshot))

    def commit_now(self, assignment: Assignment) -> bool:
        """Commit one assignment and wait for the answer; False when Kafka did not take it."""
        with self._ledger.lock:
            snapshot = Snapshot([assignment])
        try:
            self._kafka.commit(snapshot.offsets, timeout_ms=SYNC_COMMIT_TIMEOUT_MS)
        except KafkaError as e:
            self._answer(snapshot, e)
            return False
        self._answer(snapshot, None)
        return True

    def hand_over(self, assignments: Iterable[Assignment]) -> Future:
        """Start the last commit of partitions that are handed over in good order."""
        with self._ledger.lock:
            snapshot = Snapshot(assignments, clean=True)
        return self._kafka.commit_async(
            snapshot.offsets, callback=lambda _, response: self._answer(snapshot, response)
        )

    def _interval_answer(self, snapshot: Snapshot, _: Offsets, response: Any) -> None:
        self._under_way = False
        self._answer(snapshot, response)

    def _answer(self, snapshot: Snapshot, response: Any) -> None:
        """Note how a commit ended. What one that failed would have said is said by the next one."""
        failed = isinstance(response, BaseException)
        with self._ledger.lock:
            snapshot.refused() if failed else snapshot.taken()
        if failed and not self._failing:
            # A rebalance makes this normal: the next owner replays what this commit would have said.
            logger.warning("A commit failed and will be repeated: %r", response)
        self._failing = failed


def to_kafka(state: CommitState) -> OffsetAndMetadata:
    return OffsetAndMetadata(state.next_offset, encode(state), -1)
