"""Releases the keys of unique messages: when a run begins, and when a message is done."""

from __future__ import annotations

from functools import partial

from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.topics import Topics
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.record_format import mark_record
from ..partition_keys.unique import Mark
from ..process import clock
from ..produce.publisher import Publisher
from .queue_end import QueueEnd


class UniqueMarks:
    """Determines the end of the log at which a unique message releases its key, and writes it to the lanes
    topic, unless every record below it was read. That precedes the run, or the completion.

    A crash after the write repeats the run and not the release: the mark names its message.

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

    def is_due_at_start(self, delivery: Delivery) -> bool:
        """Whether the message releases its key when its run begins."""
        entry = delivery.lane_entry
        return entry is not None and entry.holds and entry.unique is not None and entry.unique.until_started

    def release_at_start(self, delivery: Delivery) -> None:
        """Release the key of a message that is about to run.

        Raises:
          BrokerConnectionError: When Kafka does not answer. The message must not run then.
        """
        self._release(delivery)

    def release_at_end(self, delivery: Delivery) -> None:
        """Release the key of a delivery that is about to complete, unless its retry waits in the lane.

        Raises:
          BrokerConnectionError: When Kafka does not answer. The caller repeats the call.
        """
        entry = delivery.lane_entry
        if entry is None or not entry.holds or delivery.wait is not None:
            return
        if self._in_flight.answers_for(delivery):
            self._release(delivery)

    def _release(self, delivery: Delivery) -> None:
        entry, assigned = delivery.lane_entry, delivery.assigned_partition
        assert entry is not None
        assert entry.unique is not None
        end = self._queue_end.read(assigned.partition)
        with self._in_flight.lock:
            if assigned.revoked:
                return
            span_ms = entry.unique.span_ms
            mark: Mark | None = None
            if span_ms or end > assigned.first_unread:
                earlier = assigned.lanes.marks.get(entry.key)
                mark = Mark(
                    since=entry.sequence if earlier is None else earlier.since,
                    holder=entry.sequence,
                    until_offset=end,
                    until_ms=clock.wall_ms() + span_ms if span_ms else 0,
                    topic_id=assigned.topic_text,
                    kept_in=None if earlier is None else earlier.kept_in,
                )
        if mark is not None:
            self._write(delivery, mark)
        with self._in_flight.lock:
            delivery.mark = mark or Mark(entry.sequence, entry.sequence, end)
            if not assigned.revoked:
                assigned.lanes.release_key(entry, mark)

    def _write(self, delivery: Delivery, mark: Mark) -> None:
        assert delivery.lane_entry is not None
        topic = self._topics.lanes(delivery.queue_name)
        record = mark_record(
            topic,
            self._group,
            delivery.origin.partition,
            delivery.lane_entry.key,
            mark,
            watch=partial(self._note, topic, mark),
        )
        failure = self._publisher.publish([record]).get(0)
        if failure is not None:
            raise failure

    def _note(
        self, topic: str, mark: Mark, partition: int, offset: int | None, leader_epoch: int = -1
    ) -> None:
        mark.kept_in = partition
        if offset is not None:
            self._acknowledged_ends.note(topic, partition, offset, leader_epoch)
