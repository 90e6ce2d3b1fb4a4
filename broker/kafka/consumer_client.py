"""kafka-python's consumer behind the broker's ``ConsumerClient``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer
from kafka.structs import MemberState
from kafka.structs import OffsetAndMetadata as KafkaOffset
from kafka.structs import TopicPartition as KafkaPartition

from . import internals
from .group_poll import GroupPoll
from .leader_epochs import start_asking
from .protocol import CommitCallback, Offsets, PendingEpochEnds, PendingOffsets, RebalanceListener
from .rebalance import ForgetfulCooperativeStickyAssignor, KafkaPythonListener
from .topic_lookup import existing_topics
from .types import (
    ConsumedRecord,
    EpochEndsByPartition,
    Heartbeat,
    Membership,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)


class Consumer(KafkaConsumer):  # type: ignore[misc]
    """See ``protocol.ConsumerClient``. Arguments are converted here: kafka-python checks their classes."""

    def __init__(self, **settings: Any) -> None:
        self._assignor = ForgetfulCooperativeStickyAssignor()
        self._group_poll: GroupPoll | None = None
        super().__init__(**{"partition_assignment_strategy": [self._assignor], **settings})

    # Records

    def poll(self, timeout_ms: float = 0, **options: Any) -> dict[TopicPartition, list[ConsumedRecord]]:
        if self._group_poll is None:
            found = super().poll(timeout_ms=timeout_ms, **options)
        else:
            found = self._group_poll.poll(timeout_ms)
        return {TopicPartition(*partition): records for partition, records in found.items()}

    def interrupt(self) -> None:
        if self._group_poll is not None:
            self._group_poll.interrupt()

    def pause(self, *partitions: TopicPartition) -> None:
        super().pause(*_theirs(partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        super().resume(*_theirs(partitions))

    def paused(self) -> set[TopicPartition]:
        return _ours(super().paused())

    def held_error(self) -> Exception | None:
        return internals.held_error(self)

    def forget_held_error(self) -> None:
        internals.forget_held_error(self)

    def drop_unreadable_batch(self) -> TopicPartition | None:
        return internals.drop_unreadable_batch(self)

    # Positions

    def seek(self, partition: TopicPartition, offset: int, leader_epoch: int = -1) -> None:
        super().seek(KafkaPartition(*partition), offset)
        if leader_epoch >= 0:
            internals.seek_with_epoch(self, partition, offset, leader_epoch)

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        super().seek_to_beginning(*_theirs(partitions))

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        position: int | None = super().position(KafkaPartition(*partition), timeout_ms=timeout_ms)
        return position

    def position_epoch(self, partition: TopicPartition) -> int:
        return internals.position_epoch(self, partition)

    def highwater(self, partition: TopicPartition) -> int | None:
        offset: int | None = super().highwater(KafkaPartition(*partition))
        return offset

    # Offsets and leader epochs

    def beginning_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        found = super().beginning_offsets(_theirs(partitions), timeout_ms=timeout_ms)
        return {TopicPartition(*partition): offset for partition, offset in found.items()}

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        found = super().end_offsets(_theirs(partitions), timeout_ms=timeout_ms)
        return {TopicPartition(*partition): offset for partition, offset in found.items()}

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        asked = {KafkaPartition(*partition): at_ms for partition, at_ms in timestamps.items()}
        found = super().offsets_for_times(asked, timeout_ms=timeout_ms)
        return {
            TopicPartition(*partition): None if offset is None else OffsetAndTimestamp(*offset)
            for partition, offset in found.items()
        }

    def ask_beginnings(self, partitions: Collection[TopicPartition], timeout_ms: float) -> PendingOffsets:
        pending: PendingOffsets = internals.ask_beginnings(self, partitions, timeout_ms)
        return pending

    def ask_ends(self, partitions: Collection[TopicPartition], timeout_ms: float) -> PendingOffsets:
        pending: PendingOffsets = internals.ask_ends(self, partitions, timeout_ms)
        return pending

    def group_id(self) -> str | None:
        group_id: str | None = self.config["group_id"]
        return group_id

    def ask_epoch_ends(self, epochs: Mapping[TopicPartition, int], timeout_ms: float) -> PendingEpochEnds:
        return _PendingEpochEnds(self, start_asking(self, epochs, timeout_ms=timeout_ms), timeout_ms)

    # Groups

    def subscribe(
        self, topics: Sequence[str] = (), listener: RebalanceListener | None = None, **options: Any
    ) -> None:
        if listener is not None:
            self._watch_membership(listener.on_membership)
        self._group_poll = GroupPoll(
            self,
            max_records=self.config["max_poll_records"],
            heartbeat_interval_s=self.config["heartbeat_interval_ms"] / 1000,
        )
        if listener is not None:
            options["listener"] = KafkaPythonListener(self, listener, self._assignor)
        super().subscribe(topics, **options)

    def _watch_membership(self, note: Callable[[Membership], object]) -> None:
        group, instance = self.config["group_id"], self.config["group_instance_id"]
        internals.watch_member_id(self, lambda member_id: note(Membership(group, member_id, instance)))

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        super().assign(_theirs(partitions))

    def assignment(self) -> set[TopicPartition]:
        return _ours(super().assignment())

    def is_joining(self) -> bool:
        return bool(self.group_metadata().state is not MemberState.STABLE)

    def generation(self) -> int:
        return int(self.group_metadata().generation_id)

    def heartbeat(self) -> Heartbeat:
        return internals.heartbeat(self)

    def heartbeat_soon(self) -> None:
        internals.heartbeat_soon(self)

    def commit(self, offsets: Offsets | None = None, timeout_ms: float | None = None) -> None:
        super().commit(None if offsets is None else _their_offsets(offsets), timeout_ms=timeout_ms)

    def commit_async(
        self, offsets: Offsets | None = None, callback: CommitCallback | None = None
    ) -> Awaitable[object]:
        theirs = None if offsets is None else _their_offsets(offsets)
        future: Awaitable[object] = super().commit_async(theirs, callback=callback)
        return future

    def committed_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        return internals.committed_offsets(self, partitions, timeout_ms)

    # Metadata

    def partitions_for_topic(self, topic: str) -> set[int]:
        # kafka-python asks for all topics, where Kafka leaves out each that this client may not see.
        if self.known_partitions(topic) is None:
            if not self.existing_topics([topic], self.config["request_timeout_ms"]):
                return set()
            super().partitions_for_topic(topic)
        return self.known_partitions(topic) or set()

    def known_partitions(self, topic: str) -> set[int] | None:
        known: set[int] | None = internals.cluster(self).partitions_for_topic(topic)
        return known

    def topic_id(self, topic: str) -> object:
        return internals.cluster(self).topic_id(topic)

    def leader_epoch(self, partition: TopicPartition) -> int:
        epoch = internals.cluster(self).leader_epoch_for_partition(partition)
        return -1 if epoch is None else int(epoch)

    def node_ids(self) -> list[int]:
        return [node.node_id for node in internals.cluster(self).brokers()]

    def request_metadata(self) -> None:
        internals.cluster(self).request_update()

    def refresh_metadata(self, timeout_ms: float) -> None:
        internals.wait(self, internals.cluster(self).request_update(), timeout_ms)

    def existing_topics(self, topics: Collection[str], timeout_ms: float) -> set[str]:
        return existing_topics(self, topics, timeout_ms=timeout_ms)


class _PendingEpochEnds:
    def __init__(self, kafka: Consumer, future: Any, timeout_ms: float) -> None:
        self._kafka = kafka
        self._future = future
        self._timeout_ms = timeout_ms

    def wait(self) -> EpochEndsByPartition:
        answers: EpochEndsByPartition = internals.wait(self._kafka, self._future, self._timeout_ms)
        return answers


def _theirs(partitions: Iterable[TopicPartition]) -> list[Any]:
    return [KafkaPartition(*partition) for partition in partitions]


def _ours(partitions: Iterable[Any]) -> set[TopicPartition]:
    return {TopicPartition(*partition) for partition in partitions}


def _their_offsets(offsets: Offsets) -> dict[Any, Any]:
    return {KafkaPartition(*partition): KafkaOffset(*commit) for partition, commit in offsets.items()}
