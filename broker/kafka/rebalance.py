"""What happens when Kafka gives this consumer a partition or takes one away."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.net.selector import KernelEvent
from kafka.structs import MemberState, TopicPartition

logger = logging.getLogger(__name__)

#: How long a partition that another member will get is kept at most, for what runs there and has a key.
#: Nothing more of it is dispatched meanwhile.
REVOKE_PATIENCE_S = 5.0
_LOOK_GAP_S = 0.02
#: How long the answer about a topic is waited for before all topics are asked for.
_METADATA_PATIENCE_S = 1.0
_METADATA_LOOK_GAP_S = 0.005


def is_joining(kafka: KafkaConsumer) -> bool:
    """Whether the consumer is on its way into its group's next generation."""
    return bool(kafka.group_metadata().state is not MemberState.STABLE)


def learn_partitions(kafka: KafkaConsumer, topic: str) -> None:
    """Wait until a consumer knows the partitions of a topic that it has subscribed to.

    It has asked for that one already, and has the answer after some 0.1 s. Asked about a topic it does not
    know, kafka-python asks for every topic of the cluster.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    deadline_s = time.monotonic() + _METADATA_PATIENCE_S
    while kafka._cluster.partitions_for_topic(topic) is None and time.monotonic() < deadline_s:
        time.sleep(_METADATA_LOOK_GAP_S)
    kafka.partitions_for_topic(topic)


def keep_join_outcomes(kafka: KafkaConsumer) -> None:
    """Let a join that ends between two polls count.

    kafka-python 3.0.12 drops its outcome, and the next poll joins once more: that rebalances all others, and
    on a busy machine a consumer can go on so for long without a partition. Here the next poll gets the
    outcome, unless this consumer has left the generation that it is of.

    And a join that has begun is seen through. kafka-python joins again as the group's leader when a topic has
    more partitions than at its last assignment, and makes the next assignment in the middle of the join: if a
    poll ends there, no later one finds a reason to join. The consumer then sends no heartbeats any more,
    commits nothing, does not notice when it is thrown out, and reads on beside the partitions' next owners.
    """
    coordinator: Any = kafka._coordinator
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async
    need_rejoin = coordinator.need_rejoin
    kept: tuple[object, bytes] | None = None

    async def join_unless_joined() -> bytes:
        nonlocal kept
        if kept is None or kept[0] is not coordinator._generation:
            assignment = await join()
            kept = (coordinator._generation, assignment)
        return kept[1]

    async def take_outcome(*args: Any) -> None:
        nonlocal kept
        kept = None
        await complete(*args)

    coordinator.need_rejoin = lambda: coordinator.rejoining or need_rejoin()
    coordinator._do_join_and_sync_async = join_unless_joined
    coordinator._on_join_complete_async = take_outcome


def poll_apart_from_heartbeats(kafka: KafkaConsumer) -> None:
    """Let poll() wait for records for as long as its caller says.

    kafka-python 3.0.12 sends heartbeats from its I/O thread, whether anybody polls or not, and all the same
    ends a wait for records when the next heartbeat is due (``KafkaConsumer._poll_once``, consumer/group.py).
    While Kafka does not answer the last one, the next one is overdue: every wait is 0 s long then, poll()
    turns in a circle, and each turn hangs another callback onto the fetch that is not answered
    (``Fetcher.fetch_records`` in consumer/fetcher.py). Memory grows by megabytes a second.
    """
    # Besides heartbeats the coordinator waits only for automatic commits, which no consumer of ours makes.
    kafka._coordinator.time_to_next_poll = lambda: math.inf


class ForgetfulCooperativeStickyAssignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Kafka's cooperative-sticky assignor with a way to forget what it owned.

    kafka-python keeps claiming the old partitions after this member was thrown out of its group, and the
    leader then
    leaves them with it although another member has been given them: two owners at once.
    """

    def forget(self) -> None:
        self.member_assignment = None


class RebalanceListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Passes rebalances on to a consumer. kafka-python calls it on its I/O thread, which must not block.

    Parameters:
      on_assigned: Takes the partitions that were added.
      on_revoked: Takes the partitions that another member will get; returns an awaitable that commits them.
      on_lost: Takes the partitions that another member may have already.
      is_busy: Whether any of these partitions had better be kept a moment longer.
    """

    def __init__(
        self,
        *,
        on_assigned: Callable[[Iterable[TopicPartition]], None],
        on_revoked: Callable[[Iterable[TopicPartition]], object],
        on_lost: Callable[[Iterable[TopicPartition]], None],
        is_busy: Callable[[Iterable[TopicPartition]], bool] = lambda partitions: False,
    ) -> None:
        self._is_busy = is_busy
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._on_lost = on_lost

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._on_assigned(assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        deadline_s = time.monotonic() + REVOKE_PATIENCE_S
        while self._is_busy(revoked) and time.monotonic() < deadline_s:
            await KernelEvent("_sleep", _LOOK_GAP_S)
        final_commit = self._on_revoked(revoked)
        if final_commit is None:
            return
        try:
            await final_commit  # type: ignore[misc]
        except KafkaError as e:
            logger.warning(
                "The last commit before a rebalance failed; the next owner replays since the one before: %r",
                e,
            )

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._on_lost(lost)
