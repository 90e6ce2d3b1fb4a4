"""Reads a queue's lanes topic into a temporary table."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ..kafka.clients import Clients
from ..kafka.errors import (
    KafkaError,
    LogTruncationError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from ..kafka.metadata import partitions_now
from ..kafka.topic_reader import StaleRead, TopicReader
from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.committed_lanes import LogEnd
from ..offsets.truncation_check import TruncationCheck, are_cut
from ..process.sqlite_cache import CacheDamaged, CacheUnusable
from ..produce.publisher import Publisher, publish_all
from .acknowledged_ends import AcknowledgedEnds
from .known_ends import KnownEnds, highest
from .lane import SequenceNumber
from .limits import Pace, decode_pace
from .record_format import Place, Waiting, end_mark, is_mark, is_pace, read, read_key_state
from .store_repair import Repair, StoreRepair
from .unique import Mark, Unique, decode_mark
from .waiting_table import WaitingTable

logger = logging.getLogger(__name__)

#: The time for which a read may make no progress although the log has more.
STALL_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_MS = 5_000


class Recreated(UnknownTopicOrPartitionError):
    """The lanes topic was deleted and recreated since it was read."""


class WaitingStore:
    """The waiting entries of one group in a lanes topic, in a temporary SQLite file.

    Use it from one thread at a time. The constructor sends no request. A topic that does not exist has no
    entries.

    Parameters:
      publisher: Writes the end marks that show the true end of the log.
      written: The acknowledged ends, which every read must reach.
      repair: Called after a truncation with the entries that the topic has lost, and again until it does not
        raise.

    Attributes:
      ended: The places of entries that have ended, with their keys. The caller removes those it has handled;
        :meth:`catch_up` removes those that wait again.
      appeared: The places of entries that were read and have not ended, with their keys and partitions of the
        lanes topic. The caller removes those that it has looked at.
      read_again: Whether the topic was read again from its beginning, since it was recreated or truncated.
        The caller resets it.

    Raises (each method that sends requests): KafkaError and KafkaUnavailable when Kafka does not answer, or
      shows an earlier end than it has acknowledged. See ``SqliteCache`` for the errors of the file.
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        group: str,
        *,
        publisher: Publisher,
        written: AcknowledgedEnds,
        repair: Repair = lambda lost: None,
    ) -> None:
        self._clients = clients
        self._topic = topic
        self._group = group
        self._publisher = publisher
        self._table = WaitingTable(group)
        self._repair = StoreRepair(self._table, repair)
        self._ends = KnownEnds(topic, written)
        self._reader: TopicReader | None = None
        self._is_new = False  # connected, and no record read yet
        self._leaders: dict[TopicPartition, int] = {}  # their epochs when it was last read
        self._topic_id: object = None
        self.ended: dict[Place, bytes] = {}
        self.appeared: dict[Place, tuple[bytes, int]] = {}
        self.read_again = False

    # Reading

    def catch_up(self, *, ask_for_partitions: bool = False) -> None:
        """Read up to the current end, and at least up to the ends that were acknowledged to this process.

        Parameters:
          ask_for_partitions: Whether to ask Kafka for added partitions. Without it they are noticed within
            ``METADATA_MAX_AGE_MS``, and when this process writes there.
        """
        try:
            self._read({}, ask_for_partitions=ask_for_partitions)
        except StaleRead:
            # Or the topic was recreated or truncated; then no read would ever reach the acknowledged end.
            known = self._ends.lowest()
            if not self._is_another_log(known, self._write_end_marks()):
                raise
            self._read({})

    def catch_up_with_all(self) -> None:
        """Read every record that was acknowledged to any process before this call.

        It writes an end mark into each partition.
        """
        known = self._ends.lowest()
        end_marks = self._write_end_marks()
        self._is_another_log(known, end_marks)
        self._read(end_marks)

    def read_all_again(self) -> set[Place]:
        """Read the topic from its beginning again; return the places with a tombstone: done, or flushed."""
        reader = self._connected()
        if reader is None:
            return set()
        self._repair.begin()
        reader.rewind()
        self._read({})
        return self._repair.done

    @property
    def seen_done(self) -> set[Place]:
        """The places with a tombstone (done, or flushed) at the last repeated read of the topic."""
        return self._repair.done

    def _read(self, end_marks: Mapping[int, int], *, ask_for_partitions: bool = False) -> None:
        try:
            reader = self._connected()
            if reader is None:
                return
            if reader.kafka.topic_id(self._topic) != self._topic_id:
                raise self._absence(reader)
            self._follow_partitions(reader, end_marks, ask=ask_for_partitions)
            self._read_to_ends(reader, end_marks)
            self._repair.finish()
            if self._repair.repair():
                self._read({})
        except StaleRead:
            raise
        except KafkaError as e:
            if isinstance(e, LogTruncationError | Recreated):
                self._begin_again()
            self._disconnect()
            raise
        except (CacheUnusable, CacheDamaged):
            self._disconnect()  # the table lacks records that were read
            raise

    def _absence(self, reader: TopicReader) -> KafkaError:
        """Why the topic has another id than when it was read, or none: it may not be seen any more, or is
        another topic.
        """
        try:
            reader.kafka.partitions_for_topic(self._topic)
        except TopicAuthorizationFailedError as e:
            return e
        except KafkaError as e:
            logger.debug("The topic %r cannot be looked up: %r", self._topic, e)
        return Recreated(f"The topic {self._topic!r} was recreated; it is read again")

    def _read_to_ends(self, reader: TopicReader, end_marks: Mapping[int, int]) -> None:
        kafka = reader.kafka
        leaders = {partition: kafka.leader_epoch(partition) for partition in reader.partitions}
        known = {TopicPartition(self._topic, number): end for number, end in self.log_ends().items()}
        check = TruncationCheck(kafka, known, timeout_ms=REQUEST_TIMEOUT_MS)
        ends = reader.ends()
        if cuts := check.cuts():
            self._rewind_after(cuts, reader)
        elif self._ends.were_replaced:
            self._ends.note_replaced()
            self._begin_again()
            reader.rewind()
        if self._is_new:
            self._table.clear()  # it is read from the beginning
            self._is_new = False
        least = {
            TopicPartition(self._topic, number): end
            for number, end in highest(self._ends.lowest(), end_marks).items()
        }
        for batches in reader.read(ends, acknowledged=least):
            with self._table.transaction():
                for records in batches.values():
                    for record in records:
                        self._apply(record)
        for partition in reader.partitions:
            if (position := reader.position(partition)) is not None:
                self._ends.note_read(partition.partition, LogEnd(position, kafka.position_epoch(partition)))
        self._leaders = leaders

    def _apply(self, record: ConsumedRecord) -> None:
        try:
            if is_mark(record.key) or is_pace(record.key):
                self._apply_key_state(record)
                return
            place, waiting = read(record.key, record.value, record.headers)
        except (KeyError, ValueError) as e:
            logger.error("%s-%d at %d is left alone: %r", record.topic, record.partition, record.offset, e)
            return
        if place.group != self._group:
            return
        if waiting is not None:
            self.ended.pop(place, None)
            self.appeared[place] = waiting.key, record.partition
            self._table.put(waiting, record.partition)
            return
        self.appeared.pop(place, None)
        self._repair.note_done(place)
        if (key := self._table.remove(place)) is not None:
            self.ended[place] = key

    def _apply_key_state(self, record: ConsumedRecord) -> None:
        assert record.key is not None
        group, number, lane = read_key_state(record.key, record.headers)
        if group != self._group:
            return
        if lane is None or record.value is None:
            self._table.remove_key_state(number, record.key)
        else:
            (decode_mark if is_mark(record.key) else decode_pace)(record.value, None)  # or it is left alone
            self._table.put_key_state(number, record.key, lane, record.value, record.partition)

    # The entries

    def waiting(self, partition: int) -> list[tuple[bytes, SequenceNumber, int, int]]:
        """The waiting entries of a partition of the queue, in order, as (key, sequence number, due time,
        partition of the lanes topic).
        """
        return self._table.of_partition(partition)

    def uniques(self, partition: int) -> dict[SequenceNumber, Unique]:
        """The rules of the waiting entries of a partition of the queue that are unique messages."""
        return self._table.uniques(partition)

    def marks(self, partition: int) -> dict[bytes, Mark]:
        """The unique marks of a partition of the queue, by lane."""
        return self._table.marks(partition)

    def paces(self, partition: int) -> dict[bytes, Pace]:
        """The paces of the keys with a rate in a partition of the queue, by lane."""
        return self._table.paces(partition)

    def get(self, place: Place) -> Waiting | None:
        """The message that waits at ``place``, or None."""
        return self._table.get(place)

    def places(self) -> list[tuple[Place, int]]:
        """The places of all waiting entries, each with its partition of the lanes topic."""
        return self._table.places()

    def count(self) -> int:
        return self._table.count()

    def longest(self, limit: int) -> list[tuple[bytes, int, int]]:
        """The keys with the most waiting entries, each with their number and the least due time."""
        return self._table.longest(limit)

    def close(self) -> None:
        self._disconnect()
        self._table.close()

    # The log

    @property
    def was_read(self) -> bool:
        """Whether the topic was read once. It sends no request."""
        return self._ends.was_read

    @property
    def is_there(self) -> bool:
        """Whether the topic exists."""
        return self._connected() is not None

    def may_have_changed(self) -> bool:
        """Whether there is a reason to catch up: an election, or an unread record of this process.

        It sends no request.
        """
        reader = self._reader
        if reader is None or not reader.partitions:
            return self._ends.was_read  # the connection was lost after a read
        return (
            self._ends.has_unread
            or self._ends.were_replaced
            or reader.kafka.topic_id(self._topic) != self._topic_id
            or any(reader.kafka.leader_epoch(p) != self._leaders.get(p) for p in reader.partitions)
        )

    def log_ends(self) -> dict[int, LogEnd]:
        """The ends up to which the topic was read or written, by which a later truncation is noticed."""
        return self._ends.log_ends()

    def are_cut(self, ends: Sequence[Mapping[int, LogEnd]]) -> list[bool]:
        """Whether the topic was truncated below one of its ends, for each set of earlier ends."""
        reader = self._connected()
        if reader is None:
            return [bool(end) for end in ends]
        return are_cut(reader.kafka, reader.partitions, ends, timeout_ms=REQUEST_TIMEOUT_MS)

    def _write_end_marks(self) -> dict[int, int]:
        """Write an end mark into each partition, which only the true leader accepts; return the offsets after
        them.
        """
        ends: dict[int, int] = {}

        def note(partition: int, offset: int | None, leader_epoch: int = -1) -> None:
            if offset is not None:
                ends[partition] = offset + 1

        try:
            reader = self._connected()
            if reader is None:
                return {}
            numbers = partitions_now(reader.kafka, self._topic, timeout_ms=REQUEST_TIMEOUT_MS)
        except KafkaError:
            self._disconnect()
            raise
        numbers |= {partition.partition for partition in reader.partitions}
        end_marks = [end_mark(self._topic, self._group, number, watch=note) for number in sorted(numbers)]
        publish_all(self._publisher, end_marks, f"The end of the topic {self._topic!r} cannot be determined")
        return ends

    def _is_another_log(self, known: Mapping[int, int], end_marks: Mapping[int, int]) -> bool:
        """Whether the topic was recreated or truncated. If so, the next read begins at its beginning.

        Parameters:
          known: The lowest possible ends before the end marks were written.
          end_marks: The offsets after the end marks.
        """
        lost = {
            partition: known[partition]
            for partition, end in end_marks.items()
            if end <= known.get(partition, 0)
        }
        if not lost:
            return False
        logger.error(
            "The topic %r was recreated or has lost its tail: its partitions had at least %s records and "
            "have %s now. It is read again.",
            self._topic, lost, {partition: end_marks[partition] for partition in lost},
        )  # fmt: skip
        self._begin_again()
        self._ends.restart(end_marks)
        self._disconnect()
        return True

    def _rewind_after(self, cuts: Mapping[TopicPartition, int], reader: TopicReader) -> None:
        """Read the topic again from its beginning after partitions of it were truncated."""
        logger.error(
            "The topic %r lost its tail, as it does when a replica without it is elected (an unclean "
            "election); it is read again.", self._topic,
        )  # fmt: skip
        self._ends.cut({partition.partition: cut for partition, cut in cuts.items()})
        self._begin_again()
        reader.rewind()

    def _begin_again(self) -> None:
        """Compare the following records with the entries that were known."""
        self._repair.begin()
        self.read_again = True

    # The connection

    def _connected(self) -> TopicReader | None:
        """The reader of the topic; None when the topic does not exist, or was never to be seen: the commits
        of a queue's workers tell then that something waits there.
        """
        if self._reader is None:
            self._reader = TopicReader(
                self._clients,
                self._topic,
                stall_timeout_s=STALL_TIMEOUT_S,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                auto_offset_reset="none",
                fetch_max_wait_ms=10,
            )
        if self._reader.partitions:
            return self._reader
        kafka = self._reader.kafka
        try:
            numbers = kafka.partitions_for_topic(self._topic)
        except TopicAuthorizationFailedError:
            if self._ends.was_read:
                raise  # the right was taken away
            return None
        if not numbers:
            return None
        topic_id = kafka.topic_id(self._topic)
        if topic_id != self._topic_id:
            self._topic_id = topic_id
            self._ends.forget_reads()
        self._reader.add(numbers)
        self._is_new = True
        return self._reader

    def _follow_partitions(self, reader: TopicReader, end_marks: Mapping[int, int], *, ask: bool) -> None:
        """Read added partitions, too."""
        present = {partition.partition for partition in reader.partitions}
        numbers = reader.kafka.partitions_for_topic(self._topic)
        if ask or not (self._ends.lowest().keys() | end_marks.keys()) <= numbers | present:
            numbers = partitions_now(reader.kafka, self._topic, timeout_ms=REQUEST_TIMEOUT_MS)
        reader.add(numbers - present)

    def _disconnect(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
