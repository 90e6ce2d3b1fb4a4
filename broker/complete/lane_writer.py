"""Writes the outcome of a keyed message to the lanes topic, once Kafka has all its other records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dramatiq.actor import Actor
from dramatiq.message import Message

from ..delays.record_format import check_delay_ms
from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..errors import RECORD_ERRORS
from ..kafka.topics import Topics
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.lane import LaneEntry
from ..partition_keys.options import ORDER, ORDERED, with_key_headers
from ..partition_keys.record_format import (
    Headers,
    Place,
    Waiting,
    tombstone,
    waiting_record,
    without_own,
)
from ..process import clock
from ..produce.publisher import Publisher
from ..produce.record import Record
from .unique_marks import UniqueMarks


class LaneWriter:
    """Writes the lane update of a keyed delivery. It is the last record of a delivery.

    If a retry were in the lanes topic before the rest of the outbox, a crash in between would lose the rest:
    the next owner treats a message that waits in the lanes topic as settled.

    Parameters:
      give_up: Called with a delivery and the error when Kafka can never take its retry (too large, for
        example). It puts a dead letter into the outbox.
    """

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        in_flight: InFlightDeliveries,
        acknowledged_ends: AcknowledgedEnds,
        *,
        group: str,
        give_up: Callable[[Delivery, BaseException], None],
        unique_marks: UniqueMarks,
    ) -> None:
        self._unique_marks = unique_marks
        self._publisher = publisher
        self._acknowledged_ends = acknowledged_ends
        self._topics = topics
        self._in_flight = in_flight
        self._group = group
        self._give_up = give_up

    def wait_in_lane(
        self,
        delivery: Delivery,
        message: Message[Any],
        delay_ms: float | None,
        actors: Mapping[str, Actor[Any, Any]],
    ) -> bool:
        """Let ``message`` wait in its lane if it is the ordered retry of ``delivery``.

        Returns:
          False for any other message; the caller puts it into the outbox. The lane update contains the retry.

        Raises:
          TypeError, ValueError: When the delay is invalid.
        """
        if delivery.lane_entry is None or message.message_id != delivery.message_id:
            return False
        actor = actors.get(message.actor_name)
        # A unique message keeps its key until it is done: nothing could pass its retry.
        unique = delivery.lane_entry.unique
        waits = unique is not None and not unique.until_started
        waits = waits or (actor is not None and actor.options.get(ORDER) == ORDERED)
        if actor is None or not waits or message.queue_name != delivery.queue_name:
            return False
        due_ms = clock.wall_ms() + check_delay_ms(delay_ms or 0)
        _, headers = with_key_headers(message, delivery.headers, is_retry=True)
        delivery.wait = self._waiting(delivery, message.encode(), due_ms, headers)
        return True

    def move(self, delivery: Delivery) -> None:
        """Move a record that did not run to the lanes topic, where it waits for the earlier ones of its key.
        Many records move in one publish.
        """
        delivery.is_move = True
        delivery.wait = self._waiting(delivery, delivery.raw, 0, delivery.headers)
        delivery.outbox.append(self._record(delivery, delivery.wait))
        delivery.follow_ups.append(partial(self._forget_flushed, delivery))

    def _forget_flushed(self, delivery: Delivery) -> None:
        """Write the tombstone of a record that a flush completed while it moved."""
        if delivery.flushed:
            self._publish(self._tombstone(delivery))

    def append_lane_update(self, delivery: Delivery) -> None:
        """Append the lane update to a delivery, after everything else that follows from it."""
        entry = delivery.lane_entry
        if entry is None:
            return
        if entry.holds:
            delivery.follow_ups.append(partial(self._unique_marks.free_at_end, delivery))
        if delivery.wait is not None and delivery.mark is not None:
            delivery.follow_ups.append(partial(self._unique_marks.write_before_wait, delivery))
        if delivery.wait is not None or entry.kept:
            delivery.follow_ups.append(partial(self._write_update, delivery))

    def _write_update(self, delivery: Delivery) -> None:
        assert delivery.lane_entry is not None
        if not self._in_flight.answers_for(delivery):
            return  # the partition's next owner runs the message, and writes its update
        if delivery.wait is not None:
            record = self._record(delivery, delivery.wait)
        elif delivery.lane_entry.kept:
            record = self._tombstone(delivery)
        else:
            return
        try:
            self._publish(record)
        except RECORD_ERRORS as e:
            if delivery.wait is not None:
                self._give_up(delivery, e)
                delivery.wait = None
                if delivery.lane_entry.holds:
                    delivery.follow_ups.append(partial(self._unique_marks.free_at_end, delivery))
                delivery.follow_ups.append(delivery.follow_ups.pop(0))  # the lane update stays the last
            raise

    def _record(self, delivery: Delivery, wait: Waiting) -> Record:
        assert delivery.lane_entry is not None
        topic = self._topics.lanes(delivery.queue_name)
        return waiting_record(
            topic,
            wait,
            destination=self._topics.queue(delivery.queue_name),
            partition=delivery.lane_entry.kept_in,
            watch=partial(self.note, topic, delivery.lane_entry),
        )

    def _tombstone(self, delivery: Delivery) -> Record:
        assert delivery.lane_entry is not None
        topic, entry = self._topics.lanes(delivery.queue_name), delivery.lane_entry
        place = self._place_of(delivery)
        return tombstone(topic, place, partition=entry.kept_in, watch=partial(self.note, topic, entry))

    def note(
        self,
        topic: str,
        entry: LaneEntry[Any],
        partition: int,
        offset: int | None,
        leader_epoch: int = -1,
    ) -> None:
        """Note the partition, the offset and the leader epoch of a lane entry's record."""
        # An unacknowledged record may exist all the same: the next one must follow it in the same partition.
        entry.kept_in = partition
        if offset is not None:
            self._acknowledged_ends.note(topic, partition, offset, leader_epoch)

    def _publish(self, record: Record) -> None:
        failure = self._publisher.publish([record]).get(0)
        if failure is not None:
            raise failure

    def _waiting(self, delivery: Delivery, value: bytes, due_ms: int, headers: Headers) -> Waiting:
        assert delivery.lane_entry is not None
        key = delivery.lane_entry.key
        return Waiting(self._place_of(delivery), key, due_ms, value, without_own(headers))

    def _place_of(self, delivery: Delivery) -> Place:
        assert delivery.lane_entry is not None
        return Place(self._group, delivery.origin.partition, delivery.lane_entry.sequence)
