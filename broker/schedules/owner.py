"""The group of the schedules' owners: one member of it reads the topic and enqueues occurrences."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from threading import Event
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..delays.lease import Lease
from ..kafka.clients import Clients
from ..kafka.protocol import RebalanceListener
from ..kafka.rebalance import heartbeat_soon, learn_partitions
from ..kafka.rights import reading
from ..kafka.topics import Topics
from ..kafka.types import ConsumedRecord, Membership, TopicPartition
from ..kafka.unreadable_batches import UnreadableBatchSkipper
from ..offsets.committed_lanes import LogEnd
from ..produce.publisher import Publisher, publish_all
from ..reaper.registrar import MembershipSlot
from .book import Book
from .record_format import PARTITION, Entry, Firing, Gone, UnreadableSchedule, end_record, read

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_MS = 10_000
SESSION_TIMEOUT_MS = 10_000
SETTINGS: dict[str, Any] = {
    # Compaction removes the first records, and an offset that the log does not have is of an earlier log.
    "auto_offset_reset": "earliest",
    "max_poll_records": 1_000,
}


class TopicReplaced(Exception):
    """Somebody has deleted the topic and created it again: it is read again."""


def group_of(topics: Topics) -> str:
    """The consumer group of a namespace's schedules."""
    return f"{topics.schedules}.owners"


class Ownership:
    """A membership of the group of owners, and the schedules while this process is the owner.

    The owner of the topic's first partition is the owner of all schedules. All work happens in :meth:`poll`
    on the caller's thread, except the callbacks of a rebalance, which run while the caller is in :meth:`poll`
    or :meth:`close`.

    Parameters:
      slot: Takes the membership in the group.
      unless: Once this event is set, no call waits for an unreachable Kafka.

    Attributes:
      id: Of this membership, for the firings that it writes.

    Raises (every method):
      KafkaError, KafkaUnavailable, NotAuthorized: When Kafka does not answer. Close this object and create
        another.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        settings: Mapping[str, Any],
        *,
        slot: MembershipSlot | None = None,
        unless: Event | None = None,
    ) -> None:
        self.id = secrets.token_hex(8)
        self._topics = topics
        self._publisher = publisher
        self._slot = slot
        self._partition = TopicPartition(topics.schedules, PARTITION)
        self._book: Book | None = None
        self._is_added = False
        self._is_read = False
        self._end = 0
        self._topic_id: object = None
        topics.ensure([topics.schedules], unless=unless)
        self._kafka = clients.consumer(
            topics=[topics.schedules],
            group_id=group_of(topics),
            **{**SETTINGS, "session_timeout_ms": SESSION_TIMEOUT_MS, **settings},
        )
        self._reading = UnreadableBatchSkipper(self._kafka)
        self._lease = Lease(self._kafka, self._kafka.config["session_timeout_ms"])
        listener = RebalanceListener(
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            on_lost=self._revoked,
            on_membership=self._joined,
        )
        self._kafka.subscribe([topics.schedules], listener=listener)
        try:
            clients.ask(
                lambda: learn_partitions(self._kafka, topics.schedules),
                f"The topic {topics.schedules!r} could not be looked up",
                unless=unless,
                rights=reading(topics.schedules),
            )
        except BrokerConnectionError:
            self._kafka.close(autocommit=False, timeout_ms=0)
            raise

    @property
    def book(self) -> Book | None:
        """The schedules; None while this process is not certainly their owner, or has not read them."""
        return self._book if self._is_read and self._lease.valid else None

    def poll(self, timeout_ms: float) -> None:
        """Read the available records. Wait for at most ``timeout_ms`` for the first one."""
        batches = self._reading.poll(timeout_ms)
        if self._is_added:
            self._begin()
        if self._book is None:
            return
        if self._kafka.topic_id(self._topics.schedules) != self._topic_id:
            raise TopicReplaced(f"The topic {self._topics.schedules!r} was recreated.")
        for record in batches.get(self._partition, ()):
            self._take(self._book, record)
        position = self._kafka.position(self._partition, timeout_ms=REQUEST_TIMEOUT_MS)
        if position is None:
            return
        if not self._is_read and position >= max(self._end, self._kafka.highwater(self._partition) or 0):
            self._is_read = True
            logger.info("This worker enqueues the %d schedule(s).", len(self._book.definitions))
        epoch = self._kafka.position_epoch(self._partition)
        self._lease.renew({self._partition: LogEnd(position, epoch)})

    def _begin(self) -> None:
        """Read the topic from its beginning: this process has just become the owner."""
        self._is_added = self._is_read = False
        self._book = Book()
        self._topic_id = self._kafka.topic_id(self._topics.schedules)
        self._end = self._write_end()
        self._kafka.seek_to_beginning(self._partition)
        self._kafka.resume(self._partition)

    def _write_end(self) -> int:
        """Write a record, and return the offset after it. Only the current leader accepts it."""
        ends: list[int] = []

        def note(partition: int, offset: int | None, leader_epoch: int = -1) -> None:
            if offset is not None:
                ends.append(offset + 1)

        topic = self._topics.schedules
        publish_all(
            self._publisher, [end_record(topic, note)], f"The end of the topic {topic!r} cannot be determined"
        )
        return max(ends, default=0)

    def _take(self, book: Book, record: ConsumedRecord) -> None:
        try:
            entry = read(record.key, record.value, record.timestamp)
        except UnreadableSchedule as e:
            logger.error("%s-%d: the record at offset %d is skipped: %s",
                         record.topic, record.partition, record.offset, e)  # fmt: skip
            return
        if entry is not None and not self._is_own(entry):
            book.take(entry)

    def _is_own(self, entry: Entry) -> bool:
        """Whether this membership has written a firing, or its tombstone: the book has it already."""
        if isinstance(entry, Firing):
            return entry.id.startswith(self.id)
        return isinstance(entry, Gone) and entry.kind is Firing and entry.name.startswith(self.id)

    def close(self, timeout_ms: float) -> None:
        """Leave the group."""
        self._drop()
        self._kafka.close(autocommit=False, timeout_ms=timeout_ms)
        if self._slot is not None:
            self._slot.leave()

    def heartbeat_soon(self) -> None:
        """Send a heartbeat now: the group rebalances. Any thread may call this."""
        heartbeat_soon(self._kafka)

    # Rebalances: on kafka-python's I/O thread, while poll() or close() waits for it

    def _joined(self, membership: Membership) -> None:
        if self._slot is not None:
            self._slot.join(membership)

    def _assigned(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            # Until the end of the log is known. The other partitions of a topic that was created by hand are
            # never read. The position keeps kafka-python from requesting one.
            self._kafka.pause(partition)
            self._kafka.seek(partition, 0)
            self._is_added = self._is_added or partition == self._partition

    def _revoked(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._reading.forget(partition)
            if partition == self._partition:
                self._drop()

    def _drop(self) -> None:
        self._book, self._is_added, self._is_read = None, False, False
