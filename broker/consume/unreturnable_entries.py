"""Messages that wait in their lanes and that their queue does not take back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dead_letters.undelivered import dead_letter_undelivered
from ..deliveries.delivery import Origin
from ..partition_keys.lanes import LaneEntry
from ..partition_keys.record_format import Place, Waiting, tombstone

if TYPE_CHECKING:
    from ..broker import KafkaBroker
    from ..deliveries.assigned_partition import AssignedPartition


class UnreturnableEntries:
    """Dead-letters what waits in the lanes of a queue whose topic has come to refuse it for its size.

    It would otherwise block its lane for good.
    """

    def __init__(self, broker: KafkaBroker, queue_name: str) -> None:
        self._broker = broker
        self._queue_name = queue_name
        self._places: set[Place] = set()

    def __contains__(self, place: Place) -> bool:
        """Whether what waits there is on its way to the dead letters."""
        return place in self._places

    def add_dead_letter(
        self, assigned: AssignedPartition, entry: LaneEntry[Any], waiting: Waiting, error: BaseException
    ) -> None:
        """Begin to keep a message in the dead letters. Its lane goes on without it once they have it."""
        place = waiting.place
        self._places.add(place)

        def end() -> None:
            if not assigned.revoked:  # else it is its partition's next owner's
                self._publish_tombstone(waiting)
                with self._broker.in_flight.lock:
                    assigned.lanes.forget(entry.key, entry.sequence)
            self._places.discard(place)

        dead_letter_undelivered(
            self._broker,
            self._queue_name,
            message_id=str(place),
            origin=Origin(assigned.partition.topic, place.partition, place.sequence.offset),
            raw=waiting.value,
            headers=waiting.headers,
            error=error,
            then=end,
        )

    def _publish_tombstone(self, waiting: Waiting) -> None:
        topic = self._broker.topics.lanes(self._queue_name)
        record = tombstone(topic, waiting.place, partition=waiting.kept_in)
        failure = self._broker.lane_writer.publisher.publish([record]).get(0)
        if failure is not None:
            raise failure
