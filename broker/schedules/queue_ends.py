"""The logs of queues, as the owner of the schedules reads them: their ends, and the occurrences in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError, KafkaTimeoutError
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import is_denial, reading
from ..kafka.topic_reader import TopicReader
from ..kafka.topics import Topics
from ..kafka.types import TopicPartition
from .record_format import OCCURRENCE

REQUEST_TIMEOUT_MS = 5_000
STALL_TIMEOUT_S = 10.0


class QueueEnds:
    """Reads the ends of the queues to which schedules send. Use it from one thread.

    Every method raises KafkaUnavailable, NotAuthorized or KafkaError without an answer.
    """

    def __init__(self, clients: Clients, topics: Topics) -> None:
        self._clients = clients
        self._topics = topics
        self._kafka: ConsumerClient | None = None

    def close(self) -> None:
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            kafka.close(autocommit=False, timeout_ms=0)

    def read(self, queue_topic: str) -> tuple[int, ...]:
        """The offset after the last record of each partition of a queue. A missing topic is created.

        Raises:
          TopicMisconfigured: When the settings of the topic lose messages.
        """
        self._topics.ensure([queue_topic], right="WRITE")
        if self._kafka is None:
            self._kafka = self._clients.consumer(
                auto_offset_reset="earliest", request_timeout_ms=REQUEST_TIMEOUT_MS
            )
        try:
            numbers = self._kafka.known_partitions(queue_topic)
            numbers = numbers or self._kafka.partitions_for_topic(queue_topic)
            if not numbers:
                raise KafkaTimeoutError(f"the partitions of {queue_topic!r} are not known yet")
            partitions = [TopicPartition(queue_topic, number) for number in sorted(numbers)]
            ends = self._kafka.end_offsets(partitions, timeout_ms=REQUEST_TIMEOUT_MS)
        except KafkaError as e:
            if is_denial(e):
                doing = f"The end of the queue {queue_topic!r} could not be read"
                raise self._clients.translated(e, doing, reading(queue_topic)) from e
            raise
        return tuple(ends[partition] for partition in partitions)

    def find(self, ends: Mapping[str, Sequence[int]], message_ids: Collection[str]) -> set[str]:
        """Those of the occurrences that were written to the queues after their ``ends``.

        Records that Kafka has deleted meanwhile are not found.
        """
        found: set[str] = set()
        for topic, offsets in ends.items():
            found |= self._clients.ask(
                lambda topic=topic, offsets=offsets: self._find(topic, offsets, message_ids),  # type: ignore[misc]
                f"The occurrences of schedules in {topic!r} could not be read",
                rights=reading(topic),
            )
        return found

    def _find(self, topic: str, offsets: Sequence[int], message_ids: Collection[str]) -> set[str]:
        wanted = {message_id.encode() for message_id in message_ids}
        reader = TopicReader(
            self._clients,
            topic,
            stall_timeout_s=STALL_TIMEOUT_S,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            # Of a log that was deleted up to a later offset, or is another one now, the rest is read.
            auto_offset_reset="earliest",
        )
        with closing(reader):
            if not reader.kafka.existing_topics([topic], REQUEST_TIMEOUT_MS):
                return set()
            reader.add(reader.kafka.partitions_for_topic(topic))
            for partition in reader.partitions:
                if partition.partition < len(offsets):
                    reader.kafka.seek(partition, offsets[partition.partition])
            return {
                value.decode()
                for polled in reader.read(reader.ends())
                for records in polled.values()
                for record in records
                for name, value in record.headers
                if name == OCCURRENCE and value in wanted
            }
