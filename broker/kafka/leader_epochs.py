"""Asks the leaders of partitions about leader epochs (see ``truncation``), one request for each leader."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from kafka.protocol.consumer import OffsetForLeaderEpochRequest

from ..process import clock
from . import internals
from .errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    UnsupportedVersionError,
    for_code,
)
from .protocol import ConsumerClient, PendingEpochEnds
from .types import EpochEnd, EpochEndsByPartition, TopicPartition

__all__ = ["EpochEnd", "EpochEnds", "EpochEndsByPartition"]

#: The pause between two requests while a partition has no leader, or a leader knows of a later election than
#: this client.
_RETRY_GAP_S = 0.1
#: The time for which a leader of an earlier epoch than the requested one counts as one that does not know its
#: successor yet. After that, the log is another one: its topic was recreated.
OLD_LEADER_TIMEOUT_S = 3.0


class EpochEnds:
    """A pending request, sent over the connections of ``kafka`` to the leaders.

    Parameters:
      epochs: The requested leader epoch, by partition. Epochs below 0 are left out.
    """

    def __init__(
        self, kafka: ConsumerClient, epochs: Mapping[TopicPartition, int], *, timeout_ms: float
    ) -> None:
        known = {partition: epoch for partition, epoch in epochs.items() if epoch >= 0}
        self._asked: PendingEpochEnds | None = None
        if known:
            self._asked = kafka.ask_epoch_ends(known, timeout_ms)

    def answers(self) -> EpochEndsByPartition:
        """Wait for the answers. A server without leader epochs gives none.

        Raises:
          KafkaError: When there is no answer in time.
        """
        return {} if self._asked is None else self._asked.wait()


def start_asking(kafka: Any, epochs: Mapping[TopicPartition, int], *, timeout_ms: float) -> Any:
    """Ask the leaders over kafka-python's connections; returns the future of the answers."""
    return internals.start(kafka, _ask, dict(epochs), clock.monotonic_s() + timeout_ms / 1000)


async def _ask(manager: Any, epochs: dict[TopicPartition, int], deadline_s: float) -> EpochEndsByPartition:
    answers: EpochEndsByPartition = {}
    failure: KafkaError = KafkaTimeoutError("no leader was found")
    missing = dict(epochs)
    old_until_s = min(clock.monotonic_s() + OLD_LEADER_TIMEOUT_S, deadline_s)
    while missing:
        try:
            found = await _ask_once(manager, missing)
            may_be_old = clock.monotonic_s() < old_until_s
            answers.update(
                (partition, answer)
                for partition, answer in found.items()
                if not (may_be_old and 0 <= answer.leader_epoch < epochs[partition])
            )
        except (IncompatibleBrokerVersion, UnsupportedVersionError):
            return {}
        except RetriableError as e:
            failure = e
        missing = {partition: epoch for partition, epoch in missing.items() if partition not in answers}
        if not missing:
            break
        if clock.monotonic_s() > deadline_s:
            raise failure
        manager.cluster.request_update()
        await internals.sleep(_RETRY_GAP_S)
    return answers


async def _ask_once(manager: Any, epochs: Mapping[TopicPartition, int]) -> EpochEndsByPartition:
    """Ask all known leaders at the same time."""
    cluster = manager.cluster
    by_leader: dict[int, dict[TopicPartition, int]] = defaultdict(dict)
    for partition, epoch in epochs.items():
        leader = cluster.leader_for_partition(partition)
        if leader is None:
            cluster.add_topic(partition.topic)
        elif leader >= 0:
            by_leader[leader][partition] = epoch
    sent = []
    for leader, theirs in by_leader.items():
        current = {partition: cluster.leader_epoch_for_partition(partition) for partition in theirs}
        sent.append((manager.send(_request(theirs, current), node_id=leader), current))
    answers: EpochEndsByPartition = {}
    failure: Exception | None = None
    for answer, current in sent:
        try:
            answers.update(_read(await answer, current))
        except KafkaError as e:
            failure = e
    if failure is not None and not answers:
        raise failure
    return answers


def _request(epochs: Mapping[TopicPartition, int], current: Mapping[TopicPartition, int | None]) -> Any:
    topics: dict[str, list[Any]] = defaultdict(list)
    partition_of = OffsetForLeaderEpochRequest.OffsetForLeaderTopic.OffsetForLeaderPartition
    for partition, epoch in epochs.items():
        known = current[partition]
        topics[partition.topic].append(
            partition_of(
                partition=partition.partition,
                # With it, a leader answers only a client that knows of its election.
                current_leader_epoch=-1 if known is None else known,
                leader_epoch=epoch,
            )
        )
    return OffsetForLeaderEpochRequest(replica_id=-1, topics=list(topics.items()))


def _read(response: Any, current: Mapping[TopicPartition, int | None]) -> EpochEndsByPartition:
    answers: EpochEndsByPartition = {}
    failure: Exception | None = None
    for topic in response.topics:
        for found in topic.partitions:
            partition = TopicPartition(topic.topic, found.partition)
            if found.error_code:
                failure = for_code(found.error_code)(f"{partition}: its leader does not answer for it")
                continue
            known = current[partition]
            answers[partition] = EpochEnd(
                -1 if found.leader_epoch is None else found.leader_epoch,
                found.end_offset,
                -1 if known is None else known,
            )
    if failure is not None and not answers:
        raise failure
    return answers
