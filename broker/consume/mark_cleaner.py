"""Drops unique marks of which every record below was read and committed, and paces whose time has come."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dramatiq.errors import BrokerConnectionError

from ..deliveries.assigned_partition import AssignedPartition
from ..kafka.errors import KafkaError
from ..kafka.types import TopicPartition
from ..process import clock
from .config import ConsumerParts

logger = logging.getLogger(__name__)

#: The interval in which marks are dropped.
CLEAN_INTERVAL_S = 2.0


class MarkCleaner:
    """Drops the marks of one consumer's partitions. The consumer's thread calls all methods.

    Attributes:
      next_step_s: The time (``clock.monotonic_s()``) at which a step is due.
    """

    def __init__(
        self,
        parts: ConsumerParts,
        lanes_topic: str,
        assigned_partitions: Mapping[TopicPartition, AssignedPartition],
    ) -> None:
        self._parts = parts
        self._lanes_topic = lanes_topic
        self._assigned_partitions = assigned_partitions
        self.next_step_s = 0.0

    def step(self, now_s: float) -> None:
        """Drop the marks that no unread record needs."""
        self.next_step_s = now_s + CLEAN_INTERVAL_S
        for assigned in list(self._assigned_partitions.values()):
            if not assigned.lanes.marks and not assigned.lanes.paces:
                continue
            try:
                self._end_spans(assigned)
                self._drop(assigned)
                self._drop_paces(assigned)
            except (KafkaError, BrokerConnectionError) as e:
                logger.info("The unique marks of %s are not dropped yet: %r", assigned.partition, e)

    def _end_spans(self, assigned: AssignedPartition) -> None:
        """Note the end of the log after the spans of marks that are over: no record beyond it is covered."""
        now_ms = clock.wall_ms()
        with self._parts.in_flight.lock:
            over = [mark for mark in assigned.lanes.marks.values() if 0 < mark.until_ms <= now_ms]
            over = [mark for mark in over if not mark.span_is_over]
        if over:
            end = self._parts.queue_end.read(assigned.partition)
            for mark in over:
                mark.drop_from = max(end, mark.until_offset)
                mark.span_is_over = True

    def _drop(self, assigned: AssignedPartition) -> None:
        with self._parts.in_flight.lock:
            committed = assigned.committed_offset
            passed = {
                key: mark
                for key, mark in assigned.lanes.marks.items()
                if (mark.span_is_over or not mark.until_ms)
                and committed >= max(mark.drop_from, mark.until_offset)
            }
        if passed:
            self._parts.unique_marks.drop(self._lanes_topic, assigned, passed)

    def _drop_paces(self, assigned: AssignedPartition) -> None:
        now_ms = clock.wall_ms()
        with self._parts.in_flight.lock:
            passed = {key: pace for key, pace in assigned.lanes.paces.items() if pace.next_ms <= now_ms}
        if passed:
            self._parts.key_paces.drop(self._lanes_topic, assigned, passed)
