"""Reads a topic's records up to its end at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.rights import reading
from ..kafka.topic_reader import TopicReader
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.watermarks import high_watermarks

#: The time without progress, before the end of the topic, after which a read fails.
STALL_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class LogBounds:
    """The bounds of a topic's log. While they are equal, so are its records.

    Attributes:
      topic_id: The id of the topic; None when Kafka does not report one. A recreated topic has another.
      partitions: The number, the first offset and the end of each partition.
    """

    topic_id: str | None = None
    partitions: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, topic_id: object, bounds: Mapping[int, tuple[int, int]]) -> LogBounds:
        """Those of the partitions, by number."""
        partitions = tuple((number, *bounds[number]) for number in sorted(bounds))
        return cls(None if topic_id is None else str(topic_id), partitions)

    @property
    def is_empty(self) -> bool:
        """Whether the log has no record."""
        return all(begin >= end for _, begin, end in self.partitions)


class TopicLogs:
    """One client for the records of several topics. A context manager; it connects at the first use."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._reader: TopicReader | None = None

    def __enter__(self) -> TopicLogs:
        return self

    def __exit__(self, *error: object) -> None:
        self.forget()

    def forget(self) -> None:
        """Close the client; the next use constructs another one."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def reader(self) -> TopicReader:
        if self._reader is None:
            self._reader = new_reader(self._clients, "")
        return self._reader


def new_reader(clients: Clients, topic: str) -> TopicReader:
    return TopicReader(
        clients,
        topic,
        stall_timeout_s=STALL_TIMEOUT_S,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        # Retention may remove a record before it is read.
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )


class DeadLetterTopic:
    """A topic's records from its beginning, or from given offsets, to its end when this object is created.

    A context manager, since it holds a connection. The connection belongs to no consumer group. Every method
    raises KafkaUnavailable when Kafka does not answer, and NotAuthorized when this client may not read the
    topic.

    Parameters:
      topic: The name of an existing topic.
      bounds: Its bounds, when they are known. Nothing is asked before a record is read then.
      logs: The client that reads it, with ``bounds``, beside other topics: one at a time.

    Attributes:
      beginnings, ends: The bounds of each partition's log when this object was created.
      topic_id: The id of the topic; None when Kafka does not report one.
    """

    def __init__(
        self, clients: Clients, topic: str, *, bounds: LogBounds | None = None, logs: TopicLogs | None = None
    ) -> None:
        self._clients = clients
        self._topic = topic
        self._doing = f"The topic {topic!r} could not be read"
        self._open_logs = ExitStack()
        if logs is None:
            logs = self._open_logs.enter_context(TopicLogs(clients))
        self._logs = logs
        try:
            self.bounds = bounds or clients.ask(self._look, self._doing, rights=reading(topic))
        except BaseException:
            self._open_logs.close()
            raise
        self.topic_id = self.bounds.topic_id
        self.beginnings: dict[int, int] = {number: begin for number, begin, _ in self.bounds.partitions}
        self.ends: dict[int, int] = {number: end for number, _, end in self.bounds.partitions}

    def _look(self) -> LogBounds:
        try:
            kafka = self._logs.reader().kafka
            partitions = [TopicPartition(self._topic, p) for p in kafka.partitions_for_topic(self._topic)]
            ends, beginnings = high_watermarks(kafka, partitions), kafka.beginning_offsets(partitions)
        except BaseException:
            self._logs.forget()
            raise
        found = {p.partition: (beginnings[p], ends[p]) for p in partitions}
        return LogBounds.of(kafka.topic_id(self._topic), found)

    def __enter__(self) -> DeadLetterTopic:
        return self

    def __exit__(self, *error: object) -> None:
        self._open_logs.close()

    def records(self, partition: int, start: int = 0) -> Iterator[ConsumedRecord]:
        """The records of one partition, from ``start`` or from the first remaining record.

        A further call invalidates this iterator.
        """
        where, end = TopicPartition(self._topic, partition), self.ends[partition]
        start = max(start, self.beginnings[partition])
        if start >= end:
            return
        try:
            reader = self._logs.reader()
            reader.kafka.assign([where])
            reader.kafka.seek(where, start)
            for batches in reader.read({where: end}):
                for record in batches.get(where, []):
                    if record.offset >= end:
                        return
                    yield record
        except KafkaError as e:
            raise self._clients.translated(e, self._doing, reading(self._topic)) from e

    def records_since(self, starts: Mapping[int, int]) -> Iterator[ConsumedRecord]:
        """The records of all partitions, each from its offset in ``starts``, or else from its beginning."""
        for partition in self.ends:
            yield from self.records(partition, starts.get(partition, 0))
