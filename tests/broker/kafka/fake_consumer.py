"""A consumer in memory: a log for each partition, and a group of this one member."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.kafka.protocol import CommitCallback, Offsets, RebalanceListener
from broker.kafka.types import (
    EpochEnd,
    EpochEndsByPartition,
    Headers,
    Heartbeat,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)


@dataclass(frozen=True)
class FakeRecord:
    """See ``ConsumedRecord``."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int = 0
    leader_epoch: int = 0

    @property
    def serialized_value_size(self) -> int:
        return -1 if self.value is None else len(self.value)


class Answer:
    """A question that was answered at once."""

    def __init__(self, value: Any) -> None:
        self.is_done = True
        self.value = value

    def succeeded(self) -> bool:
        return True

    def wait(self) -> EpochEndsByPartition:
        ends: EpochEndsByPartition = self.value
        return ends

    def __await__(self) -> Generator[None, None, object]:
        yield from ()
        return self.value


@dataclass
class FakeConsumer:
    """See ``ConsumerClient``.

    Attributes:
      logs: The records of each partition, from offset 0.
      committed: What the group has committed.
    """

    logs: dict[TopicPartition, list[FakeRecord]]
    committed: dict[TopicPartition, OffsetAndMetadata] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=lambda: {"heartbeat_interval_ms": 3_000})
    closed: bool = False

    def __post_init__(self) -> None:
        self._positions: dict[TopicPartition, tuple[int, int]] = {}
        self._paused: set[TopicPartition] = set()
        self._to_assign: list[TopicPartition] = []
        self._listener: RebalanceListener | None = None

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[Any]]:
        assigned, self._to_assign = self._to_assign, []
        if assigned:
            self.assign(assigned)
            if self._listener is not None:
                self._listener.on_assigned(assigned)
        read = {p: self.logs[p][at:] for p, (at, _) in self._positions.items() if p not in self._paused}
        self._positions.update((p, (r[-1].offset + 1, r[-1].leader_epoch)) for p, r in read.items() if r)
        return {partition: records for partition, records in read.items() if records}

    def interrupt(self) -> None:
        pass

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused.difference_update(partitions)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def held_error(self) -> Exception | None:
        return None

    def forget_held_error(self) -> None:
        pass

    def drop_unreadable_batch(self) -> TopicPartition | None:
        return None

    def seek(self, partition: TopicPartition, offset: int, leader_epoch: int = -1) -> None:
        if partition not in self._positions:
            raise ValueError("Unassigned partition")
        self._positions[partition] = offset, leader_epoch

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self._positions.update(dict.fromkeys(partitions, (0, -1)))

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        return self._positions[partition][0]

    def position_epoch(self, partition: TopicPartition) -> int:
        return self._positions[partition][1]

    def highwater(self, partition: TopicPartition) -> int | None:
        return len(self.logs[partition])

    def beginning_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        return {partition: len(self.logs[partition]) for partition in partitions}

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        found: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        for partition, since_ms in timestamps.items():
            younger = (r for r in self.logs[partition] if r.timestamp >= since_ms)
            first = next(younger, None)
            found[partition] = None if first is None else OffsetAndTimestamp(first.offset, first.timestamp, 0)
        return found

    def ask_beginnings(self, partitions: Collection[TopicPartition], timeout_ms: float) -> Answer:
        return Answer({p: OffsetAndTimestamp(0, -1, -1) for p in partitions})

    def ask_ends(self, partitions: Collection[TopicPartition], timeout_ms: float) -> Answer:
        return Answer({p: OffsetAndTimestamp(len(self.logs[p]), -1, -1) for p in partitions})

    def ask_epoch_ends(self, epochs: Mapping[TopicPartition, int], timeout_ms: float) -> Answer:
        return Answer({p: EpochEnd(epoch, len(self.logs[p]), 0) for p, epoch in epochs.items()})

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener | None = None) -> None:
        self._to_assign = [partition for partition in self.logs if partition.topic in topics]
        self._listener = listener

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._positions = {p: (self.committed.get(p, OffsetAndMetadata(0)).offset, -1) for p in partitions}

    def group_id(self) -> str | None:
        return None

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def is_joining(self) -> bool:
        return bool(self._to_assign)

    def generation(self) -> int:
        return -1

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(float("inf"), float("inf"))

    def heartbeat_soon(self) -> None: ...

    def commit(self, offsets: Offsets, timeout_ms: float | None = None) -> None:
        self.committed.update(offsets)

    def commit_async(self, offsets: Offsets, callback: CommitCallback) -> Answer:
        self.committed.update(offsets)
        callback(offsets, None)
        return Answer(None)

    def committed_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        return {
            partition: self.committed[partition] for partition in partitions if partition in self.committed
        }

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {partition.partition for partition in self.logs if partition.topic == topic}

    def known_partitions(self, topic: str) -> set[int] | None:
        return self.partitions_for_topic(topic) or None

    def topic_id(self, topic: str) -> object:
        return topic

    def leader_epoch(self, partition: TopicPartition) -> int:
        return 0

    def node_ids(self) -> list[int]:
        return [1]

    def request_metadata(self) -> None:
        pass

    def refresh_metadata(self, timeout_ms: float) -> None:
        pass

    def existing_topics(self, topics: Collection[str], timeout_ms: float) -> set[str]:
        return {topic for topic in topics if self.partitions_for_topic(topic)}

    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None:
        self.closed = True
