"""Chooses the next record for a queue's workers, and creates a delivery of it."""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from ..complete.completer import PendingDeadLetter
from ..deliveries.assigned_partition import CERTAINLY_FITS, MOVE_TOGETHER, AssignedPartition, Capacity
from ..deliveries.delivery import Delivery, make_delivery
from ..errors import InvalidMessage
from ..kafka.types import ConsumedRecord, TopicPartition
from ..partition_keys.record_format import lane_of
from .config import ConsumerConfig, ConsumerParts
from .decoding import read_message
from .probation import CommitNow, Probation

logger = logging.getLogger(__name__)

#: The maximum number of records of a partition that are dispatched after its last acknowledged commit. It
#: limits the records that a crash repeats, and the distance from the last commit to the cause of the crash.
MAX_UNCOMMITTED = 10_000


class Dispatcher:
    """Serves the partitions of one consumer in turn, so that none with a long backlog starves the others.

    The consumer's thread calls all methods. ``assigned_partitions`` also changes on kafka-python's I/O
    thread, but only during a Kafka call of the consumer's thread.

    Parameters:
      commit_now: Commits the running marks of records on probation.
    """

    def __init__(
        self, config: ConsumerConfig, parts: ConsumerParts, capacity: Capacity, *, commit_now: CommitNow
    ) -> None:
        self.assigned_partitions: dict[TopicPartition, AssignedPartition] = {}
        self._config = config
        self._parts = parts
        self._capacity = capacity
        self._in_flight = parts.in_flight
        self._rotation: deque[AssignedPartition] = deque()
        self._probation = Probation(
            self,
            parts.in_flight,
            capacity,
            commit_now=commit_now,
            max_crashes=config.max_crashes,
        )

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
        probation = self._probation
        if self._parts.is_paused() or not self._in_flight.gate.admits(self._config.queue_name):
            self._hold_back()
            return None
        if self._capacity.free <= 0 or self._in_flight.excludes(probation):
            return None
        if self._parts.shutdown.stopping:
            # An idle thread would still take a delivery (one that an interrupted task handed back, for
            # example), and the shutdown would wait for it.
            return None
        if probation.marked is not None or probation.cleared:
            probation.commit_marks()
            delivery = self._next_cleared()
            if delivery is not None or probation.marked is not None or probation.cleared:
                return delivery
        if self._in_flight.isolates(probation):
            probation.decide_on_suspect()
            return self._next_cleared()
        for _ in range(len(self._rotation)):
            assigned = self._rotation[0]
            self._rotation.rotate(-1)
            delivery = self._next_of(assigned)
            if delivery is not None or probation.marked is not None:
                return delivery  # None: the marks must be committed before any other dispatch
        return None

    def _hold_back(self) -> None:
        """Let nothing wait for a dispatch that is paused: neither a running mark, which a crash would count,
        nor the other queues of an isolated process.
        """
        probation = self._probation
        if probation.marked is not None or probation.cleared:
            probation.put_back()
        # The suspect has returned, or has ended, and Kafka has acknowledged that it does not run.
        if self._in_flight.isolates(probation) and self._in_flight.isolate(probation):
            self._in_flight.end_isolation(probation)

    def drop_below(self, assigned: AssignedPartition, offset: int) -> int:
        """Drop the records that a flush deleted and no thread has started; return their number."""
        with self._in_flight.lock:
            dropped = self._in_flight.drop_below(assigned, offset)
            taken = self._probation.drop_below(assigned, offset)
            for record in taken:
                assigned.complete_unrun(record.offset)
                if (entry := assigned.lane_entries.pop(record.offset, None)) is not None:
                    assigned.lanes.finish(entry)
        return dropped + len(taken)

    def close(self) -> None:
        """End the isolation of the process, if a suspect runs alone in it."""
        self._probation.close()

    # The records that may run next

    def has_next(self, assigned: AssignedPartition) -> bool:
        """Whether there is a record to run. Records that need no run, or may not run yet, are skipped."""
        lanes = assigned.lanes
        with self._in_flight.lock:
            if assigned.has_ready:
                return not assigned.revoked
            while assigned.buffer and not assigned.revoked:
                record = assigned.buffer[0]
                if not assigned.tracker.is_to_run(record.offset):
                    assigned.take_out()
                elif assigned.lanes_are_closed and _is_keyed(record):
                    if not assigned.has_room_in_metadata():
                        return False
                    assigned.hold()
                elif self._is_running_or_done(assigned, record):
                    continue
                elif not _is_keyed(record):
                    return True
                elif len(lanes.leaving) >= MOVE_TOGETHER or not assigned.has_room_in_metadata():
                    return False
                else:
                    assigned.take_into_lane()
                    if lanes.ready:
                        return True
            return False

    def _is_running_or_done(self, assigned: AssignedPartition, record: ConsumedRecord) -> bool:
        """Whether a delivery of an earlier assignment runs the next record, or has run it; it is adopted."""
        if self._in_flight.adopt(assigned, record.offset, record.value):
            assigned.adopt(record)
        elif finished := self._in_flight.recall(assigned, record.offset, record.value):
            assigned.adopt(record)
            self._parts.lane_writer.append_lane_update(finished)
            self._parts.completer.settle(finished)
        else:
            return False
        return True

    def has_room(self, assigned: AssignedPartition) -> bool:
        """Whether one more incomplete offset fits into the commit metadata."""
        if len(assigned.tracker) < CERTAINLY_FITS:  # the usual case, without the lock
            return True
        with self._in_flight.lock:
            return assigned.has_room_in_metadata()

    def pop(self, assigned: AssignedPartition) -> ConsumedRecord:
        """Take the next record and count it as delivered, in one step."""
        with self._in_flight.lock:
            if assigned.has_ready:
                return assigned.take_ready()
            record = assigned.take_out()
            assigned.tracker.deliver(record.offset, record.leader_epoch)
            return record

    def reject(self, assigned: AssignedPartition, record: ConsumedRecord, error: Exception) -> None:
        """Dead-letter a record that never reaches a worker thread."""
        delivery = self._unrun(record, assigned)
        delivery.preparation = partial(self._parts.dead_letters.give_up, delivery, error)
        self._parts.lane_writer.append_lane_update(delivery)
        if self._in_flight.add_unrun(delivery):  # False: the partition was revoked; its new owner does this
            logger.error("The record %s is dead-lettered: %s", delivery.origin, error)
            self._parts.completer.settle(delivery)

    # Deliveries

    def _next_of(self, assigned: AssignedPartition) -> Delivery | None:
        while not assigned.leaving and not self._in_flight.excludes(self._probation):
            record = self._in_flight.take_plain(assigned, MAX_UNCOMMITTED)
            if record is None:
                return self._next_unusual(assigned)
            if (delivery := self._deliver(assigned, record)) is not None:
                return delivery
        return None

    def _next_unusual(self, assigned: AssignedPartition) -> Delivery | None:
        """The same where the next record has a key, or waits for more than the ones before it."""
        lanes = assigned.lanes
        while not assigned.leaving and not self._in_flight.excludes(self._probation):
            if lanes.leaving:
                self._let_leave(assigned)
            has_next = self.has_next(assigned)
            if assigned.duplicates:
                self._report_duplicates(assigned)
            if not has_next:
                if lanes.leaving and self._capacity.may_move:
                    continue
                return None
            if not assigned.has_ready and (  # the others are counted already
                assigned.uncommitted >= MAX_UNCOMMITTED or not self.has_room(assigned)
            ):
                return None
            if assigned.on_probation():
                self._probation.take_next(assigned)
                return self._next_cleared()
            delivery = self._deliver(assigned, self.pop(assigned))
            if delivery is not None:
                return delivery
        return None

    def _report_duplicates(self, assigned: AssignedPartition) -> None:
        """Tell the history, and the middleware on the completer's thread, of duplicates that do not run."""
        with self._in_flight.lock:
            records, assigned.duplicates = assigned.duplicates, []
        for record in records:
            try:
                message = self._read(record)
            except InvalidMessage as e:
                logger.error("The record %s-%d at %d was a duplicate, and is no message: %s",
                    record.topic, record.partition, record.offset, e,
                )  # fmt: skip
                continue
            self._parts.note_duplicate(message)
            skipped = PendingDeadLetter(self._config.queue_name, [])
            skipped.follow_ups.append(
                partial(self._parts.hooks.emit_after, "skip_message", MessageProxy(message))
            )
            self._parts.completer.write(skipped)

    def _next_cleared(self) -> Delivery | None:
        """A delivery of the next record on probation whose mark is committed."""
        cleared = self._probation.cleared
        while cleared and not self._in_flight.excludes(self._probation):
            delivery = self._deliver(*cleared.popleft())
            if delivery is not None:
                return delivery
        return None

    def _let_leave(self, assigned: AssignedPartition) -> None:
        """Complete records that do not run here, once the lanes topic has those that wait."""
        with self._in_flight.lock:
            leaving = assigned.lanes.leaving
            moves: list[Delivery] = []
            while leaving and self._capacity.may_move:
                record, entry = leaving.popleft()
                if entry is None:
                    assigned.complete_unrun(record.offset)
                    continue
                assigned.lane_entries[record.offset] = entry
                delivery = self._unrun(record, assigned)
                self._parts.lane_writer.move(delivery)
                if self._in_flight.add_unrun(delivery):
                    moves.append(delivery)
        if moves:
            self._parts.completer.move(moves)

    def _deliver(self, assigned: AssignedPartition, record: ConsumedRecord) -> Delivery | None:
        """Create a delivery of a record, or a dead letter if this worker cannot run it."""
        try:
            message = self._read(record)
        except InvalidMessage as e:
            self.reject(assigned, record, e)
            return None
        delivery = make_delivery(message, record, assigned)
        if self._in_flight.dispatch(delivery, self._probation):
            if record.offset < assigned.restored_end:
                self._parts.consumption.of(self._config.queue_name).redelivered += 1
            return delivery
        if not assigned.revoked:
            # The record waits: another consumer's suspect has started to run alone in the process.
            self._probation.cleared.appendleft((assigned, record))
        return None

    def _read(self, record: ConsumedRecord) -> Message[Any]:
        return read_message(
            record.value,
            queue_name=self._config.queue_name,
            actors=self._parts.hooks.actors,
            record=record,
        )

    def _unrun(self, record: ConsumedRecord, assigned: AssignedPartition) -> Delivery:
        """Create a delivery of a record that is not decoded and that no worker thread gets."""
        message: Message[Any] = Message(
            self._config.queue_name,
            actor_name="",
            args=(),
            kwargs={},
            options={},
            # A random one costs more than the rest of the delivery.
            message_id=f"{record.partition}:{record.offset}:{record.timestamp}",
        )
        delivery = make_delivery(message, record, assigned)
        delivery.unrun = True
        return delivery


def _is_keyed(record: ConsumedRecord) -> bool:
    return record.key is not None and lane_of(record.headers) is not None
