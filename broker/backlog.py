"""What is left in a queue, read from Kafka alone, so that any process may ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from .clients import Clients
from .errors import KafkaUnavailable
from .restore import read_metadata
from .watermarks import high_watermarks


class Backlog:
    """Counts and drops what waits in a queue's topic.

    Parameters:
      topic: The queue's topic. It has to exist.
      group_id: The queue's consumer group.

    Use it as a context manager: it holds a connection. Every method raises KafkaUnavailable when Kafka does
    not answer.
    """

    def __init__(self, clients: Clients, topic: str, group_id: str) -> None:
        self._clients = clients
        self._topic = topic
        self._kafka: KafkaConsumer = clients.consumer(group_id=group_id, fetch_max_wait_ms=10)
        self._group_id = group_id

    def __enter__(self) -> Backlog:
        return self

    def __exit__(self, *exc: object) -> None:
        self._kafka.close(autocommit=False)

    def count(self) -> int:
        """How many records are incomplete: not read yet, outstanding, or held.

        Taken from the commits, it lags behind by their interval: never too low for what was sent before.
        """
        with _translated(self._topic):
            left = 0
            for partition, (beginning, end) in self._ranges().items():
                committed = self._kafka.committed(partition, metadata=True)
                left += _incomplete(partition, committed, beginning, end)
            return left

    def drop(self) -> None:
        """Delete every record that is in the topic now."""
        with _translated(self._topic):
            ends = {
                partition: end for partition, (beginning, end) in self._ranges().items() if end > beginning
            }
            if ends:
                with self._clients.admin() as admin:
                    self._delete(admin, ends)

    def _delete(self, admin: KafkaAdminClient, ends: dict[TopicPartition, int]) -> None:
        admin.delete_records(ends)

    def _ranges(self) -> dict[TopicPartition, tuple[int, int]]:
        partitions = [
            TopicPartition(self._topic, p) for p in sorted(self._kafka.partitions_for_topic(self._topic))
        ]
        beginning = self._kafka.beginning_offsets(partitions)
        end = high_watermarks(self._kafka, partitions)
        return {partition: (beginning[partition], end[partition]) for partition in partitions}


def _incomplete(
    partition: TopicPartition, committed: OffsetAndMetadata | None, beginning: int, end: int
) -> int:
    if committed is None:
        return end - beginning
    state = read_metadata(partition, committed)
    if state.next_offset > end:
        return end - beginning  # the topic was made anew
    return max(0, end - max(state.highest + 1, beginning)) + sum(
        offset >= beginning for offset in state.incomplete
    )


@contextmanager
def _translated(topic: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as e:
        raise KafkaUnavailable(f"The backlog of {topic!r} could not be read or changed: {e!r}") from e
