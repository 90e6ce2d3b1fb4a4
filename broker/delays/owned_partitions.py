"""The group of forwarders: joins it, and reads the partitions that this process owns into their indexes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Event
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import LogTruncationError, OffsetOutOfRangeError
from ..kafka.protocol import RebalanceListener
from ..kafka.rebalance import heartbeat_soon, learn_partitions
from ..kafka.rights import reading
from ..kafka.topics import Topics
from ..kafka.types import Membership, TopicPartition
from ..kafka.unreadable_batches import UnreadableBatchSkipper
from ..offsets.committed_lanes import LogEnd
from ..offsets.committed_state import name_of
from ..process import clock
from ..produce.publisher import Publisher, publish_all
from ..reaper.registrar import MembershipSlot
from .delayed_topic import DelayedTopic, look_up
from .index_files import IndexFiles
from .lease import Lease
from .lost_tail import report_lost_tails
from .owned_partition import OwnedPartition
from .record_format import end_mark
from .topic_reading import REQUEST_TIMEOUT_MS, SETTINGS, entries_of, split

logger = logging.getLogger(__name__)

#: The maximum number of unread records with which partitions are read together while their indexes catch up.
READ_TOGETHER = 1_000
#: The fraction of a tombstone's retention that must remain when an index that needs it is opened.
KEEP_MARGIN = 0.5
SESSION_TIMEOUT_MS = 10_000
#: The interval of the check that the topic was not recreated. kafka-python would continue at the old offset,
#: and skip the records below it in the new log.
LOOK_UP_INTERVAL_S = 30.0


def group_of(topics: Topics) -> str:
    """The consumer group of a namespace's forwarders."""
    return f"{topics.delayed}.forwarders"


