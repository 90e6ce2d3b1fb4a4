"""Applies a flush to the records that workers have already read.

A flush writes a marker with an end offset, and then deletes the records of a queue's topic up to it. The
owner of a partition polls the start of its log. When the start moves beyond a record that it holds, the owner
reads the marker: retention deletes records, too, and records that were read before still run. The owner drops
the flushed records that have not started. Its next commit has the offset up to which it has done so.
"""

from __future__ import annotations

import logging

from dramatiq.errors import BrokerConnectionError

from ..admin.flush_markers import FlushMarkers
from ..deliveries.assigned_partition import AssignedPartition
from ..kafka.errors import KafkaError
from ..kafka.protocol import ConsumerClient, PendingOffsets
from ..kafka.rights import is_denial
from ..kafka.types import TopicPartition
from .dispatcher import Dispatcher
from .queue_rights import QueueRights

logger = logging.getLogger(__name__)

#: The interval in which the start of a log is polled while records of it are held.
POLL_INTERVAL_S = 0.5
POLL_TIMEOUT_MS = 5_000
#: The same while the right to read the markers is missing.
DENIED_INTERVAL_S = 2.0


class FlushWatcher:
    """Drops the records that another process flushed. The consumer's thread calls all methods; it waits only
    for the markers.
    """

    def __init__(
        self, kafka: ConsumerClient, dispatcher: Dispatcher, markers: FlushMarkers, rights: QueueRights
    ) -> None:
        self._kafka = kafka
        self._dispatcher = dispatcher
        self._markers = markers
        self._rights = rights
        self._next_check_s = 0.0
        self._asked: PendingOffsets | None = None

    def step(self, now_s: float) -> None:
        """Take a step, if one is due."""
        if now_s < self._next_check_s:
            return
        if self._asked is None:
            assigned_partitions = self._dispatcher.assigned_partitions.values()
            if held := [a.partition for a in assigned_partitions if a.buffer or len(a.tracker)]:
                self._asked = self._kafka.ask_beginnings(held, POLL_TIMEOUT_MS)
            else:
                self._next_check_s = now_s + POLL_INTERVAL_S
        elif self._asked.is_done:
            answer, self._asked = self._asked, None
            self._next_check_s = now_s + POLL_INTERVAL_S
            if answer.succeeded():
                self._compare({partition: found.offset for partition, found in answer.value.items()}, now_s)

    def _compare(self, starts: dict[TopicPartition, int], now_s: float) -> None:
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
            if isinstance(e, KafkaError) and is_denial(e):
                self._rights.note_flush_denial(e)
                self._next_check_s = now_s + DENIED_INTERVAL_S
            logger.info("The flush markers of %s cannot be read yet: %r", starts, e)
            return
        self._rights.note_flush_granted()
        for assigned in moved:
            assigned.log_start = starts[assigned.partition]
            marker = flushed.get(assigned.partition)
            self._drop(assigned, 0 if marker is None else min(marker.end, assigned.log_start))

    def _drop(self, assigned: AssignedPartition, flushed: int) -> None:
        if assigned.revoked:
            return
        if not assigned.holds_below(flushed):
            logger.info(
                "%s begins at offset %d now, by retention: records that were read below it still run.",
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
            "%s was flushed up to offset %d: %d record(s) that were read are dropped, %d continue to run.",
            assigned.partition, flushed, dropped, running,
        )  # fmt: skip
