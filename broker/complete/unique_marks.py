"""Frees the keys of unique messages: when a run begins, and when a message is done."""

from __future__ import annotations

from collections.abc import Mapping

from ..deliveries.assigned_partition import AssignedPartition
from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.topics import Topics
from ..partition_keys.unique import Mark
from ..process import clock
from .key_state_writer import KeyStateWriter
from .queue_end import QueueEnd


class UniqueMarks:
    """Determines the end of the log at which a unique message frees its key, and writes it to the lanes
    topic. That precedes the run, or the completion.

    The write is left out while no crash can need it: every record below the end was read, so its duplicates
    are complete, and one commit says that of them and of the message. A message that waits in the lanes topic
    is complete there before the commit.

    Parameters:
      writer: Writes the marks, and nothing else.
    """

    def __init__(
        self, topics: Topics, writer: KeyStateWriter, in_flight: InFlightDeliveries, queue_end: QueueEnd
    ) -> None:
        self._topics = topics
        self._writer = writer
        self._in_flight = in_flight
        self._queue_end = queue_end

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
        with self._writer.lock:
            with self._in_flight.lock:
                present = assigned.lanes.marks
                dropped = {key: mark for key, mark in passed.items() if present.get(key) is mark}
            failure = f"The unique marks of {assigned.partition} could not be dropped"
            self._writer.drop(lanes_topic, assigned.partition, dropped, failure)
            with self._in_flight.lock:
                for key in dropped:
                    del assigned.lanes.marks[key]

    def _write(self, delivery: Delivery, mark: Mark) -> None:
        """Write a mark, and note it."""
        entry, assigned = delivery.lane_entry, delivery.assigned_partition
        assert entry is not None
        topic, number = self._topics.lanes(delivery.queue_name), delivery.origin.partition
        with self._writer.lock:
            failure = f"The unique key of {delivery} could not be freed"
            self._writer.write(topic, number, entry.key, mark, failure)
            with self._in_flight.lock:
                if not assigned.revoked:
                    assigned.lanes.free_key(entry, mark)
