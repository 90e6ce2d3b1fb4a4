"""Chooses the next record for a queue's workers, and creates a delivery of it."""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import Any

from dramatiq.message import Message

from ..deliveries.assigned_partition import CERTAINLY_FITS, AssignedPartition, Capacity
from ..deliveries.delivery import Delivery, make_delivery
from ..errors import InvalidMessage, PoisonMessage
from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.commit_metadata import Suspicion
from ..partition_keys.record_format import lane_of
from ..process import clock
from .committer import Committer
from .config import ConsumerConfig, ConsumerParts
from .decoding import read_message

logger = logging.getLogger(__name__)

#: The maximum number of records of a partition that are dispatched after its last acknowledged commit. It
#: limits the records that a crash repeats, and the distance from the last commit to the cause of the crash.
MAX_UNCOMMITTED = 10_000
#: The maximum number of marked records in one commit on probation: their crash counts must fit its metadata.
MAX_MARKED = 64
#: The pause before marks are committed again that Kafka did not accept.
MARK_BACKOFF_S = 0.5


class Dispatcher:
    """Serves the partitions of one consumer in turn, so that none with a long backlog starves the others.

    The consumer's thread calls all methods. ``assigned_partitions`` also changes on kafka-python's I/O
    thread, but only during a Kafka call of the consumer's thread.
    """

    def __init__(
        self, config: ConsumerConfig, parts: ConsumerParts, commits: Committer, capacity: Capacity
    ) -> None:
        self.assigned_partitions: dict[TopicPartition, AssignedPartition] = {}
        self._config = config
        self._parts = parts
        self._committer = commits
        self._capacity = capacity
        self._in_flight = parts.in_flight
        self._rotation: deque[AssignedPartition] = deque()
        # On probation a record moves from `_marked` (its mark is not committed) to `_cleared` (it may run).
        self._marked: tuple[AssignedPartition, list[ConsumedRecord]] | None = None
        self._marks_due_at_s = 0.0
        self._cleared: deque[tuple[AssignedPartition, ConsumedRecord]] = deque()
        self._suspected: AssignedPartition | None = None

    def add(self, assigned: AssignedPartition) -> None:
        self.assigned_partitions[assigned.partition] = assigned
        self._in_flight.add(assigned)
        self._rotation.append(assigned)

    def remove(self, partition: TopicPartition) -> AssignedPartition | None:
        """Remove a partition; None when it was not assigned."""
        assigned = self.assigned_partitions.pop(partition, None)
        if assigned is not None:
            self._in_flight.revoke(assigned)
            self._rotation.remove(assigned)
        return assigned

    def next(self) -> Delivery | None:
        """The next delivery, or None when no record may be dispatched at the moment."""
        if self._capacity.free <= 0 or self._parts.is_paused() or self._in_flight.excludes(self):
            return None
        if self._parts.shutdown.stopping:
            # An idle thread would still take a delivery (one that an interrupted task handed back, say), and
            # the shutdown would wait for it.
            return None
        if self._marked is not None:
            self._commit_marks()
        while self._cleared and not self._in_flight.excludes(self):
            delivery = self._deliver(*self._cleared.popleft())
            if delivery is not None:
                return delivery
        if self._marked is not None or self._cleared:
            return None
        if self._in_flight.isolates(self):
            return self._next_suspect()
        for _ in range(len(self._rotation)):
            assigned = self._rotation[0]
            self._rotation.rotate(-1)
            delivery = self._next_of(assigned)
            if delivery is not None or self._marked is not None:
                return delivery  # None: the marks must be committed before any other dispatch
        return None

    def drop_below(self, assigned: AssignedPartition, offset: int) -> int:
        """Drop the records that a flush deleted and no thread has started; return their number."""
        with self._in_flight.lock:
            dropped = self._in_flight.drop_below(assigned, offset)
            taken = self._take_below(assigned, offset)
            for record in taken:
                assigned.complete_unrun(record.offset)
                if (entry := assigned.lane_entries.pop(record.offset, None)) is not None:
                    assigned.lanes.finish(entry)
        return dropped + len(taken)

    def _take_below(self, assigned: AssignedPartition, offset: int) -> list[ConsumedRecord]:
        """Remove the records whose marks are not committed, and the marked ones that are not dispatched."""
        taken = [record for owner, record in self._cleared if owner is assigned and record.offset < offset]
        self._cleared = deque(entry for entry in self._cleared if entry[1] not in taken)
        if self._marked is not None and self._marked[0] is assigned:
            marked = self._marked[1]
            taken += [record for record in marked if record.offset < offset]
            kept = [record for record in marked if record.offset >= offset]
            self._marked = (assigned, kept) if kept else None
        return taken

    def close(self) -> None:
        """End the isolation of the process, if a suspect runs alone in it."""
        self._in_flight.end_isolation(self)

    def _next_of(self, assigned: AssignedPartition) -> Delivery | None:
        lanes = assigned.lanes
        while not assigned.leaving and not self._in_flight.excludes(self):
            if lanes.leaving:
                self._let_leave(assigned)
                if self._capacity.free <= 0:
                    return None
            if not self._has_next(assigned):
                if lanes.leaving:
                    continue
                return None
            if not lanes.ready and (  # records from a lane are counted already
                assigned.uncommitted >= MAX_UNCOMMITTED or not self._has_room(assigned)
            ):
                return None
            if assigned.is_suspect():
                self._suspected = assigned
                return self._next_suspect()
            if assigned.on_probation():
                return self._mark(assigned, MAX_MARKED)
            delivery = self._deliver(assigned, self._pop(assigned))
            if delivery is not None:
                return delivery
        return None

    def _next_suspect(self) -> Delivery | None:
        """Run the suspect alone in this process, or dead-letter it after ``max_crashes`` crashes."""
        assigned = self._suspected
        if assigned is None or not self._has_next(assigned) or not assigned.is_suspect():
            self._suspected = None
            if self._in_flight.isolate(self):  # no message runs: the last suspect is done
                self._in_flight.end_isolation(self)
            return None
        if assigned.head_crashes() >= self._config.max_crashes:
            error = PoisonMessage(
                f"its worker died, or lost its partitions, {assigned.head_crashes()} times with it"
            )
            self._reject(assigned, self._pop(assigned), error)
            return None
        return self._mark(assigned, 1) if self._in_flight.isolate(self) else None

    def _mark(self, assigned: AssignedPartition, at_most: int) -> Delivery | None:
        """Mark some records as running, commit the marks, and only then dispatch the records. After a crash
        the marks name them.
        """
        marked: list[ConsumedRecord] = []
        while len(marked) < min(at_most, self._capacity.free) and self._has_next(assigned):
            if marked and (assigned.is_suspect() or not assigned.on_probation()):
                break
            if marked and not assigned.lanes.ready and not self._has_room(assigned):
                break
            record = self._pop(assigned)
            marked.append(record)
            with self._in_flight.lock:
                crashes = assigned.suspicions.get(record.offset, Suspicion(1, running=False)).crashes
                assigned.suspicions[record.offset] = Suspicion(crashes, running=True)
        if marked:
            self._marked = (assigned, marked)
            self._commit_marks()
        return self._deliver(*self._cleared.popleft()) if self._cleared else None

    def _commit_marks(self) -> None:
        assert self._marked is not None
        assigned, records = self._marked
        if assigned.revoked:
            self._marked = None
        elif clock.monotonic_s() >= self._marks_due_at_s:
            if self._committer.commit_now([assigned]):
                self._cleared.extend((assigned, record) for record in records)
                self._marked = None
            else:
                self._marks_due_at_s = clock.monotonic_s() + MARK_BACKOFF_S

    def _has_room(self, assigned: AssignedPartition) -> bool:
        if len(assigned.tracker) < CERTAINLY_FITS:  # the usual case, without the lock
            return True
        with self._in_flight.lock:
            return assigned.has_room_in_metadata()

    def _has_next(self, assigned: AssignedPartition) -> bool:
        """Whether there is a record to run. Records that need no run, or may not run yet, are skipped."""
        lanes = assigned.lanes
        with self._in_flight.lock:
            if lanes.ready:
                return not assigned.revoked
            while assigned.buffer and not assigned.revoked:
                record = assigned.buffer[0]
                if not assigned.tracker.is_to_run(record.offset):
                    assigned.take_out()
                elif self._in_flight.adopt(assigned, record.offset, record.value):
                    assigned.adopt(record)
                elif finished := self._in_flight.recall(assigned, record.offset, record.value):
                    assigned.adopt(record)
                    self._parts.lane_writer.append_lane_update(finished)
                    self._parts.completer.settle(finished)
                elif record.key is None or lane_of(record.headers) is None:
                    return True
                elif lanes.leaving or not assigned.has_room_in_metadata():
                    return False
                else:
                    assigned.take_into_lane()
                    if lanes.ready:
                        return True
            return False

    def _let_leave(self, assigned: AssignedPartition) -> None:
        """Complete records that do not run here, once the lanes topic has those that wait."""
        leaving = assigned.lanes.leaving
        while leaving and self._capacity.free > 0:
            with self._in_flight.lock:
                record, entry = leaving.popleft()
                if entry is None:
                    assigned.complete_unrun(record.offset)
                    continue
                assigned.lane_entries[record.offset] = entry
            delivery = self._unrun(record, assigned)
            self._parts.lane_writer.move(delivery)
            if self._in_flight.hold(delivery):
                self._parts.completer.settle(delivery)

    def _pop(self, assigned: AssignedPartition) -> ConsumedRecord:
        """Take the next record and count it as delivered, in one step."""
        with self._in_flight.lock:
            if assigned.lanes.ready:
                return assigned.take_ready()
            record = assigned.take_out()
            assigned.tracker.deliver(record.offset, record.leader_epoch)
            return record

    def _deliver(self, assigned: AssignedPartition, record: ConsumedRecord) -> Delivery | None:
        """Create a delivery of a record, or a dead letter if this worker cannot run it."""
        try:
            message = read_message(
                record.value,
                queue_name=self._config.queue_name,
                actors=self._parts.hooks.actors,
                record=record,
            )
        except InvalidMessage as e:
            self._reject(assigned, record, e)
            return None
        delivery = make_delivery(message, record, assigned)
        if self._in_flight.dispatch(delivery, self):
            return delivery
        if not assigned.revoked:
            # The record waits: another consumer's suspect has started to run alone in the process.
            self._cleared.appendleft((assigned, record))
        return None

    def _reject(self, assigned: AssignedPartition, record: ConsumedRecord, error: Exception) -> None:
        """Dead-letter a record that never reaches a worker thread."""
        delivery = self._unrun(record, assigned)
        delivery.preparation = partial(self._parts.dead_letters.give_up, delivery, error)
        self._parts.lane_writer.append_lane_update(delivery)
        if self._in_flight.hold(delivery):  # otherwise the partition was revoked: its new owner does this
            logger.error("The record %s is dead-lettered: %s", delivery.origin, error)
            self._parts.completer.settle(delivery)

    def _unrun(self, record: ConsumedRecord, assigned: AssignedPartition) -> Delivery:
        """Create a delivery of a record that is not decoded and that no worker thread gets."""
        message: Message[Any] = Message(
            self._config.queue_name, actor_name="", args=(), kwargs={}, options={}
        )
        delivery = make_delivery(message, record, assigned)
        delivery.unrun = True
        return delivery
