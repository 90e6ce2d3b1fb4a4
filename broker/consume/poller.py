"""Polls the records of one consumer's partitions into their buffers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..deliveries.assigned_partition import AssignedPartition
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.protocol import ConsumerClient
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.unreadable_batches import UnreadableBatchSkipper
from ..offsets.committed_state import report_removed
from ..offsets.truncation import ALL_OF_IT
from ..process import clock
from .queue_rights import QueueRights
from .takeover import Takeover

#: The bytes of each partition that are read ahead of dispatch. A partition with a full buffer is paused, so
#: that a long backlog neither starves the others nor needs more memory.
MAX_BUFFERED_BYTES = 256 * 1024


class Poller:
    """Fills the buffers of assigned partitions. The consumer's thread calls all methods.

    Attributes:
      polled_at_s: The time of the last poll (``clock.monotonic_s()``).
    """

    def __init__(
        self,
        topic: str,
        kafka: ConsumerClient,
        skipper: UnreadableBatchSkipper,
        in_flight: InFlightDeliveries,
        assigned_partitions: Mapping[TopicPartition, AssignedPartition],
        takeover: Takeover,
        rights: QueueRights,
    ) -> None:
        self.polled_at_s = -math.inf
        self._topic = topic
        self._kafka = kafka
        self._skipper = skipper
        self._in_flight = in_flight
        self._assigned_partitions = assigned_partitions
        self._takeover = takeover
        self._rights = rights

    def poll(self, timeout_s: float) -> None:
        """Wait for records until ``timeout_s`` have passed, and buffer them."""
        records = self._skipper.poll(int(timeout_s * 1000))
        self.polled_at_s = clock.monotonic_s()
        for partition, polled in records.items():
            assigned = self._assigned_partitions.get(partition)
            if assigned is not None:
                self._take_in(assigned, polled)
        topic_id = self._kafka.topic_id(self._topic)
        for assigned in list(self._assigned_partitions.values()):
            self._follow_position(assigned)
            if assigned.topic_id != topic_id is not None:
                self._takeover.take_over_again(assigned, ALL_OF_IT)
        self._pause_full_partitions()

    def _take_in(self, assigned: AssignedPartition, polled: Sequence[ConsumedRecord]) -> None:
        self._rights.note_granted()
        first = polled[0]
        if first.offset < assigned.expected:
            # kafka-python went back to the cut of the log, or to the beginning of a new log.
            self._takeover.take_over_again(assigned, first.offset, first.leader_epoch)
        elif (foreign := assigned.first_foreign(polled)) is not None:
            self._takeover.take_over_again(assigned, foreign.offset, foreign.leader_epoch)
        else:
            if first.offset > assigned.expected:
                self._look_for_removed(assigned)
            with self._in_flight.lock:
                assigned.take_in(polled)

    def _follow_position(self, assigned: AssignedPartition) -> None:
        """Note that no records are left below the consumer's position.

        kafka-python does not return control records, nor aborted, compacted or expired ones.
        """
        if assigned.buffer or (self._kafka.highwater(assigned.partition) or 0) <= assigned.expected:
            return  # the usual case, without the call of position()
        position = self._kafka.position(assigned.partition, timeout_ms=0)
        if position is not None and position > assigned.expected:
            leader_epoch = self._kafka.position_epoch(assigned.partition)
            self._look_for_removed(assigned)
            with self._in_flight.lock:
                assigned.skip_to(position, leader_epoch)

    def _look_for_removed(self, assigned: AssignedPartition) -> None:
        """Report records that retention removed, unlike a gap from compaction or a control record."""
        log_start = self._kafka.beginning_offsets([assigned.partition])[assigned.partition]
        with self._in_flight.lock:
            tracker, expected = assigned.tracker, assigned.expected
            removed = max(0, log_start - max(expected, tracker.highest + 1)) + tracker.left_behind(
                expected, log_start
            )
        if removed:
            report_removed(assigned.partition, removed, log_start)

    def _pause_full_partitions(self) -> None:
        with self._in_flight.lock:
            for assigned in self._assigned_partitions.values():
                if not assigned.paused and assigned.buffered_bytes >= MAX_BUFFERED_BYTES:
                    self._kafka.pause(assigned.partition)
                    assigned.paused = True
                elif assigned.paused and assigned.buffered_bytes < MAX_BUFFERED_BYTES // 2:
                    self._kafka.resume(assigned.partition)
                    assigned.paused = False
