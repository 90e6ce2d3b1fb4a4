"""Writes the paces of keys with a rate to the lanes topic, before their runs begin."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial

from ..deliveries.assigned_partition import AssignedPartition
from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.topics import Topics
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.limits import EARLY_MS, Pace
from ..partition_keys.record_format import pace_record, pace_tombstone
from ..process import clock
from ..process.forks import reset_on_fork
from ..produce.publisher import Publisher, publish_all


class KeyPaces:
    """Notes the beginnings of runs of keys with a rate. See ``UniqueMarks`` for the parameters."""

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        in_flight: InFlightDeliveries,
        acknowledged_ends: AcknowledgedEnds,
        *,
        group: str,
    ) -> None:
        self._topics = topics
        self._publisher = publisher
        self._in_flight = in_flight
        self._acknowledged_ends = acknowledged_ends
        self._group = group
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: another thread of the parent may have held it."""
        self._writing = threading.Lock()

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
        topic = self._topics.lanes(delivery.queue_name)
        with self._writing:
            record = pace_record(
                topic,
                self._group,
                delivery.origin.partition,
                delivery.lane_entry.key,
                pace,
                watch=partial(self._note, topic, pace),
            )
            publish_all(self._publisher, [record], f"The rate of the key of {delivery} could not be noted")

    def drop(self, lanes_topic: str, assigned: AssignedPartition, passed: Mapping[bytes, Pace]) -> None:
        """Forget paces whose time has come.

        Raises:
          BrokerConnectionError: When Kafka does not acknowledge their tombstones. They stay then.
        """
        number = assigned.partition.partition
        with self._writing:
            with self._in_flight.lock:
                now_ms, present = clock.wall_ms(), assigned.lanes.paces
                dropped = {
                    key: pace
                    for key, pace in passed.items()
                    if present.get(key) is pace and pace.next_ms <= now_ms
                }
            publish_all(
                self._publisher,
                [
                    pace_tombstone(
                        lanes_topic,
                        self._group,
                        number,
                        key,
                        pace,
                        watch=partial(self._note, lanes_topic, pace),
                    )
                    for key, pace in dropped.items()
                    if pace.kept_in is not None
                ],
                f"The paces of {assigned.partition} could not be dropped",
            )
            with self._in_flight.lock:
                for key, pace in dropped.items():
                    if pace.next_ms <= now_ms and present.get(key) is pace:
                        del present[key]

    def _note(
        self, topic: str, pace: Pace, partition: int, offset: int | None, leader_epoch: int = -1
    ) -> None:
        pace.kept_in = partition
        if offset is not None:
            self._acknowledged_ends.note(topic, partition, offset, leader_epoch)
