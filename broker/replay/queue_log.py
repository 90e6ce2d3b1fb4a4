"""Reads a queue's log as its consumers see it: without the records of aborted transactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..dead_letters.topic_log import DeadLetterTopic
from ..kafka.clients import Clients
from ..kafka.errors import KafkaError, KafkaTimeoutError
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import reading
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.watermarks import high_watermarks
from ..process import clock

REQUEST_TIMEOUT_MS = 10_000
POLL_MS = 100
#: The time without progress after which the last stable offset is asked for: a transaction may be open.
ASK_AFTER_S = 2.0
#: The time without progress after which a read fails.
STALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record of the log.

    Attributes:
      is_committed: Whether consumers get it. A record at or behind an open transaction waits for its end.
    """

    record: ConsumedRecord
    is_committed: bool


class QueueLog:
    """The log of a queue, up to its ends when this object is created.

    A context manager, since it holds a connection. Every method raises KafkaUnavailable when Kafka does not
    answer, and NotAuthorized when this client may not read the topic.

    Parameters:
      topic: The name of an existing topic.

    Attributes:
      beginnings: The offset of the first remaining record of each partition.
      ends: The offset after the last record of each partition.
    """

    def __init__(self, clients: Clients, topic: str) -> None:
        self._clients = clients
        self._topic = topic
        self._doing = f"The topic {topic!r} could not be read"
        self._kafka, self.beginnings, self.ends = clients.ask(self._open, self._doing, rights=reading(topic))

    def _open(self) -> tuple[ConsumerClient, dict[int, int], dict[int, int]]:
        kafka = self._clients.consumer(
            isolation_level="read_committed",
            # Retention may remove a record before it is read.
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        try:
            partitions = [TopicPartition(self._topic, p) for p in kafka.partitions_for_topic(self._topic)]
            ends = high_watermarks(kafka, partitions)
            beginnings = kafka.beginning_offsets(partitions, timeout_ms=REQUEST_TIMEOUT_MS)
            return kafka, _by_number(beginnings), _by_number(ends)
        except BaseException:
            kafka.close(autocommit=False)
            raise

    def __enter__(self) -> QueueLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._kafka.close(autocommit=False)

    def starts_of(self, since_ms: int | None) -> dict[int, int]:
        """The offset of each partition below which all records are older than ``since_ms``."""
        if since_ms is None:
            return dict(self.beginnings)
        wanted = {TopicPartition(self._topic, partition): max(0, since_ms) for partition in self.ends}
        found = self._clients.ask(
            lambda: self._kafka.offsets_for_times(wanted, timeout_ms=REQUEST_TIMEOUT_MS),
            self._doing,
            rights=reading(self._topic),
        )
        return {
            partition.partition: self.ends[partition.partition] if at is None else at.offset
            for partition, at in found.items()
        }

    def records(self, starts: Mapping[int, int]) -> Iterator[ReadRecord]:
        """The records of all partitions, each from its offset in ``starts``. One call at a time."""
        for number, end in self.ends.items():
            start = max(starts[number], self.beginnings[number])
            if start < end:
                position = start
                try:
                    for record in self._committed(TopicPartition(self._topic, number), start, end):
                        position = record.offset + 1
                        yield ReadRecord(record, is_committed=True)
                    position = max(position, self._position(number))
                except KafkaError as e:
                    raise self._clients.translated(e, self._doing, reading(self._topic)) from e
                if position < end:
                    yield from self._behind_open_transaction(number, position, end)

    def _committed(self, partition: TopicPartition, start: int, end: int) -> Iterator[ConsumedRecord]:
        """The records of one partition up to its end, or up to an open transaction."""
        kafka = self._kafka
        kafka.assign([partition])
        kafka.seek(partition, start)
        position, progress_s = start, clock.monotonic_s()
        while position < end:
            for record in kafka.poll(timeout_ms=POLL_MS).get(partition, []):
                if record.offset >= end:
                    return
                yield record
            before, position = position, self._position(partition.partition)
            silent_s = clock.monotonic_s() - progress_s
            if position != before:
                progress_s = clock.monotonic_s()
            elif silent_s > STALL_TIMEOUT_S:
                raise KafkaTimeoutError(
                    f"Kafka sent nothing more of {partition} for {STALL_TIMEOUT_S} s: it is read up to "
                    f"{position} of {end}"
                )
            elif silent_s > ASK_AFTER_S and self._is_at_stable_end(partition, position):
                return

    def _is_at_stable_end(self, partition: TopicPartition, position: int) -> bool:
        # Kafka answers a reader of committed records with the last stable offset.
        return self._kafka.end_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition] <= position

    def _position(self, number: int) -> int:
        partition = TopicPartition(self._topic, number)
        position = self._kafka.position(partition, timeout_ms=REQUEST_TIMEOUT_MS)
        if position is None:
            raise KafkaTimeoutError(f"Kafka did not say where the log of {partition} begins")
        return position

    def _behind_open_transaction(self, number: int, start: int, end: int) -> Iterator[ReadRecord]:
        with DeadLetterTopic(self._clients, self._topic) as log:
            for record in log.records(number, start):
                if record.offset >= end:
                    return
                yield ReadRecord(record, is_committed=False)


def _by_number(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {partition.partition: offsets[partition] for partition in sorted(offsets)}
