"""Lets a flush reach what workers have read already.

A flush deletes the records of a queue's topic, and before that it notes up to where. The owner of a partition
looks now and then where its log begins. When that is beyond something it holds, it reads the note: retention
deletes records, too, and what was read of those is still run. What was flushed and has not begun is dropped,
and the next commit says up to where the owner has done so.
"""

from __future__ import annotations

import logging

from dramatiq.errors import BrokerConnectionError

from ..admin.flush_markers import FlushMarkers
from ..deliveries.assigned_partition import AssignedPartition
from ..kafka.errors import KafkaError
from ..kafka.protocol import ConsumerClient, PendingOffsets
from ..kafka.types import TopicPartition
from .dispatcher import Dispatcher

logger = logging.getLogger(__name__)

#: How often it is looked where a log begins, while something of it is held.
POLL_INTERVAL_S = 0.5
POLL_TIMEOUT_MS = 5_000


class FlushWatcher:
    """Drops what was flushed from elsewhere. Driven by the consumer's thread, which waits for no answer but
    the note's.
    """

    def __init__(self, kafka: ConsumerClient, dispatcher: Dispatcher, markers: FlushMarkers) -> None:
        self._kafka = kafka
        self._dispatcher = dispatcher
        self._markers = markers
        self._next_look_s = 0.0
        self._asked: PendingOffsets | None = None

    def look(self, now_s: float) -> None:
        """Take a step; nearly always there is none to take."""
        if now_s < self._next_look_s:
            return
        if self._asked is None:
            assigned_partitions = self._dispatcher.assigned_partitions.values()
            if held := [a.partition for a in assigned_partitions if a.buffer or len(a.tracker)]:
                self._asked = self._kafka.ask_beginnings(held, POLL_TIMEOUT_MS)
            else:
                self._next_look_s = now_s + POLL_INTERVAL_S
        elif self._asked.is_done:
            answer, self._asked = self._asked, None
            self._next_look_s = now_s + POLL_INTERVAL_S
            if answer.succeeded():
                self._compare({partition: found.offset for partition, found in answer.value.items()})

    def _compare(self, starts: dict[TopicPartition, int]) -> None:
        moved: list[AssignedPartition] = []
        for partition, start in starts.items():
            assigned = self._dispatcher.assigned_partitions.get(partition)
            if assigned is None or start <= assigned.log_start:
                continue
            if assigned.holds_below(start):
                moved.append(assigned)
            else:
                assigned.log_start = start
        if not moved:
            return
        try:
            flushed = self._markers.read([assigned.partition for assigned in moved])
        except (KafkaError, BrokerConnectionError) as e:
            logger.info("It cannot be seen yet whether %s was flushed: %r", starts, e)
            return
        for assigned in moved:
            assigned.log_start = starts[assigned.partition]
            self._drop(assigned, min(flushed[assigned.partition], assigned.log_start))

    def _drop(self, assigned: AssignedPartition, flushed: int) -> None:
        if assigned.revoked:
            return
        if not assigned.holds_below(flushed):
            logger.info(
                "%s begins at offset %d now, by retention: what was read from below it is still run.",
                assigned.partition, assigned.log_start,
            )  # fmt: skip
            return
        is_behind = assigned.expected < flushed
        dropped = self._dispatcher.drop_below(assigned, flushed)
        if is_behind:
            try:
                self._kafka.seek(assigned.partition, flushed)
            except ValueError:
                return  # the partition was revoked meanwhile
        running = sum(offset < flushed for offset in assigned.in_flight)
        logger.info(
            "%s was flushed up to offset %d: %d record(s) that were read are dropped, %d run on.",
            assigned.partition, flushed, dropped, running,
        )  # fmt: skip
