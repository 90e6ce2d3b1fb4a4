"""Reads a topic's records up to its present end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from ..errors import KafkaUnavailable
from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import reading
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.watermarks import high_watermarks
from ..process import clock

#: A read fails when it makes no progress for this time before the end of the topic.
STALLED_S = 30.0
_POLL_MS = 500


class DeadLetterTopic:
    """A topic's records from its beginning, or from given offsets, to its end when this object is created.

    A context manager, since it holds a connection. The connection belongs to no consumer group. Every method
    raises KafkaUnavailable when Kafka does not answer, and NotAuthorized when this client may not read the
    topic.

    Parameters:
      topic: The name of an existing topic.
    """

    def __init__(self, clients: Clients, topic: str) -> None:
        self._clients = clients
        self._topic = topic
        self._doing = f"The topic {topic!r} could not be read"
        self._kafka, self._beginnings, ends = clients.ask(self._open, self._doing, rights=reading(topic))
        self.ends: dict[int, int] = {p.partition: ends[p] for p in sorted(ends)}

    def _open(self) -> tuple[ConsumerClient, dict[TopicPartition, int], dict[TopicPartition, int]]:
        kafka = self._clients.consumer(fetch_max_wait_ms=50)
        try:
            partitions = [TopicPartition(self._topic, p) for p in kafka.partitions_for_topic(self._topic)]
            ends = high_watermarks(kafka, partitions)
            return kafka, kafka.beginning_offsets(partitions), ends
        except BaseException:
            kafka.close(autocommit=False)
            raise

    def __enter__(self) -> DeadLetterTopic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kafka.close(autocommit=False)

    def records(self, partition: int, start: int = 0) -> Iterator[ConsumedRecord]:
        """The records of one partition, from ``start`` or from the first remaining record.

        A further call invalidates this iterator.
        """
        with self._translated():
            where, end = TopicPartition(self._topic, partition), self.ends[partition]
            self._kafka.assign([where])
            self._kafka.seek(where, max(start, self._beginnings[where]))
            progress_s, position = clock.monotonic_s(), self._kafka.position(where) or 0
            while position < end:
                batch = self._kafka.poll(timeout_ms=_POLL_MS).get(where, [])
                for record in batch:
                    if record.offset >= end:
                        return
                    yield record
                # The last offsets may have no record: a transaction marker, for example.
                if (reached := self._kafka.position(where) or 0) > position:
                    progress_s, position = clock.monotonic_s(), reached
                elif clock.monotonic_s() > progress_s + STALLED_S:
                    raise KafkaUnavailable(
                        f"No record was read from {where} at {position} of {end} for {STALLED_S} s"
                    )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as e:
            raise self._clients.translated(e, self._doing, reading(self._topic)) from e

    def records_since(self, starts: Mapping[int, int]) -> Iterator[ConsumedRecord]:
        """The records of all partitions, each from its offset in ``starts``, or else from its beginning."""
        for partition in self.ends:
            yield from self.records(partition, starts.get(partition, 0))