class OwnedPartitions:
    """Joins the group of forwarders and keeps an index of every partition that this process owns.

    All work happens in :meth:`poll` on the caller's thread, except the callbacks of a rebalance: kafka-python
    calls them on its I/O thread, and only while the caller waits in :meth:`poll` or :meth:`close`.

    Parameters:
      slot: Takes the membership in the group of forwarders.
      unless: Once this event is set, no call waits for an unreachable Kafka.

    Raises (every method):
      KafkaError, KafkaUnavailable: When Kafka does not answer. Close this object and create another.
      CacheUnusable: When an index can be neither read nor rebuilt. Close this object; create another later.
      CacheDamaged: When an index is damaged. Close this object, discard the file and create another.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        files: IndexFiles,
        settings: dict[str, Any],
        *,
        slot: MembershipSlot | None = None,
        unless: Event | None = None,
    ) -> None:
        self._slot = slot
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._files = files
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._added: set[TopicPartition] = set()
        self._checked_at_s = clock.monotonic_s()
        topics.ensure([topics.delayed], unless=unless)
        self._kafka = clients.consumer(
            topics=[topics.delayed],
            group_id=group_of(topics),
            **{**SETTINGS, "session_timeout_ms": SESSION_TIMEOUT_MS, **settings},
        )
        self._reading = UnreadableBatchSkipper(self._kafka)
        self._lease = Lease(self._kafka, self._kafka.config["session_timeout_ms"])
        listener = RebalanceListener(
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            on_lost=self._lost,
            on_membership=self._joined,
        )
        self._kafka.subscribe([topics.delayed], listener=listener)
        self._unless = unless
        try:
            # A group leader that does not know the partitions yet assigns none, and rebalances again at once.
            clients.ask(
                lambda: learn_partitions(self._kafka, topics.delayed),
                f"The topic {topics.delayed!r} could not be looked up",
                unless=unless,
                rights=reading(topics.delayed),
            )
        except BrokerConnectionError:
            self._kafka.close(autocommit=False, timeout_ms=0)
            raise

    @property
    def ready(self) -> list[OwnedPartition]:
        """The partitions whose delays may be forwarded now."""
        return [owned for owned in self._owned.values() if owned.ready] if self._lease.valid else []

    @property
    def all_ready(self) -> bool:
        """Whether the delays of every owned partition may be forwarded now; False without a partition."""
        return bool(self._owned) and not self._added and len(self.ready) == len(self._owned)

    def poll(self, timeout_ms: float, now_ms: int) -> None:
        """Read the available records. Wait for at most ``timeout_ms`` for the first one."""
        try:
            self._read(timeout_ms, now_ms)
        except OffsetOutOfRangeError as e:
            self._rebuild(e.args[0], now_ms)
        except LogTruncationError as e:
            for partition, divergence in e.divergent_offsets.items():
                if divergence is None or divergence.offset == 0:
                    self._rebuild([partition], now_ms)
                else:
                    self._repair(partition, divergence.offset, now_ms)

    def _read(self, timeout_ms: float, now_ms: int) -> None:
        started_s = clock.monotonic_s()
        batches = self._reading.poll(timeout_ms)
        if self._added:
            self._open_added(now_ms)
        for partition, records in batches.items():
            if (owned := self._owned.get(partition)) is not None:
                for part, next_offset in split(records, owned.index.repair_until):
                    leader_epoch = part[-1].leader_epoch if part else -1
                    owned.apply(self._kafka, entries_of(part), next_offset, leader_epoch, now_ms=now_ms)
        for owned in self._owned.values():
            owned.note_position(self._kafka, now_ms=now_ms)
        self._resume_next_unready()
        if started_s - self._checked_at_s > LOOK_UP_INTERVAL_S:
            self._check_topic(now_ms)
        self._lease.renew(
            {p: LogEnd(owned.index.next_offset, owned.index.leader_epoch) for p, owned in self._owned.items()}
        )

    def close(self, timeout_ms: float) -> None:
        """Leave the group and close the indexes."""
        try:
            self._kafka.close(autocommit=False, timeout_ms=timeout_ms)
        finally:
            self._drop(list(self._owned))
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
            # Paused until its index is open. The position keeps kafka-python from requesting one.
            self._kafka.pause(partition)
            self._kafka.seek(partition, 0)
            self._added.add(partition)

    def _revoked(self, partitions: Iterable[TopicPartition]) -> None:
        # Closed at once: the next owner may be a process that waits for the same file.
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
        ends = self._write_end_marks(added)
        keep_ms = int(topic.tombstone_retention_ms * KEEP_MARGIN)
        for partition in added:
            index = self._files.open(topic.identity(partition.partition), now_ms=now_ms, keep_ms=keep_ms)
            self._owned[partition] = OwnedPartition(partition, index, ends[partition])
            # With the epoch, kafka-python checks that the log is still the one that the index was built from.
            position = max(index.next_offset, beginnings[partition])
            self._kafka.seek(partition, position, index.leader_epoch)
            logger.debug("%s: the index is at %d of %d", partition, index.next_offset, ends[partition])
        next_offsets = {partition: self._owned[partition].index.next_offset for partition in added}
        report_lost_tails(self._kafka, next_offsets, timeout_ms=REQUEST_TIMEOUT_MS)
        self._added.clear()

    def _look_up(self) -> DelayedTopic:
        # A rebalance of the group must not wait longer for this process than for any other response.
        within_s = REQUEST_TIMEOUT_MS / 1000
        return look_up(self._clients, self._topics, within_s=within_s, unless=self._unless)

    def _write_end_marks(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Write an end mark into each partition, and return the offset after it. Only the current leader
        accepts one.
        """
        ends: dict[TopicPartition, int] = {}

        def note(partition: int, offset: int | None, leader_epoch: int = -1) -> None:
            if offset is not None:
                ends[TopicPartition(self._topics.delayed, partition)] = offset + 1

        end_marks = [end_mark(self._topics.delayed, partition=p.partition, watch=note) for p in partitions]
        doing = f"The end of the topic {self._topics.delayed!r} cannot be determined"
        publish_all(self._publisher, end_marks, doing)
        return ends

    def _check_topic(self, now_ms: int) -> None:
        self._checked_at_s = clock.monotonic_s()
        try:
            topic = self._look_up()
        except BrokerConnectionError as e:
            logger.info("The delayed topic could not be checked; the next check follows: %s", e)
            return
        identities = {partition: str(topic.identity(partition.partition)) for partition in self._owned}
        recreated = [p for p, owned in self._owned.items() if not owned.index.belongs_to(identities[p])]
        self._rebuild(recreated, now_ms)

    def _rebuild(self, partitions: Iterable[TopicPartition], now_ms: int) -> None:
        """Empty the indexes of a log that is gone: its topic was recreated, or it was truncated."""
        for partition in partitions:
            if (owned := self._owned.get(partition)) is None:
                continue
            logger.warning("The delay index of %s is rebuilt: its log was replaced.", partition)
            identity = self._look_up().identity(partition.partition)
            owned.index.reset(str(identity), now_ms)
            self._read_again(owned)

    def _repair(self, partition: TopicPartition, cut: int, now_ms: int) -> None:
        """Repair the index of a log that has lost its tail."""
        if (owned := self._owned.get(partition)) is None:
            return
        logger.error(
            "%s lost its tail, as in an unclean election, when a replica without the tail becomes the "
            "leader. It was read up to offset %d, and differs from offset %d on. Messages delayed since then "
            "are lost. The rest is read again before any of it is forwarded.",
            name_of(partition), owned.index.next_offset, cut,
        )  # fmt: skip
        owned.index.repair(cut, now_ms)
        self._read_again(owned)

    def _read_again(self, owned: OwnedPartition) -> None:
        partition = owned.partition
        owned.ready = owned.confirmed = False
        owned.end = self._write_end_marks([partition])[partition]
        beginnings = self._kafka.beginning_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)
        self._kafka.seek(partition, beginnings[partition])

    def _resume_next_unready(self) -> None:
        """Read one unready partition at a time, the one with the fewest unread records first, so that its due
        messages need not wait for the others. Partitions with few unread records are read together.
        """
        unread = {
            owned.partition: owned.end - owned.index.next_offset
            for owned in self._owned.values()
            if not owned.ready and not self._reading.is_aside(owned.partition)
        }
        if unread and self._kafka.paused().issuperset(unread):
            few = max(READ_TOGETHER, min(unread.values()))
            self._kafka.resume(*(partition for partition, left in unread.items() if left <= few))
