"""What happens when Kafka gives this consumer a partition or takes one away."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from ..process import clock
from . import internals
from .errors import KafkaError
from .protocol import ConsumerClient, RebalanceListener
from .types import TopicPartition

logger = logging.getLogger(__name__)

#: How long a partition that another member will get is kept at most, for what runs there and has a key.
#: Nothing more of it is dispatched meanwhile.
REVOKE_PATIENCE_S = 5.0
_LOOK_GAP_S = 0.02
#: How long the answer about a topic is waited for before all topics are asked for.
_METADATA_PATIENCE_S = 1.0
_METADATA_LOOK_GAP_S = 0.005


def learn_partitions(kafka: ConsumerClient, topic: str) -> None:
    """Wait until a consumer knows the partitions of a topic that it has subscribed to.

    It has asked for that one already, and has the answer after some 0.1 s. Asked about a topic it does not
    know, kafka-python asks for every topic of the cluster.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    deadline_s = clock.monotonic_s() + _METADATA_PATIENCE_S
    while kafka.known_partitions(topic) is None and clock.monotonic_s() < deadline_s:
        clock.sleep(_METADATA_LOOK_GAP_S)
    kafka.partitions_for_topic(topic)


class ForgetfulCooperativeStickyAssignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Kafka's cooperative-sticky assignor with a way to forget what it owned.

    kafka-python keeps claiming the old partitions after this member was thrown out of its group, and the
    leader then
    leaves them with it although another member has been given them: two owners at once.
    """

    def forget(self) -> None:
        self.member_assignment = None


class KafkaPythonListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Passes rebalances on to a listener of the broker's. kafka-python calls it on its I/O thread.

    Parameters:
      assignor: The consumer's own, which forgets what was lost.
    """

    def __init__(self, listener: RebalanceListener, assignor: ForgetfulCooperativeStickyAssignor) -> None:
        self._listener = listener
        self._assignor = assignor

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._listener.on_assigned(_ours(assigned))

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        leaving = _ours(revoked)
        deadline_s = clock.monotonic_s() + REVOKE_PATIENCE_S
        while self._listener.is_busy(leaving) and clock.monotonic_s() < deadline_s:
            await internals.sleep(_LOOK_GAP_S)
        final_commit = self._listener.on_revoked(leaving)
        if final_commit is None:
            return
        try:
            await final_commit
        except KafkaError as e:
            logger.warning(
                "The last commit before a rebalance failed; the next owner replays since the one before: %r",
                e,
            )

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._assignor.forget()
        self._listener.on_lost(_ours(lost))


def _ours(partitions: Iterable[Any]) -> list[TopicPartition]:
    return [TopicPartition(*partition) for partition in partitions]
