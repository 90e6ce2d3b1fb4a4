"""A consumer of a cluster in memory; see ``protocol.ConsumerClient``."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ...kafka.errors import (
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from ...kafka.protocol import CommitCallback, Offsets, RebalanceListener
from ...kafka.rebalance import REVOKE_TIMEOUT_S
from ...kafka.types import (
    ConsumedRecord,
    EpochEndsByPartition,
    Heartbeat,
    Membership,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)
from ...process import clock
from .cluster import MemoryCluster, MemoryProcess
from .faults import Request
from .groups import Group, Member
from .log import MemoryLog
from .pending_answer import PendingAnswer

T = TypeVar("T")


@dataclass
class Position:
    """A position in a partition.

    Attributes:
      leader_epoch: Of the record before ``offset``; -1 when it is not known.
    """

    offset: int
    leader_epoch: int = -1


class _Done:
    """What a listener's ``on_revoked`` returns: the commit has ended."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


class MemoryConsumer:
    """See ``protocol.ConsumerClient``. The callbacks of a rebalance run on the thread that polls."""

    DEFAULT_CONFIG: Mapping[str, Any] = {
        "auto_offset_reset": "latest",
        "bootstrap_timeout_ms": 10_000,
        "client_id": "memory",
        "enable_auto_commit": False,
        "fetch_max_bytes": 52_428_800,
        "group_id": None,
        "heartbeat_interval_ms": 3_000,
        "isolation_level": "read_uncommitted",
        "max_partition_fetch_bytes": 1_048_576,
        "max_poll_records": 500,
        "request_timeout_ms": 30_000,
        "session_timeout_ms": 10_000,
    }

    def __init__(self, cluster: MemoryCluster, process: MemoryProcess, **settings: Any) -> None:
        self.config: Mapping[str, Any] = {**self.DEFAULT_CONFIG, **settings}
        self._cluster = cluster
        self._process = process
        self._positions: dict[TopicPartition, Position | None] = {}
        self._paused: set[TopicPartition] = set()
        self._listener: RebalanceListener | None = None
        self._topics: tuple[str, ...] = ()
        self._group: Group | None = None
        self._member: Member | None = None
        self._keeping_until_s: float | None = None
        self._commits: list[tuple[PendingAnswer[object], Offsets, CommitCallback]] = []
        self._reset_at_poll: set[TopicPartition] = set()
        self._woken = threading.Event()
        self._interrupted = False
        self._closed = False
        cluster.wake_on_change(self._woken)
        if self.config["group_id"] is not None:
            self._group = cluster.group(self.config["group_id"])

    # Records

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[ConsumedRecord]]:
        self._process.check()
        deadline_s = clock.monotonic_s() + timeout_ms / 1000
        while True:
            self._woken.clear()
            self._answer_commits()
            reached = self._cluster.reachable.is_set()
            if reached and self._topics:
                self._take_part()
            if self._interrupted:
                self._interrupted = False
                return {}
            found = self._fetch() if reached else {}
            left_s = deadline_s - clock.monotonic_s()
            if found or left_s <= 0.0:
                return found
            clock.wait(self._woken, left_s)
            self._process.check()

    def _fetch(self) -> dict[TopicPartition, list[ConsumedRecord]]:
        readable = [p for p in self._positions if p not in self._paused]
        if not readable:
            return {}
        try:
            return self._request(Request.FETCH, lambda: self._read(readable), topic=readable[0].topic)
        except KafkaError as e:
            if e.retriable:
                return {}
            raise

    def _read(self, readable: list[TopicPartition]) -> dict[TopicPartition, list[ConsumedRecord]]:
        found: dict[TopicPartition, list[ConsumedRecord]] = {}
        max_bytes, max_records = self.config["fetch_max_bytes"], self.config["max_poll_records"]
        # As Kafka does: what was served goes to the end, so that no partition starves the others.
        for partition in readable:
            position = self._checked_position(partition)
            if position is None or max_records <= 0 or (found and max_bytes <= 0):
                continue
            records, after = self._cluster.log(partition).read(
                position.offset,
                max_bytes=min(max_bytes, self.config["max_partition_fetch_bytes"]),
                max_records=max_records,
            )
            if after > position.offset:
                epoch = records[-1].leader_epoch if records else position.leader_epoch
                self._positions[partition] = Position(after, epoch)
            if records:
                found[partition] = list(records)
                max_records -= len(records)
                max_bytes -= sum(record.size for record in records)
                self._positions[partition] = self._positions.pop(partition)
        return found

    def _checked_position(self, partition: TopicPartition) -> Position | None:
        """The position of a partition, within its log."""
        try:
            log = self._cluster.log(partition)
        except UnknownTopicOrPartitionError:
            return None  # deleted: kafka-python asks again until its metadata says so
        position = self._positions[partition]
        resets = self.config["auto_offset_reset"] != "none"
        if position is None:
            position = self._initial_position(log)
        elif position.leader_epoch >= 0 and position.offset > log.start:
            answer = log.end_of_epoch(position.leader_epoch)
            if answer.epoch >= 0 and answer.end_offset < position.offset:
                if not resets:
                    error = LogTruncationError(f"{partition} was cut at {answer.end_offset}")
                    error.divergent_offsets = {
                        partition: OffsetAndMetadata(answer.end_offset, "", answer.epoch)
                    }
                    raise error
                position = Position(answer.end_offset, answer.epoch)
        if not log.start <= position.offset <= log.end:
            if not resets:
                raise OffsetOutOfRangeError({partition: position.offset})
            position = self._initial_position(log)
        self._positions[partition] = position
        return position

    def _initial_position(self, log: MemoryLog) -> Position:
        """The position of a partition without a valid one, by ``auto_offset_reset``."""
        return Position(log.start if self.config["auto_offset_reset"] == "earliest" else log.end)

    def interrupt(self) -> None:
        self._interrupted = True
        self._woken.set()

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused.difference_update(partitions)
        self._woken.set()

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def held_error(self) -> Exception | None:
        return None

    def forget_held_error(self) -> None:
        """Nothing is held: no batch in memory is unreadable."""

    def drop_unreadable_batch(self) -> TopicPartition | None:
        return None

    # Positions

    def seek(self, partition: TopicPartition, offset: int, leader_epoch: int = -1) -> None:
        if partition not in self._positions:
            raise ValueError("Unassigned partition")
        self._positions[partition] = Position(offset, leader_epoch)
        self._woken.set()

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        for partition, offset in self.beginning_offsets(partitions).items():
            self.seek(partition, offset)

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        if partition not in self._positions:
            raise KeyError(partition)
        position = self._positions[partition]
        if position is None and self._cluster.reachable.is_set():
            position = self._checked_position(partition)
        return None if position is None else position.offset

    def position_epoch(self, partition: TopicPartition) -> int:
        position = self._positions.get(partition)
        return -1 if position is None else position.leader_epoch

    def highwater(self, partition: TopicPartition) -> int | None:
        try:
            return self._cluster.log(partition).end
        except UnknownTopicOrPartitionError:
            return None

    # Offsets and leader epochs

    def beginning_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        return self._list_offsets(partitions, timeout_ms, lambda p: self._cluster.log(p).start)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        return self._list_offsets(partitions, timeout_ms, lambda p: self._cluster.log(p).end)

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        def first(partition: TopicPartition) -> OffsetAndTimestamp | None:
            record = self._cluster.log(partition).first_since(timestamps[partition])
            if record is None:
                return None
            return OffsetAndTimestamp(record.offset, record.timestamp, record.leader_epoch)

        return self._list_offsets(timestamps, timeout_ms, first)

    def _list_offsets(
        self,
        partitions: Collection[TopicPartition],
        timeout_ms: float | None,
        answer: Callable[[TopicPartition], T],
    ) -> dict[TopicPartition, T]:
        return self._request(
            Request.LIST_OFFSETS, lambda: {p: answer(p) for p in partitions}, timeout_ms=timeout_ms
        )

    def ask_beginnings(
        self, partitions: Collection[TopicPartition], timeout_ms: float
    ) -> PendingAnswer[Mapping[TopicPartition, OffsetAndTimestamp]]:
        return self._ask_offsets(self.beginning_offsets, partitions, timeout_ms)

    def ask_ends(
        self, partitions: Collection[TopicPartition], timeout_ms: float
    ) -> PendingAnswer[Mapping[TopicPartition, OffsetAndTimestamp]]:
        return self._ask_offsets(self.end_offsets, partitions, timeout_ms)

    def _ask_offsets(
        self,
        offsets: Callable[..., Mapping[TopicPartition, int]],
        partitions: Collection[TopicPartition],
        timeout_ms: float,
    ) -> PendingAnswer[Mapping[TopicPartition, OffsetAndTimestamp]]:
        partitions = list(partitions)

        def ask(timeout_s: float) -> Mapping[TopicPartition, OffsetAndTimestamp]:
            found = offsets(partitions, timeout_ms=timeout_s * 1000)
            return {partition: OffsetAndTimestamp(offset, -1, -1) for partition, offset in found.items()}

        return PendingAnswer(ask, timeout_ms)

    def ask_epoch_ends(
        self, epochs: Mapping[TopicPartition, int], timeout_ms: float
    ) -> PendingAnswer[EpochEndsByPartition]:
        def read() -> EpochEndsByPartition:
            return {p: self._cluster.log(p).end_of_epoch(epoch) for p, epoch in epochs.items()}

        return PendingAnswer(
            lambda timeout_s: self._request(Request.EPOCH_ENDS, read, timeout_ms=timeout_s * 1000), timeout_ms
        )

    # Groups

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener | None = None) -> None:
        self._topics = tuple(topics)
        self._listener = listener

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._positions = {p: self._positions.get(p) for p in partitions}
        self._paused.intersection_update(self._positions)

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def group_id(self) -> str | None:
        group_id: str | None = self.config["group_id"]
        return group_id

    def is_joining(self) -> bool:
        return bool(self._topics) and (
            self._member is None or self._group is None or not self._group.is_stable()
        )

    def generation(self) -> int:
        return -1 if self._member is None or self._group is None else self._group.generation

    def heartbeat(self) -> Heartbeat:
        answered_s = self._cluster.last_answer_s
        if self._cluster.reachable.is_set():
            answered_s = clock.monotonic_s()
        return Heartbeat(answered_s, answered_s)

    def heartbeat_soon(self) -> None:
        """A member in memory learns of each rebalance with its next poll."""

    def _take_part(self) -> None:
        """Join the group, and do what its last rebalance asks of this member."""
        assert self._group is not None
        self._cluster.expire()
        if self._member is not None and not self._group.knows(self._member):
            lost, self._member = set(self._member.owned), None
            self._drop(lost)
            if lost and self._listener is not None:
                self._listener.on_lost(lost)
        if self._member is None:
            try:
                self._member = self._request(Request.JOIN_GROUP, self._join)
            except KafkaError as e:
                if e.retriable:
                    return
                raise
        self._give_back(self._member)
        self._take_over(self._member)

    def _join(self) -> Member:
        assert self._group is not None
        member = self._group.join(self._topics, self.config["session_timeout_ms"] / 1000)
        self._process.members.append((self._group, member))
        if self._listener is not None:
            self._listener.on_membership(Membership(self.config["group_id"], member.id))
        self._cluster.changed()
        return member

    def _give_back(self, member: Member) -> None:
        leaving = sorted(member.owned - member.target)
        if not leaving:
            return
        if self._listener is not None:
            now_s = clock.monotonic_s()
            if self._keeping_until_s is None:
                self._keeping_until_s = now_s + REVOKE_TIMEOUT_S
            if self._listener.is_busy(leaving) and now_s < self._keeping_until_s:
                return
            self._listener.on_revoked(leaving)
            self._answer_commits()
        self._keeping_until_s = None
        self._drop(leaving)
        with self._cluster.lock:
            member.owned.difference_update(leaving)
        self._cluster.changed()

    def _take_over(self, member: Member) -> None:
        assert self._group is not None
        with self._cluster.lock:
            added = sorted(self._group.free_of(member))
            member.owned.update(added)
            for partition in added:
                commit = self._group.offsets.get(partition)
                epoch = -1 if commit is None or commit.leader_epoch is None else commit.leader_epoch
                self._positions[partition] = None if commit is None else Position(commit.offset, epoch)
                self._paused.discard(partition)
        if added and self._listener is not None:
            self._listener.on_assigned(added)
            self.interrupt()

    def _drop(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            self._paused.discard(partition)

    def commit(self, offsets: Offsets, timeout_ms: float | None = None) -> None:
        self._answer_commits()
        self._request(Request.COMMIT, lambda: self._write_commit(offsets), timeout_ms=timeout_ms)

    def commit_async(self, offsets: Offsets, callback: CommitCallback) -> Awaitable[object]:
        def ask(timeout_s: float) -> object:
            return self._request(
                Request.COMMIT, lambda: self._write_commit(offsets), timeout_ms=timeout_s * 1000
            )

        pending = PendingAnswer[object](ask, self.config["request_timeout_ms"])
        self._commits.append((pending, offsets, callback))
        pending.is_done  # noqa: B018 - sends it now, where the cluster can be reached
        return _Done()

    def _write_commit(self, offsets: Offsets) -> None:
        assert self._group is not None
        self._cluster.commit(self._group, self._member, offsets)

    def _answer_commits(self) -> None:
        """Call the callbacks of the commits that have ended."""
        waiting, self._commits = self._commits, []
        for pending, offsets, callback in waiting:
            if not pending.is_done:
                self._commits.append((pending, offsets, callback))
            elif pending.succeeded():
                callback(offsets, None)
            else:
                try:
                    pending.wait()
                except KafkaError as e:
                    callback(offsets, e)

    def committed_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        assert self._group is not None
        offsets = self._group.offsets
        return self._request(
            Request.FETCH_OFFSETS,
            lambda: {p: offsets[p] for p in partitions if p in offsets},
            timeout_ms=timeout_ms,
        )

    # Metadata

    def partitions_for_topic(self, topic: str) -> set[int]:
        return self._request(Request.METADATA, lambda: self.known_partitions(topic) or set(), topic=topic)

    def known_partitions(self, topic: str) -> set[int] | None:
        return self._cluster.known_partitions(topic)

    def topic_id(self, topic: str) -> object:
        known = self._cluster.topics.get(topic)
        return None if known is None else known.id

    def leader_epoch(self, partition: TopicPartition) -> int:
        try:
            return self._cluster.log(partition).leader_epoch
        except UnknownTopicOrPartitionError:
            return -1

    def node_ids(self) -> list[int]:
        return [1]

    def request_metadata(self) -> None:
        """Metadata is never old."""

    def refresh_metadata(self, timeout_ms: float) -> None:
        self._request(Request.METADATA, lambda: None, timeout_ms=timeout_ms)

    def existing_topics(self, topics: Collection[str], timeout_ms: float) -> set[str]:
        found: set[str] = set()
        for topic in topics:
            exists = self._request(
                Request.METADATA,
                lambda topic=topic: topic in self._cluster.topics,  # type: ignore[misc]
                timeout_ms=timeout_ms,
                topic=topic,
            )
            found.update([topic] if exists else [])
        return found

    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        self._process.check()
        self._answer_commits()
        if self._member is None or self._group is None:
            return
        if self._listener is not None and self._member.owned:
            self._listener.on_revoked(sorted(self._member.owned))
            self._answer_commits()
        if self._cluster.reachable.is_set():
            with self._cluster.lock:
                self._group.leave(self._member)
        else:
            self._member.silent_since_s = clock.monotonic_s()
        self._cluster.changed()

    def _request(
        self,
        kind: Request,
        effect: Callable[[], T],
        *,
        topic: str | None = None,
        timeout_ms: float | None = None,
    ) -> T:
        timeout_s = (self.config["request_timeout_ms"] if timeout_ms is None else timeout_ms) / 1000
        return self._cluster.request(self._process, kind, effect, timeout_s=timeout_s, topic=topic)
