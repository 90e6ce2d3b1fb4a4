"""Reads a topic's records up to its end at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    @property
    def is_empty(self) -> bool:
        """Whether the log has no record."""
        return all(begin >= end for _, begin, end in self.partitions)


class DeadLetterTopic:
    """A topic's records from its beginning, or from given offsets, to its end when this object is created.

    A context manager, since it holds a connection. The connection belongs to no consumer group. Every method
    raises KafkaUnavailable when Kafka does not answer, and NotAuthorized when this client may not read the
    topic.

    Parameters:
      topic: The name of an existing topic.

    Attributes:
      beginnings, ends: The bounds of each partition's log when this object was created.
      topic_id: The id of the topic; None when Kafka does not report one.
    """

    def __init__(self, clients: Clients, topic: str) -> None:
        self._clients = clients
        self._topic = topic
        self._doing = f"The topic {topic!r} could not be read"
        self._reader, beginnings, ends = clients.ask(self._open, self._doing, rights=reading(topic))
        self.beginnings: dict[int, int] = {p.partition: beginnings[p] for p in sorted(ends)}
        self.ends: dict[int, int] = {p.partition: ends[p] for p in sorted(ends)}
        self.topic_id = self._reader.kafka.topic_id(topic)

    @property
    def bounds(self) -> LogBounds:
        """The bounds of the log when this object was created."""
        topic_id = None if self.topic_id is None else str(self.topic_id)
        return LogBounds(topic_id, tuple((p, self.beginnings[p], end) for p, end in self.ends.items()))

    def _open(self) -> tuple[TopicReader, dict[TopicPartition, int], dict[TopicPartition, int]]:
        reader = TopicReader(
            self._clients,
            self._topic,
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            # Retention may remove a record before it is read.
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        try:
            kafka = reader.kafka
            partitions = [TopicPartition(self._topic, p) for p in kafka.partitions_for_topic(self._topic)]
            ends = high_watermarks(kafka, partitions)
            return reader, kafka.beginning_offsets(partitions), ends
        except BaseException:
            reader.close()
            raise

    def __enter__(self) -> DeadLetterTopic:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def records(self, partition: int, start: int = 0) -> Iterator[ConsumedRecord]:
        """The records of one partition, from ``start`` or from the first remaining record.

        A further call invalidates this iterator.
        """
        where, end = TopicPartition(self._topic, partition), self.ends[partition]
        kafka = self._reader.kafka
        try:
            kafka.assign([where])
            kafka.seek(where, max(start, self.beginnings[partition]))
            for batches in self._reader.read({where: end}):
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
