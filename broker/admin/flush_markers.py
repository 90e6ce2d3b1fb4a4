"""Flush markers: the offsets up to which the partitions of a queue were flushed.

A marker is an offset that is committed for ``{group_id}.{namespace}{queue}.flushed``, a consumer group
without members. Any process may commit there, and no records or offsets of workers change.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from ..kafka.clients import Clients
from ..kafka.types import OffsetAndMetadata, TopicPartition
from ..offsets.committed_state import read_committed

REQUEST_TIMEOUT_MS = 5_000


class FlushMarkers:
    """The flush markers of one consumer group.

    Raises (every method): KafkaError and KafkaUnavailable when Kafka does not answer.
    """

    def __init__(self, clients: Clients, group: str) -> None:
        self._clients = clients
        self._group = f"{group}.flushed"

    def write(self, ends: Mapping[TopicPartition, int]) -> None:
        with closing(self._clients.consumer(group_id=self._group)) as kafka:
            kafka.assign(list(ends))
            offsets = {partition: OffsetAndMetadata(end, "", -1) for partition, end in ends.items()}
            kafka.commit(offsets, timeout_ms=REQUEST_TIMEOUT_MS)

    def read(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after the last flushed record of each partition; 0 for a partition without a marker."""
        with closing(self._clients.consumer(group_id=self._group)) as kafka:
            noted = read_committed(kafka, partitions, timeout_ms=REQUEST_TIMEOUT_MS)
        return {partition: noted[partition].offset if partition in noted else 0 for partition in partitions}
