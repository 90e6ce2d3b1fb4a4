"""A view of the delayed messages for any process. It reads Kafka alone, and needs no worker."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from dramatiq.errors import BrokerConnectionError
from dramatiq.message import Message

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError, UnknownTopicOrPartitionError
from ..kafka.metadata import partitions_now
from ..kafka.rights import reading
from ..kafka.topic_reader import TopicReader
from ..kafka.topics import Topics
from ..kafka.types import Headers, TopicPartition
from ..offsets.committed_lanes import LogEnd
from ..offsets.truncation_check import TruncationCheck
from ..process import clock
from ..process.forks import check_for_fork, reset_on_fork
from .delayed_topic import DelayedTopic, look_up
from .index import DelayIndex
from .record_format import CancelDecision, Outcome, strongest
from .topic_reading import REQUEST_TIMEOUT_MS, SETTINGS, entries_of

#: A read fails when it makes no progress for this time before the end of the topic.
STALL_TIMEOUT_S = 10.0
#: The interval of the check that the topic was not recreated.
LOOK_UP_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class DelayedMessage:
    """A message that waits.

    Attributes:
      due: The due time.
      encoded: The message as it will be produced to its queue.
    """

    message_id: str
    queue_name: str
    due: datetime
    encoded: bytes

    def decode(self) -> Message[object]:
        """Decode the message. Raises Dramatiq's DecodeError when it is not a message."""
        return Message.decode(self.encoded)


