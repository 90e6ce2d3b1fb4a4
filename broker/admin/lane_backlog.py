"""Counts and drops waiting lane entries, read from Kafka alone, in any process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from ..dead_letters.topic_log import LogBounds
from ..kafka.clients import Clients
from ..kafka.rights import not_published, reading
from ..kafka.topics import Topics
from ..kafka.types import TopicPartition
from ..offsets.commit_metadata import CommitState
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.lane_differences import lane_differences
from ..partition_keys.record_format import Waiting, tombstone
from ..partition_keys.waiting_store import WaitingStore
from ..process.forks import check_for_fork, reset_on_fork
from ..produce.publisher import Publisher

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LaneState:
    """The messages of one partition key in the lanes topic.

    Attributes:
      key: The partition key.
      count: The messages that wait there for an earlier one or for their retry, or run and have waited there.
      due_ms: The time of the earliest waiting retry, in milliseconds since 1970; None when one waits for an
        earlier message alone.
    """

    key: str
    count: int
    due_ms: int | None


class LaneBacklog:
    """Counts and drops the waiting lane entries of a group. The constructor does not connect. Thread-safe.

    Raises (every method): KafkaUnavailable when Kafka does not answer.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        *,
        group: str,
        written: AcknowledgedEnds | None = None,
    ) -> None:
        self._group = group
        self._written = written or AcknowledgedEnds()
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Connect and read the topics again at the next use: the tables belong to the parent."""
        self._lock = threading.Lock()
        self._logs: dict[str, WaitingStore] = {}

    def count(
        self,
        queue_name: str,
        states: Mapping[TopicPartition, CommitState] = MappingProxyType({}),
        *,
        bounds: LogBounds | None = None,
    ) -> int:
        """The number of messages of a queue that wait in their lanes, or run and have waited there.

        Parameters:
          states: The committed states of the queue's partitions. When the topic was truncated since, its lost
            entries count, and entries that are done do not.
          bounds: The bounds of the topic's log, when they are known. An empty log that never had an entry is
            not read: each that is costs a connection, a thread and a file.
        """
        check_for_fork()
        with self._lock:
            if bounds is not None and self._has_no_entry(queue_name, states, bounds):
                return 0
            log = self._log(queue_name)
            return self._ask(log, partial(_count, log, states), queue_name)

    def _has_no_entry(
        self, queue_name: str, states: Mapping[TopicPartition, CommitState], bounds: LogBounds
    ) -> bool:
        return (
            bounds.is_empty
            and queue_name not in self._logs
            and not self._written.ends(self._topics.lanes(queue_name))
            and all(state.lanes is None for state in states.values())
        )

    def longest(self, queue_name: str, limit: int) -> list[LaneState]:
        """The lanes with the most messages, the longest first."""
        check_for_fork()
        with self._lock:
            log = self._log(queue_name)
            self._ask(log, partial(log.catch_up, ask_for_partitions=True), queue_name)
            found = log.longest(limit)
        return [LaneState(key.decode(errors="replace"), n, due_ms or None) for key, n, due_ms in found]

    def waiting(self, queue_name: str) -> list[Waiting]:
        """The messages of a queue that wait in their lanes, or run and have waited there.

        A keyed message is in the lanes topic until it is done.
        """
        check_for_fork()
        with self._lock:
            log = self._log(queue_name)
            self._ask(log, partial(log.catch_up, ask_for_partitions=True), queue_name)
            found = (log.get(place) for place, _ in log.places())
            return [waiting for waiting in found if waiting is not None]

    def flush(self, queue_name: str) -> int:
        """Drop the entries that wait now; return their number."""
        topic = self._topics.lanes(queue_name)
        check_for_fork()
        with self._lock:
            log = self._log(queue_name)
            self._ask(log, log.catch_up_with_all, queue_name)
            places = log.places()
        failures = self._publisher.publish(
            [tombstone(topic, place, partition=kept_in) for place, kept_in in places]
        )
        for reason in failures.values():
            doing = f"Kafka did not acknowledge the flush of {len(failures)} message(s) in {topic!r}"
            raise not_published(doing, reason) from reason
        return len(places)

    def close(self) -> None:
        """Close this process's connections. The next use connects again."""
        with self._lock:
            for log in self._logs.values():
                log.close()
            self._logs.clear()

    def _log(self, queue_name: str) -> WaitingStore:
        log = self._logs.get(queue_name)
        if log is None:
            topic = self._topics.lanes(queue_name)
            log = self._logs[queue_name] = WaitingStore(
                self._clients, topic, self._group, publisher=self._publisher, written=self._written
            )
        return log

    def _ask(self, log: WaitingStore, question: Callable[[], T], queue_name: str) -> T:
        topic = self._topics.lanes(queue_name)
        doing = f"The topic {topic!r} could not be read"
        answer = self._clients.ask(question, doing, rights=reading(topic))
        log.ended.clear()  # the partitions' owners handle these
        log.appeared.clear()
        return answer


def _count(log: WaitingStore, states: Mapping[TopicPartition, CommitState]) -> int:
    log.catch_up(ask_for_partitions=True)
    found = lane_differences(log, {partition.partition: state for partition, state in states.items()})
    return log.count() + sum(len(found[number].lost) - len(found[number].done) for number in found)
