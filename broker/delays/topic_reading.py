"""Reading the delayed topic: the settings of its consumers, and the entries that records hold."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ..kafka.types import ConsumedRecord
from .record_format import Entry, UnreadableRecord, read

logger = logging.getLogger(__name__)

#: The settings of a consumer of the delayed topic.
SETTINGS: dict[str, Any] = {
    # The index sets every position. A position out of range means that the log is not the one of the index.
    "auto_offset_reset": "none",
    # Each read is one transaction of an index; due messages wait for it in a rebuild.
    "max_poll_records": 1_000,
    # kafka-python's memory: the bytes of each partition, and of all partitions in one response.
    "max_partition_fetch_bytes": 512 * 1024,
    "fetch_max_bytes": 4 * 1024 * 1024,
}
REQUEST_TIMEOUT_MS = 10_000


def entries_of(records: Iterable[ConsumedRecord]) -> list[Entry]:
    """Decode records of the delayed topic. An unreadable record is logged, and stays in the topic."""
    entries: list[Entry] = []
    for record in records:
        try:
            entries.append(read(record.key, record.value, record.headers))
        except UnreadableRecord as e:
            logger.error("%s-%d: the record at %d is skipped: %s",
                         record.topic, record.partition, record.offset, e)  # fmt: skip
    return entries


def split(records: list[ConsumedRecord], at: int) -> list[tuple[list[ConsumedRecord], int]]:
    """Split records at an offset, if they reach beyond it.

    Returns:
      The parts, each with the offset after it.
    """
    next_offset = records[-1].offset + 1
    if not 0 < at < next_offset:
        return [(records, next_offset)]
    return [
        ([r for r in records if r.offset < at], at),
        ([r for r in records if r.offset >= at], next_offset),
    ]
