"""Frees the keys of unique messages: when a run begins, and when a message is done."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

from ..deliveries.assigned_partition import AssignedPartition
from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.topics import Topics
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.record_format import mark_record, mark_tombstone
from ..partition_keys.unique import Mark
from ..process import clock
from ..process.forks import reset_on_fork
from ..produce.publisher import Publisher, publish_all
from .queue_end import QueueEnd


class UniqueMarks:
    """Determines the end of the log at which a unique message frees its key, and writes it to the lanes
    topic. That precedes the run, or the completion.

    The write is left out while no crash can need it: every record below the end was read, so its duplicates
    are complete, and one commit says that of them and of the message. A message that waits in the lanes topic
    is complete there before the commit.

    Parameters:
      group: The ``group_id`` of the workers.
    """

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        in_flight: InFlightDeliveries,
        acknowledged_ends: AcknowledgedEnds,
        queue_end: QueueEnd,
        *,
        group: str,
    ) -> None:
        self._topics = topics
        self._publisher = publisher
        self._in_flight = in_flight
        self._acknowledged_ends = acknowledged_ends
        self._queue_end = queue_end
        self._group = group
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: another thread of the parent may have held it."""
        self._writing = threading.Lock()

    def is_due_at_start(self, delivery: Delivery) -> bool:
        """Whether the message frees its key when its run begins."""
        entry = delivery.lane_entry
        return entry is not None and entry.holds and entry.unique is not None and entry.unique.until_started

    def free_at_start(self, delivery: Delivery) -> None:
        """Free the key of a message that is about to run.

        Raises:
          BrokerConnectionError: When Kafka does not answer. The message must not run then.
        """
        self._free(delivery)

    def free_at_end(self, delivery: Delivery) -> None:
        """Free the key of a delivery that is about to complete, unless its retry waits in the lane.

        Raises:
          BrokerConnectionError: When Kafka does not answer. The caller repeats the call.
        """
        entry = delivery.lane_entry
        if entry is None or not entry.holds or delivery.wait is not None:
            return
        if self._in_flight.answers_for(delivery):
            self._free(delivery)

    def write_before_wait(self, delivery: Delivery) -> None:
        """Write the mark of a message whose retry is about to wait in its lane, if it is not written.

        Raises:
          BrokerConnectionError: When Kafka does not answer. The caller repeats the call.
        """
        mark = delivery.mark
        if mark is None or mark.kept_in is not None:
            return
        if self._in_flight.answers_for(delivery):
            self._write(delivery, mark)

    def _free(self, delivery: Delivery) -> None:
        entry, assigned = delivery.lane_entry, delivery.assigned_partition
        assert entry is not None
        assert entry.unique is not None
        end = self._queue_end.read(assigned.partition)
        with self._in_flight.lock:
            if assigned.revoked:
                return
            span_ms = entry.unique.span_ms
            earlier = assigned.lanes.marks.get(entry.key)
            mark = Mark(
                since=entry.sequence if earlier is None else earlier.since,
                holder=entry.sequence,
                until_offset=end,
                until_ms=clock.wall_ms() + span_ms if span_ms else 0,
                topic_id=assigned.topic_text,
            )
            is_needed = bool(span_ms) or end > assigned.first_unread or entry.kept
        if is_needed:
            mark.kept_in = None if earlier is None else earlier.kept_in
            self._write(delivery, mark)
        with self._in_flight.lock:
            delivery.mark = mark
            if not is_needed:
                entry.holds = False

    def drop(self, lanes_topic: str, assigned: AssignedPartition, passed: Mapping[bytes, Mark]) -> None:
        """Forget marks of which no record below can be read any more.

        Raises:
          BrokerConnectionError: When Kafka does not acknowledge their tombstones. They stay then.
        """
        number = assigned.partition.partition
        # The same key is not freed in between: its mark would get this tombstone.
        with self._writing:
            with self._in_flight.lock:
                present = assigned.lanes.marks
                dropped = {key: mark for key, mark in passed.items() if present.get(key) is mark}
            publish_all(
                self._publisher,
                [
                    mark_tombstone(
                        lanes_topic,
                        self._group,
                        number,
                        key,
                        mark,
                        watch=partial(self._note, lanes_topic, mark),
                    )
                    for key, mark in dropped.items()
                    if mark.kept_in is not None
                ],
                f"The unique marks of {assigned.partition} could not be dropped",
            )
            with self._in_flight.lock:
                for key in dropped:
                    del assigned.lanes.marks[key]

    def _write(self, delivery: Delivery, mark: Mark) -> None:
        """Write a mark, and note it."""
        entry, assigned = delivery.lane_entry, delivery.assigned_partition
        assert entry is not None
        topic = self._topics.lanes(delivery.queue_name)
        with self._writing:
            record = mark_record(
                topic,
                self._group,
                delivery.origin.partition,
                entry.key,
                mark,
                watch=partial(self._note, topic, mark),
            )
            publish_all(self._publisher, [record], f"The unique key of {delivery} could not be freed")
            with self._in_flight.lock:
                if not assigned.revoked:
                    assigned.lanes.free_key(entry, mark)

    def _note(
        self, topic: str, mark: Mark, partition: int, offset: int | None, leader_epoch: int = -1
    ) -> None:
        mark.kept_in = partition
        if offset is not None:
            self._acknowledged_ends.note(topic, partition, offset, leader_epoch)
