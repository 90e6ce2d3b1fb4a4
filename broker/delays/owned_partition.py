"""One partition of the delayed topic that this process owns, and its index."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..kafka.protocol import ConsumerClient
from ..kafka.types import TopicPartition
from ..offsets.committed_state import name_of
from .index import DelayIndex
from .record_format import Entry

logger = logging.getLogger(__name__)

#: The interval in which the index of an idle partition notes that it is up to date.
COMPLETE_NOTE_INTERVAL_MS = 60_000


@dataclass(slots=True)
class OwnedPartition:
    """A partition and its index.

    Attributes:
      end: The end of the log at the assignment: the offset after a record that this process wrote then. A
        leader that was frozen would return an earlier one. The tombstone of a delay below ``end`` may be
        anywhere up to it, so no delay is forwarded until all records below it are read.
      confirmed: Whether the partition's leader has returned ``end`` with the first records. The embedded
        broker's answer to a request for end offsets is too low.
      ready: Whether all records below ``end`` are read.
    """

    partition: TopicPartition
    index: DelayIndex
    end: int
    confirmed: bool = False
    ready: bool = False

    def apply(
        self, kafka: ConsumerClient, entries: list[Entry], next_offset: int, leader_epoch: int, *, now_ms: int
    ) -> None:
        """Apply entries to the index; see ``DelayIndex.apply``."""
        highwater = kafka.highwater(self.partition)
        caught_up = self.ready and highwater is not None and next_offset >= highwater
        lost = self.index.apply(
            entries,
            next_offset,
            now_ms=now_ms,
            complete_ms=now_ms if caught_up else None,
            leader_epoch=leader_epoch,
        )
        if lost:
            logger.error("%s: %d delayed message(s) were lost with its tail.", name_of(self.partition), lost)
        self.index.shrink()

    def note_position(self, kafka: ConsumerClient, *, now_ms: int) -> None:
        """Move the index to the consumer's position, and note whether the partition is ready."""
        highwater = kafka.highwater(self.partition)
        if highwater is None:
            return
        # A time in the future was noted while the clock was ahead. It would make the index look younger.
        is_stale = not 0 <= now_ms - self.index.complete_ms <= COMPLETE_NOTE_INTERVAL_MS
        if self.ready and not is_stale and highwater <= self.index.next_offset:
            return  # the usual case; kafka-python's position() visits all partitions
        # The offset of the last record is not enough: compaction may have removed the records at the end.
        position = kafka.position(self.partition)
        if position is None:
            return
        if not self.confirmed:
            self.end, self.confirmed = max(self.end, highwater), True
        self.ready = self.ready or position >= self.end
        if position > self.index.next_offset or (self.ready and is_stale):
            self.apply(kafka, [], position, kafka.position_epoch(self.partition), now_ms=now_ms)
