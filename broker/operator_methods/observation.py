"""The methods that look at workers, queues and topics from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from dramatiq.message import Message

from ..admin.arrivals import Arrivals
from ..admin.message_search import SearchResult
from ..admin.queue_states import QueueState
from ..control import Command, Pauses
from ..delays.index_check import IndexFileFinding
from ..errors import NotAuthorized, ParameterRefused
from ..kafka.topic_states import TopicState
from ..parameters import (
    check_counts,
    check_moments,
    check_names,
    check_seconds,
    check_texts,
)
from ..process import clock
from ..reports.run_history import HistoryQuery, RunHistory
from ..reports.worker_states import WorkerInfo, other_groups
from .base import OperatorBase

#: The period of a question for the history that names none.
DEFAULT_HISTORY_MS = 3600 * 1000


class ObservationMethods(OperatorBase):
    """Workers, queues, history and topics, as Kafka has them."""

    def workers(self, *, within_s: float = 3600.0) -> list[WorkerInfo]:
        """The workers of the namespace, each with its state and its last report.

        Any process can call this, and no worker is asked: the reports in Kafka, and the members of the
        consumer groups, decide.

        Parameters:
          within_s: Workers that were silent or gone for longer are left out, in seconds. The reports of this
            period are read; the topic keeps those of a day.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the reports.
        """
        check_seconds(within_s=within_s)
        return self.parts.worker_reader.read(within_s)

    def other_groups(self, workers: Iterable[WorkerInfo]) -> dict[str, tuple[str, ...]]:
        """The queues whose workers consume with another ``group_id`` than this broker's, each with theirs.

        The commits of this broker's group say nothing of such a queue: completed messages count as waiting.
        A queue of which a living worker is in this broker's group is left out.

        Parameters:
          workers: The workers, as :meth:`workers` returns them.
        """
        return other_groups(workers, self.parts.topics.queue, self.parts.group_of)

    def history(
        self,
        *,
        message_id: str | None = None,
        actor: str | None = None,
        error_type: str | None = None,
        since: datetime | None = None,
        limit: int = 1_000,
        scan_limit: int = 1_000_000,
    ) -> RunHistory:
        """The events of past runs, by their time; ``missing`` of the answer says which may be missing.

        Any process can call this. The history has no index: all events since ``since`` are read.

        Parameters:
          message_id, actor, error_type: Conditions; an event must match all that are given. ``error_type`` is
            the name of the error's class.
          since: The earliest time, with a time zone; by default an hour ago.
          limit: The number of events to return; with more, the latest.
          scan_limit: The number of events to read at most; a million takes some ten seconds.

        Raises:
          ParameterRefused: When a parameter is of another type, ``since`` has no time zone, or a limit is
            below 1.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the history.
        """
        check_texts(message_id=message_id, actor=actor, error_type=error_type)
        check_moments(since=since)
        check_counts(limit=limit, scan_limit=scan_limit)
        since_ms = clock.wall_ms() - DEFAULT_HISTORY_MS
        if since is not None:
            since_ms = max(0, int(since.timestamp() * 1000))
        query = HistoryQuery(message_id, actor, error_type, since_ms, limit, scan_limit)
        return self.parts.history_reader.read(query)

    def arrivals(self, queue_name: str, *, since: datetime, interval_s: float = 60.0) -> Arrivals:
        """The number of records that came to a queue in each interval, retries and redrives included. The
        offsets in the log tell; no record is read.

        Parameters:
          queue_name: The queue, which need not be declared.
          since: The begin, with a time zone.
          interval_s: The length of an interval in seconds; there are at most 1,440 of them.

        Raises:
          QueueNotFound: When the queue is neither declared nor has a topic.
          ParameterRefused: When ``since`` has no time zone or is not past, or there are too many intervals.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the queue.
        """
        if since is None:
            raise ParameterRefused("since=None: pass the begin of the period, a datetime with a time zone")
        check_moments(since=since)
        check_seconds(interval_s=interval_s)
        self._check_known([queue_name])
        return self.parts.arrival_counter.count(queue_name, since, interval_s)

    def queue_names(self, *wanted: str) -> list[str]:
        """The queues of the namespace whose topics exist, whether they are declared here or not.

        Kafka lists only the topics that a client may see: queues that are neither declared here nor wanted
        may be missing.

        Without a namespace, a topic counts as a queue's when the queue is declared, or when its
        dead-letter or lanes topic exists, too.

        Parameters:
          wanted: Names of queues that must not be missing because this client may not see them.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not see a declared or a wanted queue, or any of the namespace.
        """
        for queue_name in wanted:
            check_names(queue_name=queue_name)
        return self.parts.topics.queue_names(self.queues, wanted=wanted)

    def find(
        self,
        queue_name: str,
        *,
        message_id: str | None = None,
        where: Callable[[Message[Any]], bool] | None = None,
        completed: bool = False,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        scan_limit: int = 1_000_000,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> SearchResult:
        """Search the log of a queue for messages. It has no index: the records are read.

        Delayed messages and dead letters are in other topics; see :meth:`delayed` and :meth:`dead_letters`.

        Parameters:
          queue_name: The queue, which need not be declared.
          message_id: The id of the message.
          where: Any other condition.
          completed: Whether to search the completed records that the log still has, too.
          since, until: Only records that Kafka appended within these times, with a time zone. Others are not
            read.
          limit: The number of records to return. The search ends with it.
          scan_limit: The number of records to read at most.
          on_progress: Called meanwhile with the number of records read, and of all.

        Raises:
          InvalidQueueName: When there cannot be a queue of that name.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the queue.
        """
        check_names(queue_name=queue_name)
        check_texts(message_id=message_id)
        check_counts(limit=limit, scan_limit=scan_limit)
        check_moments(since=since, until=until)
        self.parts.topics.check_queue_name(queue_name)
        return self.parts.message_search.find(
            queue_name,
            message_id=message_id,
            where=where,
            completed=completed,
            since_ms=None if since is None else int(since.timestamp() * 1000),
            until_ms=None if until is None else int(until.timestamp() * 1000),
            limit=limit,
            scan_limit=scan_limit,
            on_progress=on_progress,
        )

    def check_topics(self) -> list[TopicState]:
        """The topics of the namespace with their partitions, replicas and settings, and what is wrong with
        them. Nothing is created or changed.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not describe one of them.
        """
        return self.parts.topics.states()

    def check_index_files(self) -> list[IndexFileFinding] | None:
        """The faults of the delay indexes of the namespace on this machine: a directory that may not be
        written, a full disk, files that are unreadable, damaged or of a later version. Kafka is not asked.

        Returns:
          The faults; None when this machine has no directory of indexes, as one without a worker, or when
          this process is itself a worker.
        """
        return self.parts.delays.check_index_files()

    def _queue_states(self, names: Sequence[str]) -> list[QueueState]:
        self._check_known(names)
        try:
            paused: Pauses[Command] | None = self.parts.commands.paused()
        except NotAuthorized:
            paused = None
        return self.parts.queue_states.read(
            names,
            is_paused=lambda name: None if paused is None or name in paused.unreadable else name in paused,
        )
