"""The partitions of the delayed topic that this process has been given, read into their indexes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Event
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..errors import KafkaUnavailable
from ..kafka.clients import Clients
from ..kafka.errors import LogTruncationError, OffsetOutOfRangeError
from ..kafka.leader_epochs import epoch_of_position
from ..kafka.protocol import RebalanceListener
from ..kafka.rights import reading
from ..kafka.topics import Topics
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.unreadable_batches import UnreadableBatchSkipper
from ..offsets.committed_state import name_of
from ..produce.publisher import Publisher
from .delayed_topic import DelayedTopic, look_up
from .index import DelayIndex
from .index_files import IndexFiles
from .lease import Lease
from .record_format import Entry, UnreadableRecord, mark, read

logger = logging.getLogger(__name__)

#: What one read takes. With a transaction for each, it is the step in which due messages wait for a rebuild.
MAX_POLL_RECORDS = 1_000
#: What kafka-python holds in memory, at most: this much of each partition, and this much of all in one
#: answer.
MAX_PARTITION_FETCH_BYTES = 512 * 1024
MAX_FETCH_BYTES = 4 * 1024 * 1024
#: Partitions that have so many records left, or fewer, are read together when an index catches up.
READ_TOGETHER = 1_000
#: How often an index whose partition is quiet notes that it is up to date.
COMPLETE_NOTE_INTERVAL_MS = 60_000
#: Tombstones have this much of their retention left, at least, when an index that needs them is opened.
KEEP_MARGIN = 0.5
REQUEST_TIMEOUT_MS = 10_000
SESSION_TIMEOUT_MS = 10_000
#: How often it is checked that the topic was not deleted and made anew. kafka-python goes on reading at the
#: old offset then, past what the new log has below it.
LOOK_UP_INTERVAL_S = 30.0


@dataclass(slots=True)
class OwnedPartition:
    """One partition that this process answers for.

    Attributes:
      end: The end of the log when it was assigned, behind a record that this process wrote there: a leader
        that stood still would name an earlier one. A delay read below it may be over: its tombstone may be
        anywhere further on. So nothing is forwarded until everything below it has been read.
      confirmed: Whether ``end`` has been heard from the partition's leader with the first records. What is
        asked for beforehand is too low on the embedded broker.
      ready: Whether everything below ``end`` has been read.
    """

    partition: TopicPartition
    index: DelayIndex
    end: int
    confirmed: bool = False
    ready: bool = False


def group_of(topics: Topics) -> str:
    """The consumer group of a namespace's forwarders."""
    return f"{topics.delayed}.forwarders"


