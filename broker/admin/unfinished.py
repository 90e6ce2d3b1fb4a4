"""Counts, drops and waits for the messages of a queue that are not complete, in all topics."""

from __future__ import annotations

from dramatiq.errors import QueueJoinTimeout

from ..delays import Delays
from ..kafka.clients import ASK_TIMEOUT_S, Clients
from ..kafka.operations import Operations
from ..kafka.rights import Rights
from ..kafka.topics import Topics
from ..kafka.types import TopicPartition
from ..process import clock
from .backlog import Backlog
from .flush_markers import FlushNote
from .lane_backlog import LaneBacklog

JOIN_POLL_S = 0.1
#: The time that a count of ``wait`` may take at least, also when its timeout ends sooner.
MIN_COUNT_S = 5.0


class UnfinishedMessages:
    """The messages of a queue that are not complete: waiting, delayed, running or being settled."""

    def __init__(
        self, clients: Clients, topics: Topics, delays: Delays, lanes: LaneBacklog, *, group_id: str
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._delays = delays
        self._lanes = lanes
        self._group_id = group_id

    def wait(self, queue_name: str, *, timeout_ms: int | None) -> None:
        """Wait until all messages are complete.

        Raises:
          QueueJoinTimeout: When messages are left after ``timeout_ms``.
          KafkaUnavailable: When Kafka does not answer.
        """
        deadline_s = None if timeout_ms is None else clock.monotonic_s() + timeout_ms / 1000
        while left := self.count(queue_name, until_s=deadline_s):
            if deadline_s is not None and clock.monotonic_s() >= deadline_s:
                raise QueueJoinTimeout(
                    f"{left} message(s) are left in the queue {queue_name!r} after {timeout_ms} ms"
                )
            clock.sleep(JOIN_POLL_S)

    def count(self, queue_name: str, *, until_s: float | None = None) -> int:
        """The number of messages. A message that moves between topics is counted once or twice.

        A keyed message that returns from the lanes topic is counted twice until a worker runs it, or commits
        that it does not run yet. Without a worker it stays so.

        Parameters:
          until_s: The deadline of the requests (of ``clock.monotonic_s()``); at least MIN_COUNT_S from now.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        now_s = clock.monotonic_s()
        deadline_s = now_s + ASK_TIMEOUT_S
        if until_s is not None:
            deadline_s = min(deadline_s, max(until_s, now_s + MIN_COUNT_S))
        topic, group = self._topics.queue(queue_name), self._topics.group(self._group_id, queue_name)
        with self._clients.naming_all("a count", self._operations(queue_name).counting()):
            return self._clients.ask(
                lambda: self._count_once(queue_name),
                f"The messages left in the queue {queue_name!r} could not be counted",
                deadline_s=deadline_s,
                patient=False,
                rights=Rights((topic,), group=group, on_group="DESCRIBE"),
            )

    def _count_once(self, queue_name: str) -> int:
        self._topics.ensure(self._topics.of_worker(queue_name), for_reading=True)
        before = self._delays.pending(queue_name, limit=0)
        with self._backlog(queue_name) as backlog:
            waiting = backlog.count()
        if backlog.is_gone:
            self._topics.note_gone(self._topics.queue(queue_name))
        # Read after the queue: a message that moves from there to the lanes topic is counted at least once.
        waiting += self._lanes.count(queue_name, backlog.states)
        after = self._delays.pending(queue_name, limit=0)
        left = max(before.count, after.count) + waiting
        return left if before.log_ends == after.log_ends else max(1, left)

    def drop(self, queue_name: str, note: FlushNote) -> None:
        """Drop the messages that have not begun.

        Parameters:
          note: Who does it and why.

        Raises:
          KafkaUnavailable: When Kafka does not answer. Messages that were not dropped by then stay.
        """
        with self._clients.naming_all("a flush", self._operations(queue_name).flushing()):
            self._topics.ensure(self._topics.of_worker(queue_name), for_reading=True)
            self._delays.flush(queue_name)
            self._lanes.flush(queue_name)
            self._drop_backlog(queue_name, note)
            if self._lanes.flush(queue_name):
                # Messages of a worker moved there meanwhile, and some may return as requeue records.
                self._drop_backlog(queue_name, note)

    def _operations(self, queue_name: str) -> Operations:
        return Operations(self._topics, queue_name, self._topics.group(self._group_id, queue_name))

    def _drop_backlog(self, queue_name: str, note: FlushNote) -> None:
        topic, group = self._topics.queue(queue_name), self._topics.group(self._group_id, queue_name)

        def find_ends() -> dict[TopicPartition, int]:
            with self._backlog(queue_name) as backlog:
                return backlog.ends()

        def drop() -> None:
            with self._backlog(queue_name) as backlog:
                backlog.drop(ends, note)

        doing = f"The queue {queue_name!r} could not be flushed"
        ends = self._clients.ask(find_ends, doing, rights=Rights((topic,), group=group))
        self._clients.ask(drop, doing, rights=Rights((topic,), on_topic="DELETE", group=group))

    def _backlog(self, queue_name: str) -> Backlog:
        group = self._topics.group(self._group_id, queue_name)
        return Backlog(self._clients, self._topics.queue(queue_name), group)
