"""The lanes of one consumer's partitions, kept in agreement with the lanes topic."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from ..deliveries.assigned_partition import AssignedPartition
from ..errors import NotAuthorized
from ..kafka.errors import KafkaError, TopicAuthorizationFailedError
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import is_denial, reading
from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.commit_metadata import CommitState
from ..offsets.committed_lanes import LogEnd
from ..offsets.committed_state import RESTORE_TIMEOUT_MS
from ..partition_keys.lane import LaneEntry, LaneEntryState
from ..partition_keys.lanes import Lanes
from ..partition_keys.record_format import Place, Waiting
from ..partition_keys.waiting_store import WaitingStore
from ..process import clock
from .config import ConsumerConfig, ConsumerParts
from .lane_repair import LaneRepair

logger = logging.getLogger(__name__)

#: The time after a rebalance until late entries are looked for. A worker that has lost its partitions notices
#: that when it joins again, which is a rebalance; its last writes are acknowledged soon afterwards.
LATE_AFTER_S = 10.0
#: Lane entries to release, each with the message that waits in the lanes topic; None when it has none.
Found = Sequence[tuple[LaneEntry[ConsumedRecord], Waiting | None]]


class OwnedLanes:
    """Reads the lanes topic for one consumer. The consumer's thread calls all methods.

    Only the owner of a partition writes the lane records of that partition. So its state is the records that
    it read at the takeover, and those that it wrote since. Another process can flush waiting messages: their
    tombstones are read at intervals, and before each release. An absent record proves nothing: a leader that
    was frozen returns an old state of its log. A former owner that does not know yet that it has lost the
    partition can write *late* entries: those of done messages are ended.

    Raises (each method that sends requests): KafkaError and KafkaUnavailable when Kafka does not answer.
    """

    def __init__(
        self,
        config: ConsumerConfig,
        parts: ConsumerParts,
        kafka: ConsumerClient,
        assigned_partitions: Mapping[TopicPartition, AssignedPartition],
    ) -> None:
        self._parts = parts
        self._kafka = kafka
        self._assigned_partitions = assigned_partitions
        self._group = config.application_group
        self._queue_topic = config.topic
        self._topic = config.lanes_topic
        self._repair = LaneRepair(config, parts, lanes_at=self._lanes_at)
        self._store = WaitingStore(
            parts.clients,
            self._topic,
            self._group,
            publisher=parts.completion_publisher,
            written=parts.acknowledged_ends,
            repair=self._repair.repair_read,
        )
        #: Partitions that were taken over while there was no lanes topic, or none that may be seen, each with
        #: the first offset that no earlier owner has read.
        self._unread: dict[TopicPartition, float] = {}
        self._generation = -1
        self._look_at_s = math.inf  # for late entries

    # A takeover

    def restore(
        self,
        partitions: Iterable[TopicPartition],
        states: Mapping[TopicPartition, CommitState] = MappingProxyType({}),
    ) -> dict[TopicPartition, Lanes[ConsumedRecord]]:
        """The lanes of assigned partitions, in the state of their last owners.

        Parameters:
          states: The committed states of partitions to compare with the lanes topic.

        Raises:
          NotAuthorized: When the lanes topic may not be read or written.
        """
        restored: dict[TopicPartition, Lanes[ConsumedRecord]] = {p: Lanes() for p in partitions}
        for lanes in restored.values():
            lanes.restore((), now_ms=clock.wall_ms())
        waited = any(state.lanes is not None and state.lanes.waiting for state in states.values())
        # A topic in which messages waited was deleted, or may not be seen any more.
        if not waited and not self._is_visible():
            self._unread.update((p, states[p].highest + 1 if p in states else math.inf) for p in restored)
            return restored
        doing = (
            f"Messages of the topic {self._queue_topic!r} that have a partition_key wait, as the topic "
            f"{self._topic!r} cannot be read and written"
        )
        with self._explained(doing):
            # The last owner may have written its last records to a leader that another one has replaced.
            self._store.catch_up_with_all()
            self._catch_up()
            self._repair.repair_committed(self._store, states)
        for partition, lanes in restored.items():
            number = partition.partition
            topic_id = self._kafka.topic_id(partition.topic)
            lanes.restore(
                self._store.waiting(number),
                uniques=self._store.uniques(number),
                paces=self._store.paces(number),
                now_ms=clock.wall_ms(),
                # A recreated topic has other records at the offsets below a mark.
                marks={
                    lane: mark
                    for lane, mark in self._store.marks(number).items()
                    if not mark.topic_id or topic_id is None or mark.topic_id == str(topic_id)
                },
            )
        numbers = {partition.partition for partition in restored}
        for place in [place for place in self._store.appeared if place.partition in numbers]:
            del self._store.appeared[place]  # the lanes have it
        for partition in restored:
            self._unread.pop(partition, None)
        return restored

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Name the missing right where Kafka denies a request."""
        try:
            yield
        except NotAuthorized as e:
            raise NotAuthorized(f"{doing}: {e}") from e
        except KafkaError as e:
            if not is_denial(e):
                raise
            raise self._parts.clients.translated(e, doing, reading(self._topic)) from e

    def _is_visible(self) -> bool:
        """Whether there is a lanes topic that this client may see."""
        try:
            return bool(self._kafka.existing_topics([self._topic], RESTORE_TIMEOUT_MS))
        except TopicAuthorizationFailedError:
            return False

    def ends_for(self, partition: TopicPartition) -> dict[int, LogEnd]:
        """The offsets up to which this process has read or written the lanes topic; empty while it may not
        know all waiting messages of a partition.
        """
        return {} if partition in self._unread else self._store.log_ends()

    # While partitions are owned

    def may_have_changed(self) -> bool:
        """Whether there is a reason to check the lanes topic. It sends no request."""
        kept = any(assigned.lanes.kept for assigned in self._assigned_partitions.values())
        return kept or self._store.may_have_changed() or self._may_have_late_entries()

    def _may_have_late_entries(self) -> bool:
        """Whether a former owner may have written since the topic was read, or the message of a late entry is
        not read yet.
        """
        if (generation := self._kafka.generation()) != self._generation:
            self._generation, self._look_at_s = generation, clock.monotonic_s() + LATE_AFTER_S
        return clock.monotonic_s() >= self._look_at_s or bool(self._store.appeared)

    def check(self) -> None:
        """Read the new records of the lanes topic: forget flushed messages, end late entries, and write lost
        records again.
        """
        began_s = clock.monotonic_s()
        is_late_look = began_s >= self._look_at_s
        if is_late_look:
            self._look_at_s = began_s + LATE_AFTER_S  # should it fail
        # While Kafka does not answer, the construction of the topic's client would take long.
        if self._store.was_read or self._is_visible():
            with self._explained(f"The topic {self._topic!r} cannot be read"):
                self._catch_up()
                self._end_late()
            if self._unread:
                self._note_read()
        if is_late_look:
            self._look_at_s = math.inf

    def find(self, assigned: AssignedPartition, entries: Sequence[LaneEntry[ConsumedRecord]]) -> Found:
        """The messages that wait for some lane entries of one partition, by the newest state of the topic.

        An entry without one was flushed or lost.
        """
        places = [self.place_of(assigned, entry) for entry in entries]
        doing = f"Messages that wait in the topic {self._topic!r} cannot continue"
        with self._explained(doing):
            self._catch_up()
        if self._missing(assigned, entries, places):
            with self._explained(doing):
                self._store.catch_up_with_all()
                self._catch_up()
            if lost := self._missing(assigned, entries, places):
                logger.error(
                    "%d message(s) that waited in their lanes are no longer in the topic %r, and were not "
                    "flushed: the topic was recreated, or has lost its tail. The later messages of their "
                    "lanes continue. The first lost one is %s.",
                    len(lost), self._topic, lost[0],
                )  # fmt: skip
        return [(entry, self._store.get(place)) for entry, place in zip(entries, places, strict=True)]

    def place_of(self, assigned: AssignedPartition, entry: LaneEntry[ConsumedRecord]) -> Place:
        return Place(self._group, assigned.partition.partition, entry.sequence)

    def close(self) -> None:
        self._store.close()

    def _catch_up(self) -> None:
        """Read the new records of the lanes topic, repair it if it was truncated, and forget the flushed
        messages.
        """
        self._store.catch_up()
        if self._store.read_again:
            self._compare_with_memory()
            self._store.read_again = False
        if self._store.ended:
            self._forget_flushed()

    def _end_late(self) -> None:
        """End the late entries of done messages, and note those of messages that are not done."""
        late: dict[Place, int] = {}
        with self._parts.in_flight.lock:
            for place, (key, kept_in) in list(self._store.appeared.items()):
                assigned = self._assigned_partitions.get(TopicPartition(self._queue_topic, place.partition))
                if (
                    assigned is None
                    or assigned.lanes_are_closed
                    or place.sequence.offset < self._unread.get(assigned.partition, 0)
                ):
                    del self._store.appeared[place]  # it is another worker's, or may wait
                elif (entry := assigned.lanes.find(key, place.sequence)) is not None:
                    assigned.lanes.note_kept(entry, kept_in)
                    del self._store.appeared[place]
                elif assigned.tracker.is_complete(place.sequence.offset):
                    late[place] = kept_in
        if late:
            self._repair.end_late(late)
            for place in late:
                self._store.appeared.pop(place, None)

    def _compare_with_memory(self) -> None:
        with self._parts.in_flight.lock:
            owned = list(self._assigned_partitions.values())
            kept = {assigned.partition.partition: list(assigned.lanes.kept_offsets) for assigned in owned}
        known_from = {partition.partition: offset for partition, offset in self._unread.items()}
        self._repair.repair_owned(self._store, kept, known_from=known_from)
        with self._parts.in_flight.lock:
            for assigned in owned:
                assigned.dirty = True  # the committed ends of the lanes topic are outdated

    def _forget_flushed(self) -> None:
        ended = self._store.ended
        with self._parts.in_flight.lock:
            flushed = [place for place, key in list(ended.items()) if self._waits(place, key)]
        if not flushed:
            return
        # A running message may have become a waiting retry since the topic was read. The tombstone was then
        # of its previous wait.
        self._store.catch_up()
        with self._parts.in_flight.lock:
            for place in flushed:
                key = ended.pop(place, None)
                lanes = self._lanes_at(place)
                if key is not None and lanes is not None:
                    lanes.forget(key, place.sequence)

    def _waits(self, place: Place, key: bytes) -> bool:
        """Whether a message with a tombstone in the lanes topic still waits here. A done one is removed."""
        lanes = self._lanes_at(place)
        entry = lanes.find(key, place.sequence) if lanes is not None else None
        if entry is None:
            del self._store.ended[place]
        # A running message was flushed while it ran, or its retry was flushed before its entry was updated.
        return entry is not None and entry.state is LaneEntryState.WAITING

    def _note_read(self) -> None:
        """Note the partitions whose waiting messages are all known by now, after their topic appeared."""
        with self._parts.in_flight.lock:
            for partition in list(self._unread):
                assigned = self._assigned_partitions.get(partition)
                waiting = self._store.waiting(partition.partition)
                kept = set(assigned.lanes.kept_offsets) if assigned is not None else set()
                if assigned is None or all(sequence.offset in kept for _, sequence, _, _ in waiting):
                    del self._unread[partition]

    def _missing(
        self,
        assigned: AssignedPartition,
        entries: Sequence[LaneEntry[ConsumedRecord]],
        places: Sequence[Place],
    ) -> list[Place]:
        """The places of waiting entries that have neither a record nor a tombstone in the store."""
        absent = [number for number, place in enumerate(places) if self._store.get(place) is None]
        with self._parts.in_flight.lock:
            find = assigned.lanes.find
            return [places[n] for n in absent if find(entries[n].key, entries[n].sequence) is entries[n]]

    def _lanes_at(self, place: Place) -> Lanes[ConsumedRecord] | None:
        assigned = self._assigned_partitions.get(TopicPartition(self._queue_topic, place.partition))
        return None if assigned is None else assigned.lanes