class OwnedPartitions:
    """Joins the group of forwarders and keeps an index of every partition it is given.

    Everything happens in :meth:`poll` and on the caller's thread, but for the callbacks of a rebalance:
    kafka-python calls those on its I/O thread, and only while the caller waits in :meth:`poll` or
    :meth:`close`.

    Parameters:
      unless: Once it is set, nobody waits for a Kafka that does not answer.

    Raises (every method):
      KafkaError, KafkaUnavailable: When Kafka does not answer. Close it and make another.
      IndexUnusable: When an index can be neither read nor rebuilt. Close it and make another later.
      IndexDamaged: When an index is damaged. Close it, discard that file and make another.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        files: IndexFiles,
        settings: dict[str, Any],
        *,
        unless: Event | None = None,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._files = files
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._added: set[TopicPartition] = set()
        self._looked_up_s = time.monotonic()
        topics.ensure([topics.delayed], unless=unless)
        self._kafka = clients.consumer(
            group_id=group_of(topics),
            # A position is always set from the index; one that is out of range means another log than it was
            # made from.
            auto_offset_reset="none",
            max_poll_records=MAX_POLL_RECORDS,
            max_partition_fetch_bytes=MAX_PARTITION_FETCH_BYTES,
            fetch_max_bytes=MAX_FETCH_BYTES,
            **{"session_timeout_ms": SESSION_TIMEOUT_MS, **settings},
        )
        self._reading = UnreadableBatchSkipper(self._kafka)
        self._lease = Lease(self._kafka, self._kafka.config["session_timeout_ms"])
        listener = RebalanceListener(on_assigned=self._assigned, on_revoked=self._revoked, on_lost=self._lost)
        self._kafka.subscribe([topics.delayed], listener=listener)
        self._unless = unless
        try:
            # A leader that does not know the partitions yet assigns none, and rebalances again at once.
            clients.ask(
                lambda: self._kafka.partitions_for_topic(topics.delayed),
                f"The topic {topics.delayed!r} could not be looked up",
                unless=unless,
                rights=reading(topics.delayed),
            )
        except BrokerConnectionError:
            self._kafka.close(autocommit=False, timeout_ms=0)
            raise

    @property
    def ready(self) -> list[OwnedPartition]:
        """Those whose delays may be forwarded now."""
        return [owned for owned in self._owned.values() if owned.ready] if self._lease.valid else []

    def poll(self, timeout_ms: float, now_ms: int) -> None:
        """Read what there is, waiting for at most ``timeout_ms`` for the first of it."""
        try:
            self._read(timeout_ms, now_ms)
        except OffsetOutOfRangeError as e:
            self._rebuild(e.args[0], now_ms)
        except LogTruncationError as e:
            for partition, divergence in e.divergent_offsets.items():
                if divergence is None or divergence.offset == 0:
                    self._rebuild([partition], now_ms)
                else:
                    self._mend(partition, divergence.offset, now_ms)

    def _read(self, timeout_ms: float, now_ms: int) -> None:
        started_s = time.monotonic()
        batches = self._reading.poll(timeout_ms)
        if self._added:
            self._open_added(now_ms)
        for partition, records in batches.items():
            if (owned := self._owned.get(partition)) is not None:
                for part, next_offset in _split(records, owned.index.mend_until):
                    leader_epoch = part[-1].leader_epoch if part else -1
                    self._advance(owned, entries_of(part), next_offset, leader_epoch, now_ms)
        for owned in self._owned.values():
            self._note_progress(owned, now_ms)
        self._read_next_unready()
        if started_s - self._looked_up_s > LOOK_UP_INTERVAL_S:
            self._check_topic(now_ms)
        self._lease.renew({partition: owned.index.next_offset for partition, owned in self._owned.items()})

    def close(self, timeout_ms: float) -> None:
        """Leave the group and close the indexes."""
        try:
            self._kafka.close(autocommit=False, timeout_ms=timeout_ms)
        finally:
            self._drop(list(self._owned))

    # Rebalances: on kafka-python's I/O thread, while poll() or close() waits for it

    def _assigned(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            # Until its index says where to go on. A position keeps kafka-python from looking for one itself.
            self._kafka.pause(partition)
            self._kafka.seek(partition, 0)
            self._added.add(partition)

    def _revoked(self, partitions: Iterable[TopicPartition]) -> None:
        # Closed here and now: the next owner may be a process that waits for the same file.
        self._drop(partitions)

    def _lost(self, partitions: Iterable[TopicPartition]) -> None:
        self._drop(partitions)

    def _drop(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._added.discard(partition)
            self._reading.forget(partition)
            if (owned := self._owned.pop(partition, None)) is not None:
                owned.index.close()

    # Reading

    def _open_added(self, now_ms: int) -> None:
        topic = self._look_up()
        added = sorted(self._added)
        beginnings = self._kafka.beginning_offsets(added, timeout_ms=REQUEST_TIMEOUT_MS)
        ends = self._mark(added)
        keep_ms = int(topic.tombstone_retention_ms * KEEP_MARGIN)
        for partition in added:
            index = self._files.open(topic.identity(partition.partition), now_ms=now_ms, keep_ms=keep_ms)
            self._owned[partition] = OwnedPartition(partition, index, ends[partition])
            # kafka-python asks whether the log is still the one that the index was made from, by the epoch.
            position = max(index.next_offset, beginnings[partition])
            self._kafka.seek(partition, position, index.leader_epoch)
            logger.debug("%s: the index is at %d of %d", partition, index.next_offset, ends[partition])
        self._added.clear()

    def _look_up(self) -> DelayedTopic:
        # The group is not to wait for this process longer than for any other answer.
        within_s = REQUEST_TIMEOUT_MS / 1000
        return look_up(self._clients, self._topics, within_s=within_s, unless=self._unless)

    def _mark(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Write a record into each partition, and return where it ends behind that. Only a true leader takes
        one.
        """
        ends: dict[TopicPartition, int] = {}

        def note(partition: int, offset: int | None) -> None:
            if offset is not None:
                ends[TopicPartition(self._topics.delayed, partition)] = offset + 1

        marks = [mark(self._topics.delayed, partition=p.partition, watch=note) for p in partitions]
        for failure in self._publisher.publish(marks).values():
            raise KafkaUnavailable(
                f"It cannot be told where the topic {self._topics.delayed!r} ends: {failure!r}"
            ) from failure
        return ends

    def _check_topic(self, now_ms: int) -> None:
        self._looked_up_s = time.monotonic()
        try:
            topic = self._look_up()
        except BrokerConnectionError as e:
            logger.info("The delayed topic could not be checked; it will be later: %s", e)
            return
        identities = {partition: str(topic.identity(partition.partition)) for partition in self._owned}
        strange = [p for p, owned in self._owned.items() if not owned.index.belongs_to(identities[p])]
        self._rebuild(strange, now_ms)

    def _rebuild(self, partitions: Iterable[TopicPartition], now_ms: int) -> None:
        """Start over with indexes of a log that is no more: its topic was made anew, or it was cut off."""
        for partition in partitions:
            if (owned := self._owned.get(partition)) is None:
                continue
            logger.warning("The delay index of %s is rebuilt: its log has become another one.", partition)
            identity = self._look_up().identity(partition.partition)
            owned.index.reset(str(identity), now_ms)
            self._read_again(owned)

    def _mend(self, partition: TopicPartition, cut: int, now_ms: int) -> None:
        """Bring an index and its log together again that has lost its tail."""
        if (owned := self._owned.get(partition)) is None:
            return
        logger.error(
            "%s lost its tail, as it does when a replica without it is elected (an unclean election): it was "
            "read up to offset %d, and is another log from offset %d on. What was delayed since is gone; the "
            "rest is read again, and nothing of it is forwarded before.",
            name_of(partition), owned.index.next_offset, cut,
        )  # fmt: skip
        owned.index.mend(cut, now_ms)
        self._read_again(owned)

    def _read_again(self, owned: OwnedPartition) -> None:
        partition = owned.partition
        owned.ready = owned.confirmed = False
        owned.end = self._mark([partition])[partition]
        beginnings = self._kafka.beginning_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)
        self._kafka.seek(partition, beginnings[partition])

    def _note_progress(self, owned: OwnedPartition, now_ms: int) -> None:
        highwater = self._kafka.highwater(owned.partition)
        if highwater is None:
            return
        # A time in the future was noted while the clock was ahead; it would make the index look younger.
        silent = not 0 <= now_ms - owned.index.complete_ms <= COMPLETE_NOTE_INTERVAL_MS
        if owned.ready and not silent and highwater <= owned.index.next_offset:
            return  # the usual case; to tell one position kafka-python looks at all partitions
        # Not the last record's offset: what is at the end of the log may have been compacted away.
        position = self._kafka.position(owned.partition)
        if position is None:
            return
        if not owned.confirmed:
            owned.end, owned.confirmed = max(owned.end, highwater), True
        owned.ready = owned.ready or position >= owned.end
        if position > owned.index.next_offset or (owned.ready and silent):
            self._advance(owned, [], position, epoch_of_position(self._kafka, owned.partition), now_ms)

    def _advance(
        self, owned: OwnedPartition, entries: list[Entry], next_offset: int, leader_epoch: int, now_ms: int
    ) -> None:
        highwater = self._kafka.highwater(owned.partition)
        caught_up = owned.ready and highwater is not None and next_offset >= highwater
        lost = owned.index.apply(
            entries,
            next_offset,
            now_ms=now_ms,
            complete_ms=now_ms if caught_up else None,
            leader_epoch=leader_epoch,
        )
        if lost:
            logger.error("%s: %d delayed message(s) were lost with its tail.", name_of(owned.partition), lost)
        owned.index.shrink()

    def _read_next_unready(self) -> None:
        """Read one at a time, the shortest first: what is due there need not wait for the others. Those with
        hardly anything to read wait for no turn.
        """
        unread = {
            owned.partition: owned.end - owned.index.next_offset
            for owned in self._owned.values()
            if not owned.ready and not self._reading.is_aside(owned.partition)
        }
        if unread and self._kafka.paused().issuperset(unread):
            little = max(READ_TOGETHER, min(unread.values()))
            self._kafka.resume(*(partition for partition, left in unread.items() if left <= little))


def _split(records: list[ConsumedRecord], at: int) -> list[tuple[list[ConsumedRecord], int]]:
    """Part records at an offset, if they go beyond it; with each part, the offset that follows it."""
    next_offset = records[-1].offset + 1
    if not 0 < at < next_offset:
        return [(records, next_offset)]
    return [
        ([r for r in records if r.offset < at], at),
        ([r for r in records if r.offset >= at], next_offset),
    ]


def entries_of(records: Iterable[ConsumedRecord]) -> list[Entry]:
    """Understand what was read of the delayed topic; what cannot be understood stays there."""
    entries: list[Entry] = []
    for record in records:
        try:
            entries.append(read(record.key, record.value, record.headers))
        except UnreadableRecord as e:
            logger.error("%s-%d at %d is left alone: %s", record.topic, record.partition, record.offset, e)
    return entries
