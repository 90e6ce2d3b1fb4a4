"""Searches the log of a queue for messages, and says where each is. The log has no index: it is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dramatiq.errors import DecodeError
from dramatiq.message import Message

from ..kafka.clients import Clients
from ..kafka.rights import reading
from ..kafka.topic_reader import TopicReader
from ..kafka.topics import Topics
from ..kafka.types import ConsumedRecord, TopicPartition
from .backlog import Backlog
from .backlogs import PartitionBacklog

STALL_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_MS = 10_000
#: The interval of calls of ``on_progress``, in records.
PROGRESS_RECORDS = 1_000


class RecordState(StrEnum):
    """The state of a record by the last commit of its partition's owner.

    WAITING: it was not delivered to a worker.
    INCOMPLETE: a worker has it: the message runs, or its outbox is held.
    COMPLETED: no further run follows from it.
    """

    WAITING = "waiting"
    INCOMPLETE = "incomplete"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record of a queue's topic.

    Attributes:
      state: Its state. Commits are up to a commit interval old.
      queue_name: The queue.
      topic, partition, offset: The place of the record.
      written_ms: Its timestamp, in milliseconds since 1970.
      message: The message.
    """

    state: RecordState
    queue_name: str
    topic: str
    partition: int
    offset: int
    written_ms: int
    message: Message[Any]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search.

    Attributes:
      records: The found records, by their timestamps.
      scanned: The number of records that were read.
      total: The number of records in the searched part of the log.
    """

    records: tuple[FoundRecord, ...]
    scanned: int
    total: int

    @property
    def is_complete(self) -> bool:
        """Whether the whole part was read."""
        return self.scanned >= self.total


class MessageSearch:
    """Searches the logs of queues.

    Parameters:
      group_id: The application's group, whose commits tell the states.
    """

    def __init__(self, clients: Clients, topics: Topics, *, group_id: str) -> None:
        self._clients = clients
        self._topics = topics
        self._group_id = group_id

    def find(
        self,
        queue_name: str,
        *,
        message_id: str | None,
        where: Callable[[Message[Any]], bool] | None,
        completed: bool,
        since_ms: int | None,
        until_ms: int | None,
        limit: int,
        scan_limit: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> SearchResult:
        """Search one queue; see ``KafkaBroker.find``. A queue without a topic has no records."""
        topic, group = self._topics.queue(queue_name), self._topics.group(self._group_id, queue_name)
        needle = None if message_id is None else message_id.encode()

        def is_wanted(record: ConsumedRecord) -> Message[Any] | None:
            # A look at the bytes, as decoding each record takes ten times as long.
            if record.value is None or (needle is not None and needle not in record.value):
                return None
            message = _message_of(record.value)
            if message is None or (message_id is not None and message.message_id != message_id):
                return None
            return message if where is None or where(message) else None

        def search() -> SearchResult:
            with Backlog(self._clients, topic, group) as backlog:
                partitions = backlog.read()
            scan = _Scan(queue_name, topic, partitions, completed, limit, scan_limit)
            with closing(
                TopicReader(
                    self._clients,
                    topic,
                    stall_timeout_s=STALL_TIMEOUT_S,
                    request_timeout_ms=REQUEST_TIMEOUT_MS,
                    fetch_max_wait_ms=10,
                )
            ) as reader:
                scan.narrow(reader, since_ms, until_ms)
                return scan.run(reader, is_wanted, on_progress)

        return self._clients.ask(
            search, f"The records of {topic!r} could not be read", rights=reading(topic, group=group)
        )


class _Scan:
    """One reading of a queue's log."""

    def __init__(
        self,
        queue_name: str,
        topic: str,
        partitions: dict[TopicPartition, PartitionBacklog],
        completed: bool,
        limit: int,
        scan_limit: int,
    ) -> None:
        self._queue_name = queue_name
        self._topic = topic
        self._partitions = partitions
        self._limit = limit
        self._scan_limit = scan_limit
        self._starts = {p: _start(backlog, completed) for p, backlog in partitions.items()}
        self._ends = {p: b.end for p, b in partitions.items() if self._starts[p] < b.end}
        self._completed = completed

    def narrow(self, reader: TopicReader, since_ms: int | None, until_ms: int | None) -> None:
        """Leave out the records that were appended before ``since_ms``, and after ``until_ms``."""
        for at_ms, is_start in ((since_ms, True), (None if until_ms is None else until_ms + 1, False)):
            if at_ms is None or not self._ends:
                continue
            first = reader.kafka.offsets_for_times(
                dict.fromkeys(self._ends, at_ms), timeout_ms=REQUEST_TIMEOUT_MS
            )
            for partition, end in self._ends.items():
                record = first.get(partition)
                offset = end if record is None else record.offset
                if is_start:
                    self._starts[partition] = min(end, max(self._starts[partition], offset))
                else:
                    self._ends[partition] = min(end, offset)
            self._ends = {p: end for p, end in self._ends.items() if self._starts[p] < end}

    def run(
        self,
        reader: TopicReader,
        is_wanted: Callable[[ConsumedRecord], Message[Any] | None],
        on_progress: Callable[[int, int], None] | None,
    ) -> SearchResult:
        total = sum(end - self._starts[p] for p, end in self._ends.items())
        found: list[FoundRecord] = []
        if not self._ends:
            return SearchResult((), 0, 0)
        reader.add(p.partition for p in self._ends)
        for partition in self._ends:
            reader.kafka.seek(partition, self._starts[partition])
        positions = dict(self._starts)
        scanned = said = 0
        for polled in reader.read(self._ends):
            for partition, records in polled.items():
                for record in records:
                    if record.offset < self._ends[partition] and (message := is_wanted(record)) is not None:
                        self._take(found, partition, record, message)
                positions[partition] = min(self._ends[partition], records[-1].offset + 1)
            scanned = sum(positions[p] - self._starts[p] for p in self._ends)
            if on_progress is not None and scanned - said >= PROGRESS_RECORDS:
                said = scanned
                on_progress(scanned, total)
            if scanned >= self._scan_limit or len(found) >= self._limit:
                break
        else:
            scanned = total
        found.sort(key=lambda record: record.written_ms)
        return SearchResult(tuple(found[: self._limit]), scanned, total)

    def _take(
        self,
        found: list[FoundRecord],
        partition: TopicPartition,
        record: ConsumedRecord,
        message: Message[Any],
    ) -> None:
        state = _state_of(self._partitions[partition], record.offset)
        if state is RecordState.COMPLETED and not self._completed:
            return
        found.append(
            FoundRecord(
                state,
                self._queue_name,
                self._topic,
                partition.partition,
                record.offset,
                record.timestamp,
                message,
            )
        )


def _start(backlog: PartitionBacklog, completed: bool) -> int:
    """The first offset to read: that of the first record that is not complete, or of the log."""
    next_offset = 0 if backlog.state is None or completed else backlog.state.next_offset
    return min(backlog.end, max(backlog.beginning, next_offset))


def _state_of(backlog: PartitionBacklog, offset: int) -> RecordState:
    state = backlog.state
    if state is None or offset >= max(state.highest + 1, state.next_offset):
        return RecordState.WAITING
    return RecordState.COMPLETED if state.is_complete(offset) else RecordState.INCOMPLETE


def _message_of(value: bytes) -> Message[Any] | None:
    try:
        message: Message[Any] = Message.decode(value)
    except DecodeError:
        return None
    return message if isinstance(message.message_id, str) and isinstance(message.actor_name, str) else None
