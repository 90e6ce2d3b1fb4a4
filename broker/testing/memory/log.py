"""The log of one partition: records by offset, leader epochs, retention and compaction."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from ...kafka.record_size import batch_bytes
from ...kafka.types import EpochEnd, Headers


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record as it was read; see ``ConsumedRecord``."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def serialized_value_size(self) -> int:
        return -1 if self.value is None else len(self.value)

    @property
    def size(self) -> int:
        """The bytes that the record takes in a batch of its own."""
        return batch_bytes(self.key, self.value, self.headers)


@dataclass
class MemoryLog:
    """The log of one partition.

    Attributes:
      records: The records in the order of their offsets, which may have gaps.
      start: The offset below which the records are deleted.
      end: The offset of the next record.
      epochs: The first offset of each leader epoch, in the order of the epochs.
    """

    topic: str
    partition: int
    records: list[MemoryRecord] = field(default_factory=list)
    start: int = 0
    end: int = 0
    epochs: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    @property
    def leader_epoch(self) -> int:
        return self.epochs[-1][0]

    def append(
        self, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int
    ) -> MemoryRecord:
        record = MemoryRecord(
            self.topic, self.partition, self.end, self.leader_epoch, timestamp_ms, key, value, tuple(headers)
        )
        self.records.append(record)
        self.end += 1
        return record

    def skip(self, count: int = 1) -> None:
        """Append offsets that no consumer gets a record for, as the end of a transaction does."""
        self.end += count

    def read(self, offset: int, *, max_bytes: int, max_records: int) -> tuple[list[MemoryRecord], int]:
        """The records from ``offset`` on, at least one where there is one, and the position after them."""
        found: list[MemoryRecord] = []
        size = 0
        index = self._index_of(offset)
        while index < len(self.records) and len(found) < max_records:
            record = self.records[index]
            size += record.size
            if found and size > max_bytes:
                return found, record.offset
            found.append(record)
            index += 1
        if index < len(self.records):
            return found, self.records[index].offset
        return found, self.end

    def first_since(self, timestamp_ms: int) -> MemoryRecord | None:
        """The first record that is not older than a time."""
        return next((record for record in self.records if record.timestamp >= timestamp_ms), None)

    def end_of_epoch(self, epoch: int) -> EpochEnd:
        """The answer to OffsetForLeaderEpoch (KIP-320)."""
        if epoch > self.leader_epoch:
            return EpochEnd(-1, -1, self.leader_epoch)
        index = bisect.bisect_right([known for known, _ in self.epochs], epoch)
        if index == 0:
            return EpochEnd(-1, self.start, self.leader_epoch)
        end = self.epochs[index][1] if index < len(self.epochs) else self.end
        return EpochEnd(self.epochs[index - 1][0], end, self.leader_epoch)

    def elect(self) -> None:
        """Begin a leader epoch."""
        epoch = self.leader_epoch + 1
        if self.epochs[-1][1] == self.end:
            self.epochs.pop()
        self.epochs.append((epoch, self.end))

    def truncate(self, end: int) -> None:
        """Lose the records from ``end`` on, and begin a leader epoch: an unclean election."""
        epoch = self.leader_epoch
        del self.records[self._index_of(end) :]
        self.end = min(self.end, end)
        self.start = min(self.start, self.end)
        self.epochs = [(known, first) for known, first in self.epochs if first < self.end]
        self.epochs.append((epoch + 1, self.end))

    def delete_below(self, offset: int) -> None:
        """Delete the records below ``offset``."""
        self.start = max(self.start, min(offset, self.end))
        del self.records[: self._index_of(self.start)]

    def delete_older(self, oldest_ms: int) -> None:
        """Delete the records before the first one that is not older than ``oldest_ms``."""
        kept = self.first_since(oldest_ms)
        self.delete_below(self.end if kept is None else kept.offset)

    def compact(self, tombstones_since_ms: int) -> None:
        """Keep the last record of each key, and tombstones only when they are not older than a time."""
        last = {record.key: record.offset for record in self.records}
        self.records = [
            record
            for record in self.records
            if last[record.key] == record.offset
            and (record.value is not None or record.timestamp >= tombstones_since_ms)
        ]

    def _index_of(self, offset: int) -> int:
        return bisect.bisect_left(self.records, offset, key=lambda record: record.offset)
