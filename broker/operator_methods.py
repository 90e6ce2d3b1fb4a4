"""The methods of the broker for operators: count, search, redrive, replay, pause, and look at workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Unpack

from dramatiq.errors import QueueNotFound
from dramatiq.message import Message

from .admin.arrivals import Arrivals
from .admin.lane_backlog import LaneState
from .admin.message_search import SearchResult
from .admin.queue_states import QueueState
from .control import AbortOutcome, Command, PauseResult, Pauses
from .dead_letters import DeadLetter, DeadLetterQueue, Imported, Resolved
from .dead_letters.dead_letter import DiscardOptions, Filters, RedriveOptions
from .declared_queues import DeclaredQueues
from .delays import Cancellation, Outcome, Pending
from .delays.index_check import IndexFileFinding
from .errors import NotAuthorized, ParameterRefused, UnknownWorker
from .kafka.topic_layout import TopicLayout
from .kafka.topic_plan import TopicPlan, names_of, plan_topics
from .kafka.topic_states import TopicState
from .parameters import (
    check_counts,
    check_moments,
    check_names,
    check_ranges,
    check_seconds,
    check_texts,
)
from .parts import Parts
from .process import clock
from .process.caller import caller
from .replay import Replay, ReplayResult
from .replay.request import DEFAULT_RATE_PER_S, Ids, OnProgress, ReplayRequest
from .reports.history_event import EventKind
from .reports.run_history import HistoryQuery, RunHistory
from .reports.worker_states import WorkerInfo, other_groups
from .schedules import Schedules

#: The period of a question for the history that names none.
DEFAULT_HISTORY_MS = 3600 * 1000
#: The time for which an abort is in force: the default retention of a queue.
ABORT_EXPIRES_AFTER_MS = 7 * 24 * 3600 * 1000
#: The clock of a worker may be behind that of an operator by so much.
CLOCK_SKEW_MS = 60_000
#: The interval in which a caller that waits for an abort reads the history.
ABORT_POLL_S = 0.25
#: The time for which the topic of the reports keeps those of a worker.
REPORTS_KEPT_S = 24 * 3600.0


class OperatorMethods:
    """The part of :class:`broker.KafkaBroker` that any process can use, without a worker and without actors.

    State is read from Kafka, and commands are written there. No worker is asked.
    """

    parts: Parts
    queues: DeclaredQueues

    @property
    def schedules(self) -> Schedules:
        """The schedules of the namespace: ``put``, ``get``, ``list``, ``pause``, ``resume``, ``delete`` and
        ``run_now``; see ``docs/schedules.md``.
        """
        return self.parts.schedules

    # Waiting messages and dead letters

    def count(self, queue_name: str) -> int:
        """The number of incomplete messages of a queue: waiting, delayed, running or being settled.

        A message that moves between the queue and the delayed topic may be counted twice. The count is 0 only
        when no message is left.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        return self.parts.unfinished.count(queue_name)

    def delayed(self, queue_name: str, *, limit: int = 100) -> Pending:
        """The delayed messages of a queue: their number, the next due time, and the first ``limit`` by due
        time.

        Waiting retries are included. Any process can call this, without a worker: it reads Kafka.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        check_counts(0, limit=limit)
        return self.parts.delays.pending(queue_name, limit=limit)

    def lanes(self, queue_name: str, *, limit: int = 20) -> list[LaneState]:
        """The partition keys with the most messages that wait in Kafka for an earlier one of their key, or
        for a retry that keeps its order; the longest first.

        Messages behind a key that a worker has read ahead are not in Kafka, and not counted. Any process can
        call this.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        check_counts(0, limit=limit)
        return self.parts.lane_backlog.longest(queue_name, limit)

    def cancel(
        self, message_id: str, *, timeout_s: float = 10.0, reason: str = "", by: str | None = None
    ) -> Outcome:
        """Drop a delayed message, or one that waits for its retry; see ``Delays.cancel``.

        A worker must run; it decides: CANCELLED, TOO_LATE or UNKNOWN.

        Parameters:
          reason, by: Why and who, for :meth:`cancellations`; this system's user and host by default.

        Raises:
          CancelUndecided: When no worker decided within ``timeout_s``. The request stands.
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        check_names(message_id=message_id)
        check_seconds(timeout_s=timeout_s)
        check_texts(reason=reason, by=by)
        return self.parts.delays.cancel(message_id, reason=reason, by=by, timeout_s=timeout_s)

    def run_now(self, *message_ids: str, timeout_s: float = 10.0) -> dict[str, Outcome | None]:
        """Run delayed messages, and those that wait for their retry, now; see ``Delays.run_now``.

        A worker must run: it forwards them. A keyed message whose retry keeps its order waits in its lane,
        and not here: it is UNKNOWN.

        Returns:
          The outcome of each message: FORWARDED, TOO_LATE, UNKNOWN, CANCELLED, or None when no worker has
          forwarded it within ``timeout_s``. The request stands then.

        Raises:
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        for message_id in message_ids:
            check_names(message_id=message_id)
        check_seconds(timeout_s=timeout_s)
        return self.parts.delays.run_now(message_ids, timeout_s=timeout_s)

    def cancel_outcome(self, message_id: str) -> Outcome | None:
        """The decision about cancelling a message, which is kept for a week; None without a decision.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        check_names(message_id=message_id)
        return self.parts.delays.outcome(message_id)

    def cancellations(self, message_id: str) -> list[Cancellation]:
        """The requests to cancel a message, by their time: who asked, why, and what came of it. They are kept
        for a week after the decision.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        check_names(message_id=message_id)
        return self.parts.delays.cancellations(message_id)

    @property
    def dead_letter_queue(self) -> DeadLetterQueue:
        """The dead letters of all queues, and the history of their redrives and discards."""
        return self.parts.dead_letter_queue

    def dead_letters(self, queue_name: str, **filters: Unpack[Filters]) -> Iterator[DeadLetter]:
        """The dead letters of a queue that were neither redriven nor discarded.

        Their history is in ``dead_letter_queue``.

        Parameters:
          filters: See ``dead_letters.dead_letter.Filters``. A dead letter must match all of them.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.dead_letter_queue.read(queue_name, **filters)

    def redrive(self, queue_name: str, **options: Unpack[RedriveOptions]) -> Resolved:
        """Put dead letters back on their queue; see ``DeadLetterQueue.redrive``. A dry run by default."""
        return self.dead_letter_queue.redrive(queue_name, **options)

    def import_dead_letters(
        self,
        queue_name: str,
        dead_letters: Iterable[DeadLetter],
        *,
        dry_run: bool = True,
        reason: str = "",
        by: str | None = None,
        include_resolved: bool = False,
        on_progress: Callable[[Imported], object] | None = None,
    ) -> Imported:
        """Write copies of dead letters, unless they are here already; see ``DeadLetterQueue.import_copies``.
        A dry run by default.

        ``other.import_dead_letters("mail", broker.dead_letters("mail"))`` copies those of another cluster.
        """
        return self.dead_letter_queue.import_copies(
            queue_name,
            dead_letters,
            dry_run=dry_run,
            reason=reason,
            by=by,
            include_resolved=include_resolved,
            on_progress=on_progress,
        )

    def discard(self, queue_name: str, **options: Unpack[DiscardOptions]) -> Resolved:
        """Discard dead letters; see ``DeadLetterQueue.discard``. A dry run by default."""
        return self.dead_letter_queue.discard(queue_name, **options)

    def replay(
        self,
        queue_name: str,
        *,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = True,
        ids: Ids = "same",
        rate_per_s: float | None = DEFAULT_RATE_PER_S,
        limit: int | None = None,
        reason: str = "",
        by: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> ReplayResult:
        """Run the messages again that the queue's log still has; see ``docs/control.md``. A dry run by
        default.

        A message runs once, with the content of its latest record in the range and without its attempts, and
        the messages of a key keep their order. Messages that are not complete, and dead letters, are left
        alone. The log is read from the range to its end when the call begins.

        An interrupted replay can be repeated: the messages that it has sent are not sent again. Two
        concurrent replays of the same messages are not prevented.

        Parameters:
          actor: The actor; all by default.
          since, until: The range of the times at which records came to the queue: at or after ``since`` and
            before ``until``, with a time zone. An open end by default.
          dry_run: Only report the messages that would run.
          ids: ``"same"``: the messages keep their ids; ``"new"``: each gets a new one.
          rate_per_s: The maximum number of messages per second; None for no limit.
          limit: The maximum number of messages, the first ones in the log.
          reason: Why, for the record of the replay. Required unless it is a dry run.
          by: Who; this system's user and host by default.
          on_progress: Called with the result so far after each batch that Kafka has acknowledged. An error
            of it interrupts the replay.

        Raises:
          QueueNotFound: When the queue was not declared.
          ParameterRefused: When a parameter is out of its range, or the range has more than a million
            messages.
          EnqueueFailed: When Kafka did not acknowledge some messages. Repeat the replay.
          KafkaUnavailable: When Kafka does not answer. Repeat the replay.
          NotAuthorized: When this client lacks a right.
        """
        self._check_declared(queue_name)
        who = caller() if by is None else by
        request = ReplayRequest(queue_name, actor, since, until, dry_run, ids, rate_per_s, limit, reason, who)
        return self.parts.replayer.run(request, on_progress)

    def replays(self) -> list[Replay]:
        """The replays of the last 90 days, of all queues, by time: who ran what again, when and why.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the control topic.
        """
        return self.parts.replayer.replays()

    # Workers and queues, from outside

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

    # Commands to workers

    def pause(
        self, queue_name: str, *, reason: str, by: str | None = None, timeout_s: float = 0.0
    ) -> PauseResult:
        """Let no task of a queue begin, on any worker of the namespace, until :meth:`resume`.

        The pause is durable: it outlives this process, the workers and a restart of Kafka. Running tasks
        continue. The queue takes messages, retries and due delayed messages, which wait in their order; Kafka
        deletes them after the queue's retention.

        The call returns when Kafka has acknowledged the pause. Workers read it within milliseconds. A result
        that ``is_certain`` says that no task of the queue begins any more; see ``docs/control.md`` for the
        workers that are frozen or cut off from Kafka, and for those that cannot read commands.

        Parameters:
          reason: Why, for the log of each worker.
          by: Who; this system's user and host by default.
          timeout_s: The time for which the call waits until the pause is in force, at most 11 s; and 3 s more
            for the report of a worker that has just joined.

        Raises:
          QueueNotFound: When the queue was not declared.
          ParameterRefused: When the reason is blank, or a parameter is of another type.
          KafkaUnavailable: When Kafka does not answer. The pause may stand.
          NotAuthorized: When this client may not write to the control topic.
          TopicMisconfigured: When the settings of the control topic lose commands.
        """
        self._check_declared(queue_name)
        return self.parts.commands.pause(queue_name, reason=reason, by=by, timeout_s=timeout_s)

    def abort(
        self,
        message_id: str,
        *,
        reason: str = "",
        by: str | None = None,
        expires_at: datetime | None = None,
        timeout_s: float = 0.0,
    ) -> AbortOutcome:
        """Let a message not run, wherever it is: on its queue, delayed, behind an earlier one of its key, or
        running.

        A message that has not begun is completed without a run, when its turn comes. A running task gets
        ``Abort`` in its thread, or its coroutine is cancelled. No attempt is counted, and there is neither a
        retry nor a dead letter. The abort is durable: it outlives workers, and it is in force until it
        expires, also for a redrive of the message.

        Parameters:
          reason, by: Why and who, for the record; this system's user and host by default.
          expires_at: The end of the abort, with a time zone; by default after a week.
          timeout_s: The time for which the call waits until a worker has said that the message is aborted. It
            says so in the history: without reports, the outcome is RECORDED.

        Raises:
          ParameterRefused: When ``expires_at`` has no time zone or is over, or 100,000 aborts stand.
          KafkaUnavailable: When Kafka does not answer. The abort may stand.
          NotAuthorized: When this client may not write to the control topic.
        """
        check_names(message_id=message_id)
        check_moments(expires_at=expires_at)
        check_seconds(timeout_s=timeout_s)
        now_ms = clock.wall_ms()
        expires_at_ms = now_ms + ABORT_EXPIRES_AFTER_MS
        if expires_at is not None:
            expires_at_ms = int(expires_at.timestamp() * 1000)
        if expires_at_ms <= now_ms:
            raise ParameterRefused(f"expires_at={expires_at} is over")
        self.parts.commands.abort(message_id, expires_at_ms=expires_at_ms, reason=reason, by=by)
        deadline_s = clock.monotonic_s() + timeout_s
        since = datetime.fromtimestamp((now_ms - CLOCK_SKEW_MS) / 1000, UTC)
        while clock.monotonic_s() < deadline_s:
            events = self.history(message_id=message_id, since=since)
            if any(event.kind == EventKind.ABORTED for event in events):
                return AbortOutcome.ABORTED
            clock.sleep(ABORT_POLL_S)
        return AbortOutcome.RECORDED

    def resume(self, queue_name: str, *, reason: str = "", by: str | None = None) -> Command:
        """End the pause of a queue. It has no effect on a queue that is not paused.

        The call returns when Kafka has acknowledged it. The parameters and errors are those of
        :meth:`pause`.
        """
        self._check_declared(queue_name)
        return self.parts.commands.resume(queue_name, reason=reason, by=by)

    def paused_queues(self) -> Pauses[Command]:
        """The pauses that stand, by queue, read from Kafka. Queues that are not declared here are among them.

        The dictionary's ``unreadable`` names the queues whose last command is damaged, or of a later version:
        whether they are paused is unknown. ``is_complete`` is true without one.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.parts.commands.paused()

    def pauses(self) -> Pauses[PauseResult]:
        """The same with the workers of each queue: those that have applied the pause, and in ``unknown``
        those that may run tasks nevertheless. Any process can call this, also long after the pause.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the commands.
        """
        return self.parts.commands.pauses()

    def quiet(
        self, worker_id: str, *, reason: str = "", by: str | None = None, allow_unseen: bool = False
    ) -> Command:
        """Let a worker process take no more work. Its running tasks continue, and it lives on.

        Other workers get its prefetched messages: it leaves the group of a queue as soon as none of its tasks
        of that queue runs. It stays quiet until it ends. The command expires after a day.

        Parameters:
          worker_id: The id of the worker, as its log and its reports name it.
          allow_unseen: Whether the worker may be one that has not reported within a day, as a worker that is
            about to start, or one with ``reports=False``.

        Raises:
          UnknownWorker: When no worker of that id has reported within a day. Nothing was recorded.
          KafkaUnavailable, NotAuthorized, TopicMisconfigured: As :meth:`pause`.
        """
        check_names(worker_id=worker_id)
        if not allow_unseen:
            self._check_has_reported(worker_id)
        return self.parts.commands.quiet(worker_id, reason=reason, by=by)

    def stop(
        self, worker_id: str, *, reason: str = "", by: str | None = None, allow_unseen: bool = False
    ) -> Command:
        """End a worker process in good order: it sends SIGTERM to itself.

        Dramatiq's command line stops all its processes when one of them ends. The parameters and errors are
        those of :meth:`quiet`.
        """
        check_names(worker_id=worker_id)
        if not allow_unseen:
            self._check_has_reported(worker_id)
        return self.parts.commands.stop(worker_id, reason=reason, by=by)

    def _check_has_reported(self, worker_id: str) -> None:
        known = [worker.worker_id for worker in self.workers(within_s=REPORTS_KEPT_S)]
        if worker_id not in known:
            raise UnknownWorker(worker_id, known)

    def plan_topics(
        self,
        *queue_names: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        retention_ms: int | None = None,
    ) -> TopicPlan:
        """The topics and the least rights that an application needs, compared with the cluster's topics. For
        clusters where applications create nothing. Nothing is created or changed.

        ``plan.topic_commands()`` and ``plan.acl_commands()`` are for Kafka's own tools;
        :meth:`apply_topics` creates the missing topics.

        Parameters:
          queue_names: The queues, which need not exist; by default the declared ones, and those with topics.
          partitions, replication_factor, retention_ms: As those of the broker, which are the defaults.

        Raises:
          ParameterRefused: When there is no queue, or a number is out of its range.
          InvalidQueueName: When there cannot be a queue of a name.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not describe one of the topics.
        """
        topics = self.parts.topics
        given = {
            "partitions": partitions,
            "replication_factor": replication_factor,
            "retention_ms": retention_ms,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        check_ranges(**changes)
        names = list(dict.fromkeys(queue_names)) or sorted({*self.queues, *topics.queue_names(self.queues)})
        if not names:
            raise ParameterRefused("name the queues of the plan: none is declared, and none exists")
        for name in names:
            check_names(queue_name=name)
            if name not in self.queues:
                topics.check_queue_name(name)
        return self._plan(names, replace(topics.layout, **changes))

    def apply_topics(self, plan: TopicPlan) -> TopicPlan:
        """Create the missing topics of a plan. Existing topics are not changed, and no right is granted.

        Returns:
          The same plan, compared with the topics that there are now.

        Raises:
          KafkaUnavailable: When Kafka does not answer, or refuses to create a topic.
          NotAuthorized: When this client may not create one. It needs CREATE on the topics.
        """
        if plan.missing:
            self.parts.topics.create([topic.name for topic in plan.missing], plan.layout)
        names = [topic.queue_name for topic in plan.topics if topic.queue_name is not None]
        return self._plan(list(dict.fromkeys(names)), plan.layout)

    def _plan(self, queue_names: Sequence[str], layout: TopicLayout) -> TopicPlan:
        topics, settings = self.parts.topics, self.parts.settings
        layout = topics.fitted(layout)
        return plan_topics(
            topics,
            queue_names,
            topics.states_of(names_of(topics, queue_names)),
            group_id=settings.group_id,
            servers=self.parts.clients.bootstrap_servers,
            layout=layout,
        )

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

    def _check_known(self, names: Sequence[str]) -> None:
        """Raise unless each queue is declared here, or has a topic."""
        for name in names:
            check_names(queue_name=name)
            if name not in self.queues:
                self.parts.topics.check_queue_name(name)
        if self.queues.keys() >= set(names):
            return
        known = self.parts.topics.queue_names({*self.queues, *names})
        for name in names:
            if name not in known and name not in self.queues:
                there = ", ".join(sorted({*known, *self.queues})) or "none yet"
                raise QueueNotFound(f"No queue {name!r} is known; the queues of the namespace: {there}.")

    def _check_declared(self, queue_name: str) -> None:
        check_names(queue_name=queue_name)
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
