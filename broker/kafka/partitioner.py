"""Chooses the partitions of records without a key and without a partition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka.partitioner import DefaultPartitioner


class StickyBatchPartitioner(DefaultPartitioner):  # type: ignore[misc]
    """Puts the unkeyed records of one batch into one partition, and those of the next batch into another.

    Each partition of a batch costs a checksum and a response of its own.

    Parameters:
      current_batch: The number of the batch that the calling thread sends; None for a thread that sends its
        own records.
    """

    def __init__(self, current_batch: Callable[[], int | None]) -> None:
        super().__init__()
        self._current_batch = current_batch

    def partition(
        self,
        topic: str,
        key: bytes | None,
        serialized_key: bytes | None,
        value: bytes | None,
        serialized_value: bytes | None,
        cluster: Any,
    ) -> int:
        batch = self._current_batch()
        if batch is None or serialized_key is not None:
            return int(super().partition(topic, key, serialized_key, value, serialized_value, cluster))
        candidates = sorted(
            cluster.available_partitions_for_topic(topic) or cluster.partitions_for_topic(topic)
        )
        return int(candidates[batch % len(candidates)])