@dataclass(frozen=True, slots=True)
class Pending:
    """The messages that waited for a queue at one moment.

    Attributes:
      count: Their number.
      next_due: The earliest due time, which may be past; None when no message waits.
      messages: The first of them by due time.
      log_ends: The end offsets of the delayed topic at that moment. If a later call returns the same ends, no
        message was delayed, forwarded, cancelled or flushed in between.
    """

    count: int
    next_due: datetime | None
    messages: list[DelayedMessage]
    log_ends: tuple[int, ...]

    @property
    def position(self) -> tuple[int, ...]:
        """``log_ends`` by its name of version 0.1."""
        return self.log_ends


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A request to cancel a message, and its outcome. Kafka has both for a week after the decision.

    Attributes:
      outcome: CANCELLED or TOO_LATE; None while no worker has decided.
      by, reason: Who asked for it, and why; empty when the client was of an earlier version.
      requested_at: The time of the request by the client's clock; None when unknown.
      decided_at: The time of the decision by the worker's clock; None without one.
      queue_name: The queue of the message; None when unknown.
    """

    outcome: Outcome | None
    by: str
    reason: str
    requested_at: datetime | None
    decided_at: datetime | None
    queue_name: str | None


class DelayView:
    """Reads all partitions of the delayed topic into temporary indexes.

    The first call reads the whole topic; later calls read the new records. The view makes no decisions: a
    message counts as waiting until its forwarder has written its tombstone. Thread-safe.

    Raises (every method): KafkaUnavailable when Kafka does not answer.
    """

    def __init__(self, clients: Clients, topics: Topics) -> None:
        self._clients = clients
        self._topics = topics
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the connection and the indexes to the parent. The next call connects and reads the topic."""
        self._lock = threading.Lock()
        self._reader: TopicReader | None = None
        self._topic: DelayedTopic | None = None
        self._looked_up_s = 0.0
        self._indexes: dict[TopicPartition, DelayIndex] = {}

    def pending(self, queues: Iterable[str], *, limit: int) -> dict[str, Pending]:
        """The messages of some queues at one moment."""
        check_for_fork()
        with self._lock:
            self._catch_up()
            return {queue: self._pending(queue, limit) for queue in queues}

    def _pending(self, queue: str, limit: int) -> Pending:
        indexes = list(self._indexes.values())
        due_ms = [due for index in indexes if (due := index.next_due_ms(queue)) is not None]
        first = [delay for index in indexes if limit for delay in index.waiting(queue, limit=limit)]
        first.sort(key=lambda delay: (delay.due_ms, delay.id))
        return Pending(
            count=sum(index.count(queue) for index in indexes),
            next_due=_time(min(due_ms)) if due_ms else None,
            messages=[
                DelayedMessage(delay.message_id, delay.queue, _time(delay.due_ms), delay.value)
                for delay in first[:limit]
            ],
            log_ends=tuple(index.next_offset for index in indexes),
        )

    def waiting(self, queue: str) -> list[tuple[str, Headers]]:
        check_for_fork()
        with self._lock:
            self._catch_up()
            return [
                (delay.message_id, delay.headers)
                for index in self._indexes.values()
                for delay in index.waiting(queue, limit=-1)
            ]

    def delays_of(self, message_ids: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
        """The waiting delays of messages: their partitions and ids. A message without one is left out."""
        check_for_fork()
        with self._lock:
            self._catch_up()
            found: dict[str, list[tuple[int, str]]] = {}
            for message_id in message_ids:
                delays = [
                    (partition.partition, delay_id)
                    for partition, index in self._indexes.items()
                    for delay_id in index.delays_of(message_id)
                ]
                if delays:
                    found[message_id] = delays
            return found

    def was_forwarded(self, message_id: str) -> bool:
        """Whether the message is among the last that were forwarded, by what was read so far."""
        with self._lock:
            return any(index.was_forwarded(message_id) for index in self._indexes.values())

    def outcome(self, message_id: str) -> Outcome | None:
        """The decision about cancelling a message; None when there was no request, or no decision yet."""
        check_for_fork()
        with self._lock:
            self._catch_up()
            decided = (index.outcome(message_id) for index in self._indexes.values())
            return strongest(outcome for outcome in decided if outcome is not None)

    def cancels_of(self, message_id: str) -> list[Cancellation]:
        """The requests to cancel a message, by their time."""
        check_for_fork()
        with self._lock:
            self._catch_up()
            found = [pair for index in self._indexes.values() for pair in index.cancels_of(message_id)]
        return [
            _cancellation(decision, is_decided=is_decided)
            for decision, is_decided in sorted(found, key=lambda pair: pair[0].decided_ms)
            # The partitions that do not have the message are asked, too.
            if not is_decided or decision.outcome is not Outcome.UNKNOWN
        ]

    def close(self) -> None:
        with self._lock:
            self._reset()

    def _catch_up(self) -> None:
        """Read up to the present end of the topic.

        The indexes survive a failed attempt that is repeated, since a long topic takes long to read.
        """
        name = self._topics.delayed
        try:
            self._clients.ask(
                self._catch_up_once, f"The topic {name!r} could not be read", rights=reading(name)
            )
        except BrokerConnectionError:
            self._reset()
            raise

    def _catch_up_once(self) -> None:
        try:
            reader = self._connected()
            if self._has_lost_its_tail(reader):
                self._reset()
                reader = self._connected()
            for batches in reader.read(reader.ends()):
                now_ms = clock.wall_ms()
                for partition, records in batches.items():
                    self._indexes[partition].apply(
                        entries_of(records),
                        records[-1].offset + 1,
                        now_ms=now_ms,
                        leader_epoch=records[-1].leader_epoch,
                    )
        except BaseException as e:
            # A topic that was deleted is looked up, and created again, by the next attempt.
            is_gone = isinstance(e, UnknownTopicOrPartitionError)
            if is_gone or not (isinstance(e, KafkaError) and e.retriable):
                self._reset()
            raise

    def _has_lost_its_tail(self, reader: TopicReader) -> bool:
        """Whether the log lost records that were read. It may have grown again since."""
        ends = {p: LogEnd(index.next_offset, index.leader_epoch) for p, index in self._indexes.items()}
        return bool(TruncationCheck(reader.kafka, ends, timeout_ms=REQUEST_TIMEOUT_MS).cuts())

    def _connected(self) -> TopicReader:
        if self._reader is not None and clock.monotonic_s() - self._looked_up_s < LOOK_UP_INTERVAL_S:
            now = partitions_now(self._reader.kafka, self._topics.delayed, timeout_ms=REQUEST_TIMEOUT_MS)
            # A larger number means added partitions, and none means that the topic is gone.
            if 0 < len(now) <= len(self._indexes):
                return self._reader
        topic = look_up(self._clients, self._topics)
        self._looked_up_s = clock.monotonic_s()
        if self._reader is None or topic != self._topic:
            self._reset()
            self._topic, self._reader = topic, self._reader_of(topic)
            self._indexes = {partition: DelayIndex() for partition in self._reader.partitions}
        return self._reader

    def _reader_of(self, topic: DelayedTopic) -> TopicReader:
        reader = TopicReader(
            self._clients,
            topic.name,
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **SETTINGS,
        )
        reader.add(range(topic.partition_count))
        return reader

    def _reset(self) -> None:
        if self._reader is not None:
            self._reader.close()
        for index in self._indexes.values():
            index.close()
        self._reader, self._indexes = None, {}


def _cancellation(decision: CancelDecision, *, is_decided: bool) -> Cancellation:
    note = decision.note
    return Cancellation(
        outcome=decision.outcome if is_decided else None,
        by=note.by,
        reason=note.reason,
        requested_at=None if note.requested_ms is None else _time(note.requested_ms),
        decided_at=_time(decision.decided_ms) if is_decided else None,
        queue_name=note.queue or None,
    )


def _time(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
