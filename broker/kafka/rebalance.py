"""The assignor and the rebalance listener of a consumer."""

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

#: The longest time for which a revoke waits for running messages. The partition dispatches nothing meanwhile.
REVOKE_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.02
#: The timeout of the metadata of one topic, before the metadata of all topics is requested.
_METADATA_TIMEOUT_S = 1.0
_METADATA_POLL_INTERVAL_S = 0.005


def learn_partitions(kafka: ConsumerClient, topic: str) -> None:
    """Wait until a consumer knows the partitions of a topic that it has subscribed to.

    It has requested the topic already, and gets the answer after about 0.1 s. For an unknown topic,
    kafka-python would request every topic of the cluster.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    deadline_s = clock.monotonic_s() + _METADATA_TIMEOUT_S
    while kafka.known_partitions(topic) is None and clock.monotonic_s() < deadline_s:
        clock.sleep(_METADATA_POLL_INTERVAL_S)
    kafka.partitions_for_topic(topic)


def heartbeat_soon(kafka: ConsumerClient) -> None:
    """Send a heartbeat of a consumer now, unless another thread closes it at the same time."""
    try:
        kafka.heartbeat_soon()
    except (KafkaError, RuntimeError) as e:
        logger.debug("A consumer could not send a heartbeat: %r", e)


class ForgetfulCooperativeStickyAssignor(CooperativeStickyAssignor):  # type: ignore[misc]
    """Kafka's cooperative-sticky assignor, which can forget its partitions.

    kafka-python keeps claiming the old partitions after this member was removed from its group. The group's
    leader then assigns them to this member although another member has them: two owners at the same time.
    """

    def forget(self) -> None:
        self.member_assignment = None


class KafkaPythonListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Passes rebalances on to a listener of the broker's. kafka-python calls it on its I/O thread.

    Parameters:
      client: The consumer.
      assignor: The consumer's assignor, which forgets lost partitions.
    """

    def __init__(
        self, client: Any, listener: RebalanceListener, assignor: ForgetfulCooperativeStickyAssignor
    ) -> None:
        self._client = client
        self._listener = listener
        self._assignor = assignor

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._listener.on_assigned(_ours(assigned))
        # The requests about the added partitions, and their fetch, would wait for the end of a fetch.
        internals.drop_waiting_fetches(self._client)
        self._client.interrupt()

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        leaving = _ours(revoked)
        deadline_s = clock.monotonic_s() + REVOKE_TIMEOUT_S
        while self._listener.is_busy(leaving) and clock.monotonic_s() < deadline_s:
            await internals.sleep(_POLL_INTERVAL_S)
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
