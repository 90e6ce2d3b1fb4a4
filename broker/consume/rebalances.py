"""Reacts to rebalances of a queue's consumer group. kafka-python calls it on its I/O thread."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection

from ..deliveries.assigned_partition import Capacity
from ..deliveries.in_flight import InFlightDeliveries
from ..kafka.protocol import RebalanceListener
from ..kafka.types import TopicPartition
from ..reaper.registrar import MembershipSlot
from ..reports.consumption import QueueCounters
from .committer import Committer
from .dispatcher import Dispatcher
from .takeover import Takeover

logger = logging.getLogger(__name__)


class Rebalances:
    """The reactions of one consumer to rebalances. They only change state and start a commit: the I/O thread
    must not wait for Kafka.
    """

    def __init__(
        self,
        queue_name: str,
        in_flight: InFlightDeliveries,
        dispatcher: Dispatcher,
        committer: Committer,
        takeover: Takeover,
        capacity: Capacity,
        slot: MembershipSlot,
        counters: Callable[[], QueueCounters] = QueueCounters,
    ) -> None:
        self._counters = counters
        self._slot = slot
        self._queue_name = queue_name
        self._in_flight = in_flight
        self._dispatcher = dispatcher
        self._committer = committer
        self._takeover = takeover
        self._capacity = capacity

    def listener(self) -> RebalanceListener:
        return RebalanceListener(
            on_assigned=self._on_assigned,
            on_revoked=self._on_revoked,
            on_lost=self._on_lost,
            is_busy=self._runs,
            on_membership=self._slot.join,
        )

    def _on_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._counters().assigned += len(partitions)
        # Reading the committed state needs round trips, for which the I/O thread must not wait.
        self._takeover.expect(partitions)
        self._capacity.changed.set()

    def _runs(self, partitions: Collection[TopicPartition]) -> bool:
        """Whether a message is still running; the next owner would run it again concurrently.

        The partitions are marked as leaving, so no further message of them begins.
        """
        owned = self._dispatcher.assigned_partitions
        with self._in_flight.lock:
            leaving = [owned[partition] for partition in partitions if partition in owned]
            for assigned in leaving:
                assigned.leaving = True
            return any(assigned.runs() for assigned in leaving)

    def _on_revoked(self, partitions: Collection[TopicPartition]) -> Awaitable[object] | None:
        self._counters().revoked += len(partitions)
        leaving = self._takeover.take_away(partitions)
        return self._committer.hand_over(leaving) if leaving else None

    def _on_lost(self, partitions: Collection[TopicPartition]) -> None:
        self._counters().lost += len(partitions)
        logger.warning(
            "This worker was removed from the group of %r and joins again: messages that it has started from "
            "%s run twice if another worker gets them meanwhile.",
            self._queue_name, sorted(partitions),
        )  # fmt: skip
        self._takeover.take_away(partitions)
