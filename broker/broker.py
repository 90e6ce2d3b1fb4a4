"""The Dramatiq broker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Unpack, cast

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import QueueNotFound
from dramatiq.message import Message
from dramatiq.middleware import (
    Middleware,
)

from .admin.message_search import SearchResult
from .admin.queue_states import QueueState
from .complete.current_delivery import CurrentDelivery
from .consume.consumer import QueueConsumer
from .control import Command, PauseResult
from .dead_letters import DeadLetter, DeadLetterQueue, Resolved, default_middleware
from .dead_letters.dead_letter import DiscardOptions, Filters, RedriveOptions
from .declared_queues import DeclaredQueues
from .delays import Outcome, Pending
from .deliveries.delivery import Delivery
from .error_text import MAX_TRACEBACK_CHARS, shorten_notes
from .errors import EnqueueFailed, NotAuthorized, RetryPolicyRefused
from .kafka.clients import Clients
from .kafka.topic_layout import TopicLayout
from .kafka.topic_states import TopicState
from .kafka.unreadable_batches import report_missing_codecs
from .parameters import check_ranges
from .partition_keys import PartitionKeys
from .parts import Settings, assemble
from .process import clock
from .process.caller import caller
from .replay import Replay, ReplayResult
from .replay.request import DEFAULT_RATE_PER_S, Ids, OnProgress, ReplayRequest
from .reports.run_history import HistoryQuery, RunHistory
from .reports.worker_states import WorkerInfo
from .retries import TenacityRetries
from .url import reads_url
from .version import VERSION
from .worker.hooks import HookCaller
from .worker.lifecycle import WorkerLifecycle

#: The period of a question for the history that names none.
DEFAULT_HISTORY_MS = 3600 * 1000
DEFAULT_RETENTION_MS = 7 * 24 * 3600 * 1000


class KafkaBroker(Broker):
    """A Dramatiq broker on Kafka topics. The constructor connects to nothing. A broker is thread-safe.

    A message is complete when its task has run and all records that follow from it (a retry, a pipeline's
    next step, a dead letter) are in Kafka. Until then a crash of any process makes it run again: at least
    once, with the same ``message_id``.

    Parameters:
      bootstrap_servers: ``host:port``, several separated by commas, or a list.
      url: The other parameters except ``middleware`` as a URL, for frameworks that configure a broker so:
        ``kafka://user:password@host:9092,host2:9092/namespace?group_id=shop``; see ``url.py``.
      group_id: Workers with the same group share the work. Each queue has a consumer group of its own,
        ``{group_id}.{namespace}{queue}``.
      namespace: The prefix of every topic's name, so that several applications can share a cluster.
      partitions: The partition count of created topics. It limits the number of processes that share one
        queue, but not the number of concurrent tasks.
      replication_factor: The replication factor of created topics; 3 on a cluster of three or more nodes.
      retention_ms: The time for which Kafka keeps the records of a created queue, done or not. A message that
        waits for longer is lost, with an error in the log.
      middleware: All middleware; by default Dramatiq's, with durable retries (see ``default_middleware``).
        Dead letters, delays and partition keys work without middleware.
      client_options: Further settings of kafka-python: ``security_protocol``, ``sasl_*``, ``ssl_*``,
        ``client_id``.
      commit_interval_ms: The interval of commits. A crash repeats at most the work of one interval.
      enqueue_timeout_ms: The timeout of the connection to Kafka, and again of the acknowledgement. After it
        ``enqueue`` raises EnqueueFailed.
      session_timeout_ms: The time without heartbeats after which a worker loses its partitions.
      max_crashes: A message is dead-lettered as PoisonMessage when its worker process died so often while it
        ran. At least 3: the first crash shows that a message kills its worker, the second names the suspects,
        and the third proves which one it is.
      delay_index_dir: The directory of the indexes of delayed messages (a cache; see ``broker/delays``).
      fail_fast_default: The default of ``fail_fast`` of :meth:`join`.
      reports: Whether a worker writes its state to Kafka every 2 to 10 seconds, and the history of its runs.
      history_per_s: The number of successful runs that the history of a worker process records each second.
        The others are counted. Failed runs are always recorded. -1 for no history.
      app_version: The application's version, which the reports name.

    Attributes:
      version: The version of the distribution, such as ``"0.1.0"``.
      consumption_paused: While it is true, this process's consumers dispatch nothing and keep their
        partitions; for applications whose tasks cannot succeed for a while.
      parts: The parts of the broker, for tests and tools; they may change with any version.

    Raises:
      ValueError: When a parameter is out of its range, or is given in the URL, too.
    """

    version = VERSION
    queues: DeclaredQueues

    @reads_url
    def __init__(
        self,
        bootstrap_servers: str | list[str] = "localhost:9092",
        *,
        url: str | None = None,
        group_id: str = "dramatiq",
        namespace: str = "",
        partitions: int = 4,
        replication_factor: int = 1,
        retention_ms: int = DEFAULT_RETENTION_MS,
        middleware: list[Middleware] | None = None,
        client_options: Mapping[str, Any] | None = None,
        commit_interval_ms: int = 250,
        enqueue_timeout_ms: int = 30_000,
        session_timeout_ms: int = 10_000,
        max_crashes: int = 3,
        delay_index_dir: str | None = None,
        fail_fast_default: bool = False,
        reports: bool = True,
        history_per_s: int = 500,
        app_version: str = "",
    ) -> None:
        check_ranges(
            partitions=partitions,
            replication_factor=replication_factor,
            retention_ms=retention_ms,
            commit_interval_ms=commit_interval_ms,
            enqueue_timeout_ms=enqueue_timeout_ms,
            session_timeout_ms=session_timeout_ms,
            max_crashes=max_crashes,
            history_per_s=history_per_s,
        )
        self.consumption_paused = False
        self.fail_fast_default = fail_fast_default
        self._current_delivery = CurrentDelivery()
        self._layout = TopicLayout(partitions, replication_factor, retention_ms)
        self._settings = Settings(
            group_id=group_id,
            namespace=namespace,
            commit_interval_ms=commit_interval_ms,
            enqueue_timeout_ms=enqueue_timeout_ms,
            session_timeout_ms=session_timeout_ms,
            max_crashes=max_crashes,
            delay_index_dir=delay_index_dir,
            reports=reports,
            history_per_s=history_per_s,
            app_version=app_version,
        )
        self._assemble(Clients(bootstrap_servers, client_options))
        super().__init__(middleware=default_middleware() if middleware is None else middleware)
        self.queues = DeclaredQueues(self.queues)
        self.queues.read = self._queue_states
        if not any(isinstance(m, PartitionKeys) for m in self.middleware):
            self.add_middleware(PartitionKeys())
        self.add_middleware(self._new_lifecycle())
        self._call_always()
        # Also when the policy is refused, with a better reason than Dramatiq's.
        self.actor_options.add("retry")

    def _assemble(self, clients: Clients) -> None:
        self.parts = assemble(
            self,
            clients,
            self._layout,
            self._settings,
            is_paused=lambda: self.consumption_paused,
            fails_fast=lambda: self.fail_fast_default,
        )
        self._hooks = HookCaller(
            self, self.parts.in_flight, self._current_delivery, self.parts.runs, requeue=self._requeue
        )

    def _new_lifecycle(self) -> WorkerLifecycle:
        return WorkerLifecycle(
            self.parts.shutdown,
            self.parts.topics,
            self.parts.identity,
            self.parts.reporter,
            control=self.parts.control,
            notices=self.parts.notices,
            new_forwarder=self.parts.new_forwarder,
            consumers=lambda: list(self.parts.consumers),
            registrar=self.parts.registrar,
            new_death_note_reader=self.parts.death_note_reader,
        )

    def _call_always(self) -> None:
        """Let middleware act although an application removes it from the list.

        Ordered keys would lose their order, and delayed messages would never be forwarded.
        """
        self._hooks.listeners.always = [
            m for m in self.middleware if isinstance(m, PartitionKeys | WorkerLifecycle)
        ]

    def _reassemble(self, clients: Clients, *, delay_index_dir: str | None) -> None:
        """Replace the parts by new ones that use ``clients``, as in a new process; see ``broker.testing``."""
        self._settings = replace(self._settings, delay_index_dir=delay_index_dir)
        self._assemble(clients)
        lifecycle = self._new_lifecycle()
        self.middleware = [lifecycle if isinstance(m, WorkerLifecycle) else m for m in self.middleware]
        self._call_always()

    @property
    def dead_letter_queue(self) -> DeadLetterQueue:
        """The dead letters of all queues, and the history of their redrives and discards."""
        return self.parts.dead_letter_queue

    # Actors, queues and messages

    def declare_actor(self, actor: Actor[Any, Any]) -> None:
        """Declare an actor.

        Raises:
          RetryPolicyRefused: When its ``retry=`` cannot run durably, or no middleware runs it.
        """
        policy_runs = any(isinstance(m, TenacityRetries) for m in self.middleware)
        if actor.options.get("retry") is not None and not policy_runs:
            raise RetryPolicyRefused(
                f"The retry= of actor {actor.actor_name!r} is refused: it needs TenacityRetries, which is "
                "not in the broker's middleware. Replace Dramatiq's Retries by it."
            )
        super().declare_actor(actor)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue. Its topics are created when the first message or the first consumer needs them.

        Raises:
          InvalidQueueName: When the topics would have illegal names.
        """
        if queue_name in self.queues:
            return
        self.parts.topics.check_queue_name(queue_name, beside=self.queues)
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)

    def _check_declared(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> QueueConsumer:
        """Get a consumer of a declared queue.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
          TopicMisconfigured: When a topic that the queue needs loses messages.
        """
        self._check_declared(queue_name)
        self.parts.completer.start()  # here, because Dramatiq interrupts worker threads
        report_missing_codecs()
        needs = self.parts.operations(queue_name).working()
        with self.parts.clients.naming_all(f"a worker of {queue_name!r}", needs):
            consumer = QueueConsumer(
                self.parts.consumer_config(queue_name),
                self.parts.for_consumers,
                prefetch=prefetch,
                timeout_ms=timeout,
            )
        self.parts.consumers.add(consumer)
        return consumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message and return once Kafka has acknowledged it.

        A message that middleware enqueues while a worker finishes a delivery is not sent at once. It joins
        that delivery, which completes once Kafka has the message.

        Parameters:
          delay: The minimum delay in milliseconds.

        Raises:
          EnqueueFailed: When Kafka did not acknowledge the message in time. It may still arrive.
        """
        delivery = self._current_delivery.delivery
        if delivery is None:
            return self.enqueue_many([message], delay=delay)[0]
        try:
            self._add_to_outbox(delivery, message, delay)
        except Exception as e:
            self._current_delivery.failure = e
            raise
        self.emit_after("enqueue", message, delay)
        return message

    def _add_to_outbox(self, delivery: Delivery, message: Message[Any], delay: int | None) -> None:
        if delivery.is_retry(message):
            # Dramatiq's Retries limits the frames of the traceback, but not the error's text.
            shorten_notes(message.options, MAX_TRACEBACK_CHARS)
        self.emit_before("enqueue", message, delay)
        if delivery.is_retry(message):
            delivery.retry_at_ms = clock.wall_ms() + (delay or 0)
        outgoing = self.parts.outgoing
        notes = outgoing.make_fit(message, delay) if message.message_id == delivery.message_id else {}
        try:
            if not self.parts.lane_writer.wait_in_lane(delivery, message, delay, self.actors):
                outgoing.add_to_outbox(delivery, message, delay)
        finally:
            message.options.update(notes)

    def _requeue(self, message: MessageProxy) -> None:
        self.enqueue(cast("Message[Any]", message))

    def enqueue_many(
        self, messages: Iterable[Message[Any]], *, delay: int | None = None
    ) -> list[Message[Any]]:
        """Enqueue many messages with a single wait for all of them.

        Raises:
          EnqueueFailed: When Kafka did not acknowledge all of them; ``failures`` has the failed ones. The
            others are enqueued.
        """
        messages = list(messages)
        records = []
        for message in messages:
            self.emit_before("enqueue", message, delay)
            records.append(self.parts.outgoing.record(message, delay))
        failures = self.parts.publisher.publish(records)
        for index, message in enumerate(messages):
            if index not in failures:
                self.emit_after("enqueue", message, delay)
        if failures:
            raise EnqueueFailed({messages[index].message_id: reason for index, reason in failures.items()})
        return messages

    def ping(self, timeout_s: float = 2.0) -> None:
        """Check that the cluster answers a request.

        Raises:
          KafkaUnavailable: When there is no answer within ``timeout_s``.
        """

        def find() -> None:
            with self.parts.clients.admin():
                pass

        self.parts.clients.ask(find, "Kafka did not answer", deadline_s=clock.monotonic_s() + timeout_s)

    # Waiting messages

    def join(self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
        """Wait until every message of a queue, delayed ones included, is complete, on whichever worker.

        Parameters:
          timeout: Milliseconds.
          fail_fast: Whether to raise the error of the first message that became a dead letter since the last
            such join or flush of the queue, or since the creation of this broker; for tests. The default is
            ``fail_fast_default``. It reads the queue's dead letters.

        Raises:
          QueueNotFound: When the queue was not declared.
          QueueJoinTimeout: When messages are left after ``timeout``.
          Exception: The error of the task, when it ran in this process after the first join that fails fast
            had begun, or with ``fail_fast_default``. Its traceback is in its notes.
          MessageFailed: When another process ran the task, or none did, or it ran before; with the text of
            the dead letter.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        fails_fast = self.fail_fast_default if fail_fast is None else fail_fast
        if fails_fast:
            self.parts.failures.keep_from_now_on()
        self.parts.unfinished.wait(queue_name, timeout_ms=timeout)
        if fails_fast:
            error = self.parts.failures.first(queue_name)
            if error is not None:
                raise error

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

    def flush(self, queue_name: str) -> None:
        """Drop the waiting messages of a queue, delayed messages included.

        Running messages continue, and :meth:`join` waits for them. After this call no message starts that had
        waited. The call takes about a second while workers hold some of the messages.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer. The remaining messages stay.
        """
        self._check_declared(queue_name)
        self.parts.unfinished.drop(queue_name)
        self.parts.failures.forget(queue_name)

    def flush_all(self) -> None:
        """Drop every message of every declared queue."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def delayed(self, queue_name: str, *, limit: int = 100) -> Pending:
        """The delayed messages of a queue: their number, the next due time, and the first ``limit`` by due
        time.

        Waiting retries are included. Any process can call this, without a worker: it reads Kafka.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        return self.parts.delays.pending(queue_name, limit=limit)

    def cancel(self, message_id: str, *, timeout_s: float = 10.0) -> Outcome:
        """Drop a delayed message, or one that waits for its retry; see ``Delays.cancel``.

        A worker must run; it decides: CANCELLED, TOO_LATE or UNKNOWN.

        Raises:
          CancelUndecided: When no worker decided within ``timeout_s``. The request stands.
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        return self.parts.delays.cancel(message_id, timeout_s=timeout_s)

    def cancel_outcome(self, message_id: str) -> Outcome | None:
        """The decision about cancelling a message, which is kept for a week; None without a decision.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.parts.delays.outcome(message_id)

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
          ValueError: When a parameter is out of its range, or the range has more than a million messages.
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
        return self.parts.worker_reader.read(within_s)

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
          ValueError: When ``since`` has no time zone, or a limit is below 1.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the history.
        """
        if since is not None and since.tzinfo is None:
            raise ValueError(f"since={since!r} has no time zone: pass datetime.now(UTC) - ..., for example")
        if limit < 1 or scan_limit < 1:
            raise ValueError(f"limit={limit}, scan_limit={scan_limit}: both are at least 1")
        since_ms = clock.wall_ms() - DEFAULT_HISTORY_MS if since is None else int(since.timestamp() * 1000)
        query = HistoryQuery(message_id, actor, error_type, since_ms, limit, scan_limit)
        return self.parts.history_reader.read(query)

    def queue_names(self) -> list[str]:
        """The queues of the namespace whose topics exist, whether they are declared here or not.

        Without a namespace, a topic counts as a queue's when the queue is declared, or when its
        dead-letter or lanes topic exists, too.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.parts.topics.queue_names(self.queues)

    def find(
        self,
        queue_name: str,
        *,
        message_id: str | None = None,
        where: Callable[[Message[Any]], bool] | None = None,
        completed: bool = False,
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
          limit: The number of records to return. The search ends with it.
          scan_limit: The number of records to read at most.
          on_progress: Called meanwhile with the number of records read, and of all.

        Raises:
          InvalidQueueName: When there cannot be a queue of that name.
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client may not read the queue.
        """
        self.parts.topics.check_queue_name(queue_name)
        return self.parts.message_search.find(
            queue_name,
            message_id=message_id,
            where=where,
            completed=completed,
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

    def _queue_states(self, names: Sequence[str]) -> list[QueueState]:
        for name in names:
            if name not in self.queues:
                self.parts.topics.check_queue_name(name)
        try:
            paused: Collection[str] | None = self.parts.commands.paused()
        except NotAuthorized:
            paused = None
        return [
            self.parts.queue_states.read(name, is_paused=None if paused is None else name in paused)
            for name in names
        ]

    # Commands to workers

    def pause(
        self, queue_name: str, *, reason: str, by: str | None = None, timeout_s: float = 0.0
    ) -> PauseResult:
        """Let no task of a queue begin, on any worker of the namespace, until :meth:`resume`.

        The pause is durable: it outlives this process, the workers and a restart of Kafka. Running tasks
        continue. The queue takes messages, retries and due delayed messages, which wait in their order; Kafka
        deletes them after the queue's retention.

        The call returns when Kafka has acknowledged the pause. Workers read it within milliseconds. A result
        with ``in_force`` says that no task of the queue begins any more; see ``docs/control.md`` for the
        workers that are frozen or cut off from Kafka.

        Parameters:
          reason: Why, for the log of each worker.
          by: Who; this system's user and host by default.
          timeout_s: The time for which the call waits until the pause is in force, at most 11 s.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer. The pause may stand.
          NotAuthorized: When this client may not write to the control topic.
          TopicMisconfigured: When the settings of the control topic lose commands.
        """
        self._check_declared(queue_name)
        return self.parts.commands.pause(queue_name, reason=reason, by=by, timeout_s=timeout_s)

    def resume(self, queue_name: str, *, reason: str = "", by: str | None = None) -> Command:
        """End the pause of a queue. It has no effect on a queue that is not paused.

        The call returns when Kafka has acknowledged it. The parameters and errors are those of
        :meth:`pause`.
        """
        self._check_declared(queue_name)
        return self.parts.commands.resume(queue_name, reason=reason, by=by)

    def paused_queues(self) -> dict[str, Command]:
        """The pauses that stand, by queue, read from Kafka. Queues that are not declared here are among them.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.parts.commands.paused()

    def quiet(self, worker_id: str, *, reason: str = "", by: str | None = None) -> Command:
        """Let a worker process take no more work. Its running tasks continue, and it lives on.

        Other workers get its prefetched messages: it leaves the group of a queue as soon as none of its tasks
        of that queue runs. It stays quiet until it ends. The command expires after a day.

        Parameters:
          worker_id: The id of the worker, as its log and its reports name it.

        Raises:
          KafkaUnavailable, NotAuthorized, TopicMisconfigured: As :meth:`pause`.
        """
        return self.parts.commands.quiet(worker_id, reason=reason, by=by)

    def stop(self, worker_id: str, *, reason: str = "", by: str | None = None) -> Command:
        """End a worker process in good order: it sends SIGTERM to itself.

        Dramatiq's command line stops all its processes when one of them ends. The parameters and errors are
        those of :meth:`quiet`.
        """
        return self.parts.commands.stop(worker_id, reason=reason, by=by)

    # Hooks and shutdown

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        if signal == "worker_shutdown":
            # Before the first hook: one of the hooks interrupts tasks, and an idle thread would take the
            # messages that they hand back.
            self.parts.shutdown.begin_stopping()
            for consumer in list(self.parts.consumers):
                consumer.wake()
        self._hooks.emit_before(signal, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        self._hooks.emit_after(signal, *args, **kwargs)

    def close(self) -> None:
        """Close this process's connections. The broker connects again when it is used again."""
        self.parts.close()
