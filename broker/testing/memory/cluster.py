"""The state of a Kafka cluster in memory, its requests and what an operator may do to it."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ...kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
    for_code,
)
from ...kafka.types import Headers, OffsetAndMetadata, TopicPartition
from ...process import clock
from .faults import Effect, Fault, Faults, ProcessKilled, Request
from .groups import Group, Member
from .log import MemoryLog, MemoryRecord

T = TypeVar("T")

#: Kafka's defaults for a topic (https://kafka.apache.org/documentation/#topicconfigs).
DEFAULT_SETTINGS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "delete.retention.ms": "86400000",
    "max.message.bytes": "1048588",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.ms": "604800000",
}
#: Kafka's default of ``offset.metadata.max.bytes``.
MAX_COMMIT_METADATA_BYTES = 4_096
OFFSET_METADATA_TOO_LARGE = 12
UNKNOWN_MEMBER_ID = 25


class PendingSends(Protocol):
    """A producer with records that wait until the cluster can be reached."""

    def send_pending(self) -> None: ...


@dataclass(eq=False)
class MemoryProcess:
    """The process that a set of clients belongs to.

    Attributes:
      members: Its members of consumer groups, with their groups.
    """

    is_killed: bool = False
    members: list[tuple[Group, Member]] = field(default_factory=list)

    def check(self) -> None:
        """Raise ProcessKilled, or KafkaConnectionError on another thread, when the process was killed."""
        if not self.is_killed:
            return
        if threading.current_thread() is threading.main_thread():
            raise ProcessKilled
        raise KafkaConnectionError("the process was killed")

    def kill(self) -> None:
        """Stop the heartbeats of the process, and let each later call of its clients raise ProcessKilled."""
        if not self.is_killed:
            self.is_killed = True
            now_s = clock.monotonic_s()
            for _, member in self.members:
                member.silent_since_s = now_s


@dataclass(eq=False)
class Topic:
    name: str
    id: uuid.UUID
    settings: dict[str, str]
    logs: list[MemoryLog]

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.name, number) for number in range(len(self.logs))]

    def setting(self, name: str) -> str:
        return self.settings.get(name, DEFAULT_SETTINGS[name])


class MemoryCluster:
    """A Kafka cluster in memory. Thread-safe.

    The cluster tells time by ``process.clock``, like the rest of the broker: a test that replaces the clock
    decides when sessions expire and when records are old.

    Attributes:
      faults: The faults of the next requests.
      reachable: Set while clients reach the cluster.
      requests: The number of requests so far, by kind.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.faults = Faults()
        self.reachable = threading.Event()
        self.reachable.set()
        self.requests: dict[Request, int] = dict.fromkeys(Request, 0)
        self.topics: dict[str, Topic] = {}
        self.last_answer_s = clock.monotonic_s()
        self._groups: dict[str, Group] = {}
        self._topic_count = 0
        self._is_frozen = False
        self._timed_out: list[Callable[[], object]] = []
        self._wakes: weakref.WeakSet[threading.Event] = weakref.WeakSet()
        self._producers: weakref.WeakSet[PendingSends] = weakref.WeakSet()

    # Requests

    def request(
        self,
        process: MemoryProcess,
        kind: Request,
        effect: Callable[[], T],
        *,
        timeout_s: float,
        topic: str | None = None,
    ) -> T:
        """Take the effect of a request, or the fault that waits for it.

        Raises:
          KafkaTimeoutError: When the cluster is not reached within ``timeout_s``, or the answer is lost.
          KafkaError: As the cluster, or a fault, refuses the request.
          ProcessKilled: When the process is killed, or was.
        """
        process.check()
        if not clock.wait(self.reachable, timeout_s):
            raise KafkaTimeoutError(f"no answer to {kind.value} within {timeout_s:g} s")
        process.check()
        self.requests[kind] += 1
        fault = self.faults.take(kind, topic, process)
        if fault is not None and fault.effect is Effect.KILLED_BEFORE:
            process.kill()
            process.check()
        if fault is not None and fault.error is not None:
            raise fault.error()
        with self.lock:
            self.expire()
            result = effect()
        self.last_answer_s = clock.monotonic_s()
        if fault is not None and fault.effect is Effect.KILLED_AFTER:
            process.kill()
            process.check()
        if fault is not None:
            clock.sleep(timeout_s)
            raise KafkaTimeoutError(f"the answer to {kind.value} was lost")
        return result

    def wake_on_change(self, event: threading.Event) -> None:
        """Set ``event`` whenever there may be something to read, or to do in a group."""
        self._wakes.add(event)

    def add_producer(self, producer: PendingSends) -> None:
        """Let a producer send its records once the cluster can be reached again."""
        self._producers.add(producer)

    def changed(self) -> None:
        for event in list(self._wakes):
            event.set()

    def expire(self) -> None:
        """Remove members whose session has timed out."""
        now_s = clock.monotonic_s()
        with self.lock:
            for group in self._groups.values():
                group.expire(now_s)

    # What the cluster holds

    def topic(self, name: str) -> Topic:
        try:
            return self.topics[name]
        except KeyError:
            raise UnknownTopicOrPartitionError(f"there is no topic {name!r}") from None

    def log(self, partition: TopicPartition) -> MemoryLog:
        logs = self.topic(partition.topic).logs
        if not 0 <= partition.partition < len(logs):
            raise UnknownTopicOrPartitionError(f"there is no partition {partition}")
        return logs[partition.partition]

    def group(self, group_id: str) -> Group:
        with self.lock:
            if group_id not in self._groups:
                self._groups[group_id] = Group(self._partitions_of)
            return self._groups[group_id]

    def known_partitions(self, topic: str) -> set[int] | None:
        """The partitions of a topic; None without the topic."""
        known = self.topics.get(topic)
        return None if known is None else set(range(len(known.logs)))

    def _partitions_of(self, topic: str) -> list[TopicPartition]:
        return self.topics[topic].partitions if topic in self.topics else []

    def append(
        self,
        partition: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> MemoryRecord:
        """Append a record as a producer's request does.

        Parameters:
          timestamp_ms: The producer's; None for now, and -1 for none.

        Raises:
          KafkaError: As Kafka refuses it: for its size, its missing key or its timestamp.
        """
        with self.lock:
            log, topic = self.log(partition), self.topic(partition.topic)
            now_ms = clock.wall_ms()
            if topic.setting("message.timestamp.type") == "LogAppendTime":
                stamp_ms = now_ms
            else:
                stamp_ms = now_ms if timestamp_ms is None else timestamp_ms
                if stamp_ms - now_ms > int(topic.setting("message.timestamp.after.max.ms")):
                    raise InvalidTimestampError(f"the timestamp {stamp_ms} of a record is too far ahead")
            if key is None and "compact" in topic.setting("cleanup.policy"):
                raise InvalidRecordError("a compacted topic takes no record without a key")
            limit = int(topic.setting("max.message.bytes"))
            size = MemoryRecord(topic.name, 0, 0, 0, 0, key, value, headers).size
            if size > limit:
                raise MessageSizeTooLargeError(f"{size} bytes, and {topic.name!r} takes {limit}")
            record = log.append(key, value, headers, stamp_ms)
        self.changed()
        return record

    def commit(
        self, group: Group, member: Member | None, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Commit offsets of a group.

        Raises:
          KafkaError: When ``member`` is not a member any more, or the metadata of an offset is too long.
        """
        if member is not None and not group.knows(member):
            raise for_code(UNKNOWN_MEMBER_ID)("the group does not know this member any more")
        for partition, commit in offsets.items():
            if len(commit.metadata.encode()) > MAX_COMMIT_METADATA_BYTES:
                raise for_code(OFFSET_METADATA_TOO_LARGE)(f"the metadata of {partition} is too long")
        group.offsets.update(offsets)

    # What an operator, or bad luck, does

    def create_topic(
        self, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None
    ) -> Topic:
        with self.lock:
            self._topic_count += 1
            logs = [MemoryLog(name, number) for number in range(partitions)]
            topic = Topic(name, uuid.UUID(int=self._topic_count), dict(settings or {}), logs)
            self.topics[name] = topic
            self._rebalance()
        return topic

    def delete_topic(self, name: str) -> None:
        with self.lock:
            del self.topics[name]
            for group in self._groups.values():
                for partition in [p for p in group.offsets if p.topic == name]:
                    del group.offsets[partition]
            self._rebalance()

    def add_partitions(self, name: str, partitions: int) -> None:
        """Let a topic have ``partitions`` partitions."""
        with self.lock:
            logs = self.topic(name).logs
            logs.extend(MemoryLog(name, number) for number in range(len(logs), partitions))
            self._rebalance()

    def configure(self, name: str, **settings: str) -> None:
        """Change settings of a topic, with underscores for the dots of their names."""
        self.topic(name).settings.update(
            {setting.replace("_", "."): value for setting, value in settings.items()}
        )

    def clean_up(self) -> None:
        """Delete and compact what the policies of the topics let Kafka delete and compact by now."""
        with self.lock:
            now_ms = clock.wall_ms()
            for topic in self.topics.values():
                policy = topic.setting("cleanup.policy")
                retention_ms = int(topic.setting("retention.ms"))
                for log in topic.logs:
                    if "compact" in policy:
                        log.compact(now_ms - int(topic.setting("delete.retention.ms")))
                    if "delete" in policy and retention_ms >= 0:
                        log.delete_older(now_ms - retention_ms)

    def elect(self, partition: TopicPartition, *, lose_from: int | None = None) -> None:
        """Elect another leader; with ``lose_from``, one that lacks the records from that offset on."""
        with self.lock:
            log = self.log(partition)
            log.elect() if lose_from is None else log.truncate(lose_from)
        self.changed()

    def expel(self, group_id: str) -> None:
        """Throw all members out of a group, as after a session timeout that they did not notice."""
        with self.lock:
            group = self.group(group_id)
            for member in list(group.members.values()):
                group.leave(member)
        self.changed()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the cluster answer nobody, as a process that was stopped with SIGSTOP does. A send that times
        out meanwhile takes effect afterwards: its request is in the socket.
        """
        self._is_frozen = True
        self.reachable.clear()
        try:
            yield
        finally:
            self._is_frozen = False
            late, self._timed_out = self._timed_out, []
            for take_effect in late:
                take_effect()
            self.come_back()

    def time_out(self, effect: Callable[[], object]) -> None:
        """Note that the sender of a request has stopped to wait for its ``effect``."""
        if self._is_frozen:
            self._timed_out.append(effect)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let no client reach the cluster, as if all nodes were stopped or cut off."""
        self.reachable.clear()
        try:
            yield
        finally:
            self.come_back()

    def come_back(self) -> None:
        self.reachable.set()
        for producer in list(self._producers):
            producer.send_pending()
        self.changed()

    def refuse(
        self,
        kind: Request,
        error: Callable[[], KafkaError],
        *,
        topic: str | None = None,
        skip: int = 0,
        times: int | None = 1,
    ) -> Fault:
        """Let the next requests of a kind be refused with ``error``."""
        return self.faults.add(Fault(kind, Effect.REFUSED, error, topic, skip=skip, times=times))

    def lose_answer(self, kind: Request, *, topic: str | None = None, skip: int = 0) -> Fault:
        """Let the next request of a kind take effect, and its answer be lost."""
        return self.faults.add(Fault(kind, Effect.ANSWER_LOST, topic=topic, skip=skip))

    def kill_at(
        self,
        kind: Request | None = None,
        *,
        before: bool,
        process: MemoryProcess | None = None,
        topic: str | None = None,
        skip: int = 0,
    ) -> Fault:
        """Let the process be killed that sends the next request of a kind (None: the next write)."""
        effect = Effect.KILLED_BEFORE if before else Effect.KILLED_AFTER
        return self.faults.add(Fault(kind, effect, topic=topic, process=process, skip=skip))

    def _rebalance(self) -> None:
        for group in self._groups.values():
            group.rebalance()
        self.changed()
