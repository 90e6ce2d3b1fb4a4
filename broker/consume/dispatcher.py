"""Chooses which record a queue's workers get next, and makes a delivery of it."""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq.message import Message
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from ..dead_letters.giving_up import give_up
from ..deliveries.assigned_partition import CERTAINLY_FITS, Assignment, Capacity
from ..deliveries.delivery import Delivery, make_delivery
from ..errors import InvalidMessage, PoisonMessage
from ..offsets.commit_metadata import Suspicion
from ..partition_keys.record_format import lane_of
from .committer import Commits
from .decoding import read_message

if TYPE_CHECKING:
    from ..broker import KafkaBroker

logger = logging.getLogger(__name__)

#: A partition stops being dispatched when so many of its records were since the last commit that Kafka took.
#: It bounds what a crash repeats, and how far from the last commit the record that caused it can be.
MAX_UNCOMMITTED = 10_000
#: How many records are marked in one commit on probation: their crash counts must fit into the metadata.
MAX_MARKED = 64
#: How long marks that Kafka did not take rest before they are committed again.
MARK_BACKOFF_S = 0.5


class Dispatcher:
    """Serves the partitions of one consumer in turn, so that none with a long backlog starves the others.

    Driven by the consumer's thread. ``assignments`` also changes on kafka-python's I/O thread, but only while
    the consumer's thread is inside a Kafka call.
    """

    def __init__(self, broker: KafkaBroker, queue_name: str, commits: Commits, capacity: Capacity) -> None:
        self.assignments: dict[TopicPartition, Assignment] = {}
        self._broker = broker
        self._queue_name = queue_name
        self._commits = commits
        self._capacity = capacity
        self._ledger = broker.ledger
        self._turns: deque[Assignment] = deque()
        # On probation a record goes from `_marked` (its mark is not committed) to `_cleared` (it may run).
        self._marked: tuple[Assignment, list[ConsumerRecord]] | None = None
        self._marks_due_at_s = 0.0
        self._cleared: deque[tuple[Assignment, ConsumerRecord]] = deque()
        self._suspected: Assignment | None = None

    def add(self, assignment: Assignment) -> None:
        self.assignments[assignment.partition] = assignment
        self._ledger.add(assignment)
        self._turns.append(assignment)

    def remove(self, partition: TopicPartition) -> Assignment | None:
        """Take a partition away; None when it was not here."""
        assignment = self.assignments.pop(partition, None)
        if assignment is not None:
            self._ledger.revoke(assignment)
            self._turns.remove(assignment)
        return assignment

    def next(self) -> Delivery | None:
        """The next delivery, or None when there is nothing that may be dispatched at the moment."""
        if self._capacity.free <= 0 or self._broker.intake_paused or self._ledger.excludes(self):
            return None
        if self._broker.stopping:
            # An idle thread would still take it, among others what an interrupted task has just handed back,
            # and the shutdown would wait for it.
            return None
        if self._marked is not None:
            self._commit_marks()
        while self._cleared and not self._ledger.excludes(self):
            delivery = self._deliver(*self._cleared.popleft())
            if delivery is not None:
                return delivery
        if self._marked is not None or self._cleared:
            return None
        if self._ledger.isolates(self):
            return self._next_suspect()
        for _ in range(len(self._turns)):
            assignment = self._turns[0]
            self._turns.rotate(-1)
            delivery = self._next_of(assignment)
            if delivery is not None or self._marked is not None:
                return delivery  # None: what is marked has to be committed before anything else is
        return None

    def drop_below(self, assignment: Assignment, offset: int) -> int:
        """Drop what a flush has deleted and no thread has begun; return how many records that was."""
        with self._ledger.lock:
            dropped = self._ledger.drop_below(assignment, offset)
            taken = self._take_below(assignment, offset)
            for record in taken:
                assignment.complete_unrun(record.offset)
                if (turn := assignment.turns.pop(record.offset, None)) is not None:
                    assignment.lanes.finish(turn)
        return dropped + len(taken)

    def _take_below(self, assignment: Assignment, offset: int) -> list[ConsumerRecord]:
        """Take out what waits for its mark to be committed, or was marked and waits to be dispatched."""
        taken = [record for owner, record in self._cleared if owner is assignment and record.offset < offset]
        self._cleared = deque(entry for entry in self._cleared if entry[1] not in taken)
        if self._marked is not None and self._marked[0] is assignment:
            marked = self._marked[1]
            taken += [record for record in marked if record.offset < offset]
            kept = [record for record in marked if record.offset >= offset]
            self._marked = (assignment, kept) if kept else None
        return taken

    def close(self) -> None:
        """Give the process back, if a suspect has it."""
        self._ledger.end_isolation(self)

    def _next_of(self, assignment: Assignment) -> Delivery | None:
        lanes = assignment.lanes
        while not assignment.leaving and not self._ledger.excludes(self):
            if lanes.leaving:
                self._let_leave(assignment)
                if self._capacity.free <= 0:
                    return None
            if not self._has_next(assignment):
                if lanes.leaving:
                    continue
                return None
            if not lanes.ready and (  # what comes out of a lane is counted already
                assignment.uncommitted >= MAX_UNCOMMITTED or not self._has_room(assignment)
            ):
                return None
            if assignment.is_suspect():
                self._suspected = assignment
                return self._next_suspect()
            if assignment.on_probation():
                return self._mark(assignment, MAX_MARKED)
            delivery = self._deliver(assignment, self._pop(assignment))
            if delivery is not None:
                return delivery
        return None

    def _next_suspect(self) -> Delivery | None:
        """Run the suspect alone in this process, or dead-letter it when it has killed enough workers."""
        assignment = self._suspected
        if assignment is None or not self._has_next(assignment) or not assignment.is_suspect():
            self._suspected = None
            if self._ledger.isolate(self):  # nothing runs: the last suspect is done
                self._ledger.end_isolation(self)
            return None
        if assignment.head_crashes() >= self._broker.max_crashes:
            error = PoisonMessage(
                f"its worker died, or lost its partitions, {assignment.head_crashes()} times with it"
            )
            self._reject(assignment, self._pop(assignment), error)
            return None
        return self._mark(assignment, 1) if self._ledger.isolate(self) else None

    def _mark(self, assignment: Assignment, at_most: int) -> Delivery | None:
        """Commit that some records are about to run, and only then dispatch them: a crash names them."""
        marked: list[ConsumerRecord] = []
        while len(marked) < min(at_most, self._capacity.free) and self._has_next(assignment):
            if marked and (assignment.is_suspect() or not assignment.on_probation()):
                break
            if marked and not assignment.lanes.ready and not self._has_room(assignment):
                break
            record = self._pop(assignment)
            marked.append(record)
            with self._ledger.lock:
                crashes = assignment.suspicions.get(record.offset, Suspicion(1, running=False)).crashes
                assignment.suspicions[record.offset] = Suspicion(crashes, running=True)
        if marked:
            self._marked = (assignment, marked)
            self._commit_marks()
        return self._deliver(*self._cleared.popleft()) if self._cleared else None

    def _commit_marks(self) -> None:
        assert self._marked is not None
        assignment, records = self._marked
        if assignment.revoked:
            self._marked = None
        elif time.monotonic() >= self._marks_due_at_s:
            if self._commits.commit_now([assignment]):
                self._cleared.extend((assignment, record) for record in records)
                self._marked = None
            else:
                self._marks_due_at_s = time.monotonic() + MARK_BACKOFF_S

    def _has_room(self, assignment: Assignment) -> bool:
        if len(assignment.tracker) < CERTAINLY_FITS:  # the usual case, without the lock
            return True
        with self._ledger.lock:
            return assignment.has_room_in_metadata()

    def _has_next(self, assignment: Assignment) -> bool:
        """Whether there is a record to be run, once those that need no run, or may not run yet, are passed
        over.
        """
        lanes = assignment.lanes
        with self._ledger.lock:
            if lanes.ready:
                return not assignment.revoked
            while assignment.buffer and not assignment.revoked:
                record = assignment.buffer[0]
                if not assignment.tracker.is_to_run(record.offset):
                    assignment.take_out()
                elif self._ledger.adopt(assignment, record.offset, record.value):
                    assignment.adopt(record)
                elif finished := self._ledger.recall(assignment, record.offset, record.value):
                    assignment.adopt(record)
                    self._broker.following.come_last(finished)
                    self._broker.settlement.settle(finished)
                elif record.key is None or lane_of(record.headers) is None:
                    return True
                elif lanes.leaving or not assignment.has_room_in_metadata():
                    return False
                else:
                    assignment.take_into_lane()
                    if lanes.ready:
                        return True
            return False

    def _let_leave(self, assignment: Assignment) -> None:
        """Complete records that are not to be run here, once the lanes topic has those that wait."""
        leaving = assignment.lanes.leaving
        while leaving and self._capacity.free > 0:
            with self._ledger.lock:
                record, turn = leaving.popleft()
                if turn is None:
                    assignment.complete_unrun(record.offset)
                    continue
                assignment.turns[record.offset] = turn
            delivery = self._unrun(record, assignment)
            self._broker.following.move(delivery)
            if self._ledger.hold(delivery):
                self._broker.settlement.settle(delivery)

    def _pop(self, assignment: Assignment) -> ConsumerRecord:
        """Take the next record and count it as delivered, in one step."""
        with self._ledger.lock:
            if assignment.lanes.ready:
                return assignment.take_ready()
            record = assignment.take_out()
            assignment.tracker.deliver(record.offset, record.leader_epoch)
            return record

    def _deliver(self, assignment: Assignment, record: ConsumerRecord) -> Delivery | None:
        """Make a delivery of a record, or a dead letter when it is no message that this worker can run."""
        try:
            message = read_message(
                record.value, queue_name=self._queue_name, actors=self._broker.actors, record=record
            )
        except InvalidMessage as e:
            self._reject(assignment, record, e)
            return None
        delivery = make_delivery(message, record, assignment)
        if self._ledger.dispatch(delivery, self):
            return delivery
        if not assignment.revoked:
            # Another consumer's suspect has the process to itself since this record was taken: it waits.
            self._cleared.appendleft((assignment, record))
        return None

    def _reject(self, assignment: Assignment, record: ConsumerRecord, error: Exception) -> None:
        """Dead-letter a record that never reaches a worker thread."""
        delivery = self._unrun(record, assignment)
        delivery.preparation = partial(give_up, self._broker, delivery, error)
        self._broker.following.come_last(delivery)
        if self._ledger.hold(delivery):  # unless its partition was taken away: its new owner does this then
            logger.error("The record %s is dead-lettered: %s", delivery.origin, error)
            self._broker.settlement.settle(delivery)

    def _unrun(self, record: ConsumerRecord, assignment: Assignment) -> Delivery:
        """Make a delivery of a record that is not looked into and that no worker thread gets."""
        message: Message[Any] = Message(self._queue_name, actor_name="", args=(), kwargs={}, options={})
        delivery = make_delivery(message, record, assignment)
        delivery.unrun = True
        return delivery
