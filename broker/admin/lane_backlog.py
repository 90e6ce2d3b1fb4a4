"""What waits in the lanes topics, read from Kafka alone, so that any process may ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from ..kafka.clients import Clients
from ..kafka.rights import not_published, reading
from ..kafka.topics import Topics
from ..partition_keys.acknowledged_ends import AcknowledgedEnds
from ..partition_keys.record_format import tombstone
from ..partition_keys.waiting_store import WaitingStore
from ..process.forks import check_for_fork, reset_on_fork
from ..produce.publisher import Publisher


class LaneBacklog:
    """Counts and drops what waits for a group of workers. Making one connects to nothing. Thread-safe.

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
        """Connect, and read the topics, once more when they are needed: what was read is the parent's."""
        self._lock = threading.Lock()
        self._logs: dict[str, WaitingStore] = {}

    def count(self, queue_name: str) -> int:
        """How many messages of a queue wait in their lanes, or run and have waited there."""
        check_for_fork()
        with self._lock:
            log = self._log(queue_name)
            self._ask(log, partial(log.catch_up, ask_for_partitions=True), queue_name)
            return log.count()

    def flush(self, queue_name: str) -> int:
        """Drop what waits now; return how many messages that was."""
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
        """Close this process's connections. They are made again when they are needed."""
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

    def _ask(self, log: WaitingStore, question: Callable[[], None], queue_name: str) -> None:
        topic = self._topics.lanes(queue_name)
        self._clients.ask(question, f"The topic {topic!r} could not be read", rights=reading(topic))
        log.ended.clear()  # which its owners deal with
