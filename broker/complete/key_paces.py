"""Writes the paces of keys with a rate to the lanes topic, before their runs begin."""

from __future__ import annotations

from collections.abc import Mapping

from ..deliveries.assigned_partition import AssignedPartition
from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.topics import Topics
from ..partition_keys.limits import EARLY_MS, Pace
from ..process import clock
from .key_state_writer import KeyStateWriter


class KeyPaces:
    """Notes the beginnings of runs of keys with a rate.

    Parameters:
      writer: Writes the paces, and nothing else.
    """

    def __init__(self, topics: Topics, writer: KeyStateWriter, in_flight: InFlightDeliveries) -> None:
        self._topics = topics
        self._writer = writer
        self._in_flight = in_flight

    def has_pace(self, delivery: Delivery) -> bool:
        """Whether a rate limits the message."""
        return delivery.lane_entry is not None and delivery.lane_entry.limit.interval_ms > 0

    def begin(self, delivery: Delivery) -> None:
        """Note that the run of a message is about to begin. One that would begin too soon after another is
        parked again.

        Raises:
          BrokerConnectionError: When Kafka does not answer. The message must not run then.
        """
        entry, assigned = delivery.lane_entry, delivery.assigned_partition
        assert entry is not None
        with self._in_flight.lock:
            now_ms = clock.wall_ms()
            if not assigned.lanes.may_begin(entry, now_ms):
                self._in_flight.park_again(delivery)
                return
            pace = assigned.lanes.note_begin(entry, now_ms)
        while entry.limit.is_written:
            self._write(delivery, pace)
            with self._in_flight.lock:
                began_ms, now_ms = now_ms, clock.wall_ms()
                if now_ms - began_ms <= EARLY_MS:
                    return
                assigned.lanes.note_begin(entry, now_ms)  # the first write creates the topic, for example

    def _write(self, delivery: Delivery, pace: Pace) -> None:
        assert delivery.lane_entry is not None
        topic, number = self._topics.lanes(delivery.queue_name), delivery.origin.partition
        failure = f"The rate of the key of {delivery} could not be noted"
        with self._writer.lock:
            self._writer.write(topic, number, delivery.lane_entry.key, pace, failure)

    def drop(self, lanes_topic: str, assigned: AssignedPartition, passed: Mapping[bytes, Pace]) -> None:
        """Forget paces whose time has come.

        Raises:
          BrokerConnectionError: When Kafka does not acknowledge their tombstones. They stay then.
        """
        with self._writer.lock:
            with self._in_flight.lock:
                now_ms, present = clock.wall_ms(), assigned.lanes.paces
                dropped = {
                    key: pace
                    for key, pace in passed.items()
                    if present.get(key) is pace and pace.next_ms <= now_ms
                }
            failure = f"The paces of {assigned.partition} could not be dropped"
            self._writer.drop(lanes_topic, assigned.partition, dropped, failure)
            with self._in_flight.lock:
                for key, pace in dropped.items():
                    if pace.next_ms <= now_ms and present.get(key) is pace:
                        del present[key]
