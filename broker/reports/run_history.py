"""Reads the history of all runs: the answer to ``broker.history()``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..kafka.clients import Clients
from ..kafka.rights import reading
from ..kafka.topic_reader import TopicReader
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.watermarks import high_watermarks
from .history_event import HistoryEvent
from .history_format import Batch, UnreadableBatch, decode_batch

logger = logging.getLogger(__name__)

STALL_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """The wanted events. An event must match all conditions that are given.

    Attributes:
      message_id, actor, error_type: Of the event.
      since_ms: The earliest time of an event, in milliseconds since 1970.
      limit: The number of events to return: the latest of them.
      scan_limit: The number of events to read.
    """

    message_id: str | None
    actor: str | None
    error_type: str | None
    since_ms: int
    limit: int
    scan_limit: int

    def select(self, batch: Batch) -> Iterator[HistoryEvent]:
        """The wanted events of a batch."""
        return batch.select(
            message_id=self.message_id,
            actor=self.actor,
            error_type=self.error_type,
            since_ms=self.since_ms,
        )

    def unrecorded(self, batch: Batch) -> dict[str, int]:
        """The events of this query that were not recorded: successes, of which an error's type names none."""
        if self.error_type is not None:
            return {}
        return {name: n for name, n in batch.unrecorded.items() if self.actor in (None, name)}


class RunHistory(Iterator[HistoryEvent]):
    """The events that a query has found, by their time. An iterator, which is read once.

    Attributes:
      scanned: The number of events that were read.
      unrecorded: The successful runs of each actor that match the query and have no event: only so many a
        second are recorded.
      dropped: The number of events that were lost, because Kafka did not take them in time.
      left_out: The number of events that were found, and are earlier than the ``limit`` latest ones.
      missing: A sentence for each reason why events may be missing; empty when the answer is complete.
    """

    def __init__(self, found: _Found, missing: tuple[str, ...]) -> None:
        self._events = iter(found.events)
        self.scanned = found.scanned
        self.unrecorded = dict(found.unrecorded)
        self.dropped = found.dropped
        self.left_out = found.left_out
        self.missing = missing

    @property
    def is_complete(self) -> bool:
        """Whether no event is missing."""
        return not self.missing

    def __next__(self) -> HistoryEvent:
        return next(self._events)


@dataclass(slots=True)
class _Found:
    """The result of a scan.

    Attributes:
      left_out: The number of older events beyond the limit.
      begins_ms: The time of the first record of the log, when that is later than wanted.
      emptied: The number of partitions whose records Kafka has deleted without exception. Nothing tells the
        times of those.
    """

    events: list[HistoryEvent] = field(default_factory=list)
    scanned: int = 0
    unrecorded: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    left_out: int = 0
    unreadable: int = 0
    is_cut_off: bool = False
    has_topic: bool = True
    begins_ms: int | None = None
    emptied: int = 0
    seen: set[HistoryEvent] = field(default_factory=set)


class HistoryReader:
    """Reads the history of a namespace.

    Parameters:
      topic: The topic of the history. It need not exist.
    """

    def __init__(self, clients: Clients, topic: str) -> None:
        self._clients = clients
        self._topic = topic

    def read(self, query: HistoryQuery) -> RunHistory:
        """Scan the history.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the history.
        """
        doing = f"The history in {self._topic!r} could not be read"
        found = self._clients.ask(lambda: self._scan(query), doing, rights=reading(self._topic))
        found.events.sort(key=lambda event: event.at_ms)
        return RunHistory(found, tuple(_missing(found, query)))

    def _scan(self, query: HistoryQuery) -> _Found:
        found = _Found()
        for record in self._records(query, found):
            try:
                batch = decode_batch(record.value or b"")
                self._take(batch, query, found)
            except UnreadableBatch as e:
                found.unreadable += 1
                logger.debug("A record of the topic %r is skipped: %s", self._topic, e)
            if found.scanned >= query.scan_limit:
                found.is_cut_off = True
                break
        return found

    def _take(self, batch: Batch, query: HistoryQuery, found: _Found) -> None:
        for event in query.select(batch):
            if event not in found.seen:  # a write without an answer is repeated
                found.seen.add(event)
                found.events.append(event)
        if len(found.events) > 2 * query.limit:
            _keep_latest(found, query.limit)
        found.scanned += batch.count
        found.unrecorded.update(query.unrecorded(batch))
        found.dropped += batch.dropped

    def _records(self, query: HistoryQuery, found: _Found) -> Iterator[ConsumedRecord]:
        reader = TopicReader(
            self._clients,
            self._topic,
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=10,
        )
        with closing(reader):
            kafka = reader.kafka
            reader.add(kafka.partitions_for_topic(self._topic))
            found.has_topic = bool(reader.partitions)
            if not found.has_topic:
                return
            ends = high_watermarks(kafka, reader.partitions)
            beginnings = kafka.beginning_offsets(reader.partitions, timeout_ms=REQUEST_TIMEOUT_MS)
            wanted = dict.fromkeys(reader.partitions, query.since_ms)
            starts = kafka.offsets_for_times(wanted, timeout_ms=REQUEST_TIMEOUT_MS)
            for partition, end in ends.items():
                start = starts.get(partition)
                kafka.seek(partition, end if start is None else start.offset)
                if start is not None and start.offset == beginnings[partition] > 0:
                    found.begins_ms = max(found.begins_ms or 0, start.timestamp)
                if beginnings[partition] == end > 0:
                    found.emptied += 1
            for batches in reader.read(ends):
                yield from _below(batches, ends)


def _below(
    batches: dict[TopicPartition, list[ConsumedRecord]], ends: dict[TopicPartition, int]
) -> Iterator[ConsumedRecord]:
    for partition, records in batches.items():
        yield from (record for record in records if record.offset < ends[partition])


def _keep_latest(found: _Found, limit: int) -> None:
    found.events.sort(key=lambda event: event.at_ms)
    found.left_out += len(found.events) - limit
    del found.events[:-limit]
    found.seen = set(found.events)


def _missing(found: _Found, query: HistoryQuery) -> Iterator[str]:
    if len(found.events) > query.limit:
        _keep_latest(found, query.limit)
    if not found.has_topic:
        yield "no worker has written a history"
    if found.begins_ms is not None:
        yield f"the history begins at {_time(found.begins_ms)}: Kafka has deleted what was before"
    if found.emptied:
        yield f"Kafka has deleted all records of {found.emptied:,} partitions, of unknown times"
    if found.is_cut_off:
        yield f"the search ended after {found.scanned:,} events; a later since= reads fewer"
    if found.left_out:
        yield f"{found.left_out:,} earlier events are left out; limit={query.limit:,}"
    if count := sum(found.unrecorded.values()):
        yield f"{count:,} successful runs were not recorded; the workers' reports count them"
    if found.dropped:
        yield f"{found.dropped:,} events were lost, because Kafka did not take them in time"
    if found.unreadable:
        yield f"{found.unreadable:,} records could not be read by this version"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
