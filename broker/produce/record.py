"""A record that is to be produced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol
from zlib import crc32

from ..kafka.record_size import batch_bytes, fits


class Watch(Protocol):
    """Receives the partition and the offset of a record."""

    def __call__(self, partition: int, offset: int | None, leader_epoch: int = -1) -> None:
        """Called on the publishing thread.

        Parameters:
          partition: The chosen partition.
          offset: The offset; None for an unacknowledged record, which may exist all the same.
          leader_epoch: The leader epoch of the record; -1 when it is not certain.
        """


@dataclass(frozen=True, slots=True)
class Record:
    """One record to be produced.

    Attributes:
      topic: The topic, which is created when missing.
      value: The body; None for a tombstone, which needs a key.
      key: Records of one key go to one partition unless ``partition`` is given.
      headers: Pairs of a name and its bytes.
      partition: An explicit partition, or None to leave the choice to the producer.
      placement: Determines the partition instead of the key: records of one placement are in one partition,
        as long as the topic's partition count stays.
      destination: The later record of the same message in another topic. A record whose destination is too
        large for its topic is refused here.
      reserved_bytes: Further bytes that the topic must accept, for a later version of the record.
      watch: Called with the partition and the offset of the record; see ``Watch``.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    partition: int | None = None
    placement: bytes | None = None
    destination: Record | None = None
    reserved_bytes: int = 0
    watch: Watch | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """The bytes that the topic must accept."""
        return batch_bytes(self.key, self.value, self.headers) + self.reserved_bytes

    @property
    def steps(self) -> Iterator[Record]:
        """The record and its destinations."""
        step: Record | None = self
        while step is not None:
            yield step
            step = step.destination

    def fits(self, limit: int) -> bool:
        """Whether a topic with that limit accepts the record."""
        return fits(self.key, self.value, self.headers, limit - self.reserved_bytes)


def partition_of(placement: bytes, partition_count: int) -> int:
    """The partition of the records of a placement."""
    return crc32(placement) % partition_count
