"""Waiting messages that their queue refuses when they are requeued."""

from __future__ import annotations

from typing import Any

from ..deliveries.assigned_partition import AssignedPartition
from ..deliveries.delivery import Origin
from ..partition_keys.lane import LaneEntry
from ..partition_keys.record_format import Place, Waiting, tombstone
from .config import ConsumerConfig, ConsumerParts


class UnreturnableEntries:
    """Dead-letters waiting messages that their queue's topic refuses for their size.

    Such a message would otherwise block its lane for good.
    """

    def __init__(self, config: ConsumerConfig, parts: ConsumerParts) -> None:
        self._config = config
        self._parts = parts
        self._places: set[Place] = set()

    def __contains__(self, place: Place) -> bool:
        """Whether the message of that place is being dead-lettered."""
        return place in self._places

    def add_dead_letter(
        self, assigned: AssignedPartition, entry: LaneEntry[Any], waiting: Waiting, error: BaseException
    ) -> None:
        """Start to dead-letter a message. Its lane continues once Kafka has the dead letter."""
        place = waiting.place
        self._places.add(place)

        def end() -> None:
            if not assigned.revoked:  # otherwise the partition's next owner does this
                self._publish_tombstone(waiting)
                with self._parts.in_flight.lock:
                    assigned.lanes.forget(entry.key, entry.sequence)
            self._places.discard(place)

        pending = self._parts.dead_letters.undelivered(
            self._config.queue_name,
            message_id=str(place),
            origin=Origin(assigned.partition.topic, place.partition, place.sequence.offset),
            raw=waiting.value,
            headers=waiting.headers,
            error=error,
            then=end,
        )
        self._parts.completer.write(pending)

    def _publish_tombstone(self, waiting: Waiting) -> None:
        record = tombstone(self._config.lanes_topic, waiting.place, partition=waiting.kept_in)
        failure = self._parts.completion_publisher.publish([record]).get(0)
        if failure is not None:
            raise failure
