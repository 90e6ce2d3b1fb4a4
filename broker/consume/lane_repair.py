"""Repairs a queue's lanes topic after it has lost its tail, for the partitions of one consumer.

The topic has then lost entries of waiting messages, and tombstones: completed messages wait in it again.
Three sources show the differences:

    source                     knows                               method
    the store (WaitingStore)   the records that it had read        LaneRepair.repair_read
    the lanes in memory        the first offsets of the waiting    LaneRepair.repair_owned
                               entries, and which ones are done
    the last owner's commit    the first offsets of the waiting    LaneRepair.repair_committed
                               entries that had room in it

A lost record is written again as the store had it, otherwise from the message's first record in its queue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

from ..kafka.errors import KafkaTimeoutError
from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.commit_metadata import CommitState
from ..partition_keys.lane import LaneEntry, SequenceNumber
from ..partition_keys.lane_differences import lane_differences
from ..partition_keys.lanes import Lanes
from ..partition_keys.record_format import (
    Place,
    Waiting,
    lane_of,
    read_requeue_headers,
    tombstone,
    waiting_record,
    without_own,
)
from ..partition_keys.waiting_store import WaitingStore
from ..produce.publisher import publish_all
from ..produce.record import Record, Watch
from .config import ConsumerConfig, ConsumerParts
from .first_records import read_at

logger = logging.getLogger(__name__)

#: The number of records in one publish.
RECORDS_PER_PUBLISH = 200

#: An entry of ``WaitingStore.waiting``.
WaitingEntry = tuple[bytes, SequenceNumber, int, int]


@dataclass(frozen=True, slots=True)
class Damage:
    """The messages that a truncated lanes topic shows in a wrong state.

    Attributes:
      lost: Waiting messages whose records the topic has lost and the store has.
      lost_offsets: The first offsets, ascending, of other waiting messages that the topic has lost, by
        partition of the queue.
      done: The places of completed messages that wait in the topic, with their partitions of it.
      omitted: The number of waiting messages that may be lost, as their owner's commit had no room for them.
    """

    lost: Sequence[Waiting] = ()
    lost_offsets: Mapping[int, Sequence[int]] = field(default_factory=dict)
    done: Sequence[tuple[Place, int | None]] = ()
    omitted: int = 0


class LaneRepair:
    """Writes lost records and tombstones of a lanes topic again. The consumer's thread calls all methods.

    Parameters:
      lanes_at: The lanes of a place's partition; None when this consumer does not own the partition.

    Raises (every method): KafkaError and KafkaUnavailable when Kafka does not answer, or does not acknowledge
      the records. The repair can be repeated then.
    """

    def __init__(
        self,
        config: ConsumerConfig,
        parts: ConsumerParts,
        *,
        lanes_at: Callable[[Place], Lanes[ConsumedRecord] | None],
    ) -> None:
        self._parts = parts
        self._group = config.application_group
        self._queue_topic = config.topic
        self._lanes_topic = config.lanes_topic
        self._lanes_at = lanes_at

    def repair_read(self, lost: Sequence[Waiting]) -> None:
        """Write the waiting entries again that the store had read before the truncation.

        The store calls this.

        Parameters:
          lost: The entries that the topic has lost.
        """
        with self._parts.in_flight.lock:
            waiting = [each for each in lost if self._entry_of(each.place, each.key) is not None]
        damage = Damage(lost=waiting)
        self._report(damage, self._write(damage))

    def repair_owned(
        self,
        store: WaitingStore,
        kept: Mapping[int, Sequence[int]],
        *,
        known_from: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        """Repair the entries of owned partitions that the store had not read, and all lost tombstones.

        Parameters:
          kept: The first offsets of the messages that wait, by partition of the queue.
          known_from: The first offset from which on this process knows all waiting messages, by partition; 0
            by default. An entry below it that is not in memory may wait.
        """
        store.catch_up()  # all records of the waiting messages were acknowledged
        lost: dict[int, Sequence[int]] = {}
        done: list[tuple[Place, int | None]] = []
        for number, offsets in kept.items():
            waiting = store.waiting(number)
            present = {sequence.offset for _, sequence, _, _ in waiting}
            present |= {place.sequence.offset for place in store.seen_done if place.partition == number}
            if absent := [offset for offset in offsets if offset not in present]:
                lost[number] = absent
            done += self._done_of(number, waiting, known_from.get(number, 0))
        if lost or done:
            self._repair(store, Damage(lost_offsets=lost, done=done))

    def end_late(self, late: Mapping[Place, int]) -> None:
        """Write the tombstones of entries of done messages.

        Parameters:
          late: The places of the entries, each with its partition of the lanes topic.
        """
        self._publish([self._tombstone(place, kept_in) for place, kept_in in late.items()])
        logger.warning(
            "A worker that had lost its partitions wrote %d message(s) to the topic %r that are done. They "
            "do not run again. The first one is %s.",
            len(late), self._lanes_topic, next(iter(late)),
        )  # fmt: skip

    def repair_committed(self, store: WaitingStore, states: Mapping[TopicPartition, CommitState]) -> None:
        """Repair the entries that the last owners of partitions had written or ended.

        Parameters:
          states: The commits of these owners.
        """
        committed = {partition.partition: state for partition, state in states.items()}
        found = lane_differences(store, committed)
        if not found:
            return
        damage = Damage(
            lost_offsets={number: differences.lost for number, differences in found.items()},
            done=[
                (Place(self._group, number, sequence), kept_in)
                for number, differences in found.items()
                if (done := set(differences.done))
                for _, sequence, _, kept_in in store.waiting(number)
                if sequence.offset in done
            ],
            omitted=sum(lanes.omitted for n in found if (lanes := committed[n].lanes) is not None),
        )
        owned = ", ".join(f"{self._queue_topic}[{number}]" for number in sorted(found))
        self._repair(store, damage, since=f" since the last owners of {owned} wrote to it")

    def _repair(self, store: WaitingStore, damage: Damage, *, since: str = "") -> None:
        written = self._write(damage)
        if written and not store.is_there:
            raise KafkaTimeoutError(
                f"The topic {self._lanes_topic!r} was created and is not in the metadata yet"
            )
        self._report(damage, written, since=since)
        store.catch_up()

    def _write(self, damage: Damage) -> int:
        """Write the records and the tombstones; return the number of waiting messages that were written."""
        self._parts.completion_publisher.replace_producer()
        records = [self._waiting_record(waiting) for waiting in damage.lost]
        self._publish(records + [self._tombstone(place, kept_in) for place, kept_in in damage.done])
        written = len(records)
        for number, offsets in damage.lost_offsets.items():
            records = []
            for first_record in read_at(
                self._parts.clients, TopicPartition(self._queue_topic, number), offsets
            ):
                if (waiting := self._waiting_of(first_record)) is not None:
                    records.append(self._waiting_record(waiting))
                    written += 1
                if len(records) == RECORDS_PER_PUBLISH:
                    self._publish(records)
                    records = []
            self._publish(records)
        return written

    def _publish(self, records: Sequence[Record]) -> None:
        doing = f"The lost records of {self._lanes_topic!r} could not be written again"
        publish_all(self._parts.completion_publisher, records, doing)

    def _report(self, damage: Damage, written: int, *, since: str = "") -> None:
        missing = len(damage.lost) + sum(map(len, damage.lost_offsets.values())) - written
        if not (written or missing or damage.done or damage.omitted):
            return
        source = " from the queue's own records" if any(damage.lost_offsets.values()) else ""
        sentences = [
            f"The topic {self._lanes_topic!r} has lost its tail{since}: the records of {written} waiting "
            f"message(s) were written again{source}, and the tombstones of {len(damage.done)} completed "
            "one(s)."
        ]
        if missing:
            sentences.append(f"{missing} waiting message(s) are lost, as retention removed their records.")
        if damage.omitted:
            sentences.append(
                f"The commits had no room for the offsets of {damage.omitted} further waiting message(s): if "
                "the topic has lost them, they do not run; if they are done, they run again."
            )
        logger.error("%s", " ".join(sentences))

    def _waiting_of(self, first_record: ConsumedRecord) -> Waiting | None:
        """The waiting message of its first record; None when the offset has another record now."""
        key = lane_of(first_record.headers)
        if (
            key is None
            or first_record.value is None
            or read_requeue_headers(first_record.headers) is not None
        ):
            return None
        sequence = SequenceNumber(first_record.offset, first_record.timestamp)
        place = Place(self._group, first_record.partition, sequence)
        return Waiting(place, key, 0, first_record.value, without_own(first_record.headers))

    def _waiting_record(self, waiting: Waiting) -> Record:
        with self._parts.in_flight.lock:
            entry = self._entry_of(waiting.place, waiting.key)
        watch: Watch = self._note
        if entry is not None:
            watch = partial(self._parts.lane_writer.note, self._lanes_topic, entry)
        return waiting_record(self._lanes_topic, waiting, destination=self._queue_topic, watch=watch)

    def _tombstone(self, place: Place, kept_in: int | None) -> Record:
        return tombstone(self._lanes_topic, place, partition=kept_in, watch=self._note)

    def _note(self, partition: int, offset: int | None, leader_epoch: int = -1) -> None:
        if offset is not None:
            self._parts.acknowledged_ends.note(self._lanes_topic, partition, offset, leader_epoch)

    def _entry_of(self, place: Place, key: bytes) -> LaneEntry[ConsumedRecord] | None:
        """The lane entry of an incomplete message, if this consumer owns its partition."""
        lanes = self._lanes_at(place)
        return None if lanes is None else lanes.find(key, place.sequence)

    def _done_of(
        self, number: int, waiting: Iterable[WaitingEntry], known_from: float
    ) -> list[tuple[Place, int | None]]:
        """Those of the waiting entries of a partition whose messages are done, if this consumer owns it."""
        with self._parts.in_flight.lock:
            return [
                (place, kept_in)
                for key, sequence, _, kept_in in waiting
                if sequence.offset >= known_from
                and self._lanes_at(place := Place(self._group, number, sequence)) is not None
                and self._entry_of(place, key) is None
            ]
