"""The Dramatiq broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import (
    Middleware,
)

from .admin.flush_markers import FlushNote
from .complete.current_delivery import CurrentDelivery
from .consume.consumer import QueueConsumer
from .dead_letters import default_middleware
from .declared_queues import DeclaredQueues
from .deliveries.delivery import Delivery
from .error_text import MAX_TRACEBACK_CHARS, shorten_notes
from .errors import EnqueueFailed, HardTimeLimitRefused, RetryPolicyRefused
from .expiry import EXPIRES_IN, check_expires_in, set_expiry
from .kafka.clients import Clients
from .kafka.topic_layout import TopicLayout
from .kafka.unreadable_batches import report_missing_codecs
from .operator_methods import OperatorMethods
from .parameters import check_ranges
from .partition_keys import PartitionKeys
from .parts import Settings, assemble
from .process import clock
from .process.caller import caller
from .produce.record import Record
from .retries import TenacityRetries
from .schedules import check_timing
from .url import reads_url
from .version import VERSION
from .worker.hard_limits import HARD_TIME_LIMIT, check_hard_limit
from .worker.hooks import HookCaller
from .worker.lifecycle import WorkerLifecycle

DEFAULT_RETENTION_MS = 7 * 24 * 3600 * 1000


class KafkaBroker(OperatorMethods, Broker):
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
      replication_factor: The copies of created topics. None: 3, with ``min.insync.replicas=2``, on a cluster
        of three nodes or more, and otherwise the cluster's default.
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
        replication_factor: int | None = None,
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
        self._hard_limits_ms: dict[str, int] = {}
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
        self.actor_options.add("schedule")
        self.actor_options.add(EXPIRES_IN)
        self.actor_options.add(HARD_TIME_LIMIT)

    def _assemble(self, clients: Clients) -> None:
        self.parts = assemble(
            self,
            clients,
            self._layout,
            self._settings,
            enqueue=self.enqueue,
            is_paused=lambda: self.consumption_paused,
            fails_fast=lambda: self.fail_fast_default,
            hard_limits_ms=self._hard_limits_ms,
        )
        self._hooks = HookCaller(
            self,
            self.parts.in_flight,
            self._current_delivery,
            self.parts.runs,
            self.parts.aborts,
            self.parts.hard_limits,
            self.parts.unique_marks,
            self.parts.key_paces,
            requeue=self._requeue,
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
            new_scheduler=self.parts.new_scheduler,
            has_schedules=lambda: bool(self.parts.schedules.declared),
            consumers=lambda: list(self.parts.consumers),
            registrar=self.parts.registrar,
            hard_limits=self.parts.hard_limits,
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

    # Actors, queues and messages

    def declare_actor(self, actor: Actor[Any, Any]) -> None:
        """Declare an actor.

        Raises:
          RetryPolicyRefused: When its ``retry=`` cannot run durably, or no middleware runs it.
          ScheduleRefused: When its ``schedule=`` is no timing.
          ExpiryRefused: When its ``expires_in=`` is no time span.
          HardTimeLimitRefused: When its ``hard_time_limit=`` is no time span, or is too short.
        """
        policy_runs = any(isinstance(m, TenacityRetries) for m in self.middleware)
        if actor.options.get("retry") is not None and not policy_runs:
            raise RetryPolicyRefused(
                f"The retry= of actor {actor.actor_name!r} is refused: it needs TenacityRetries, which is "
                "not in the broker's middleware. Replace Dramatiq's Retries by it."
            )
        if (timing := actor.options.get("schedule")) is not None:
            check_timing(timing, f"the schedule of the actor {actor.actor_name!r}")
        check_expires_in(actor.options.get(EXPIRES_IN), f"The expires_in= of the actor {actor.actor_name!r}")
        hard_limit_ms = check_hard_limit(actor.actor_name, actor.options)
        super().declare_actor(actor)
        if hard_limit_ms is not None:
            self._hard_limits_ms[actor.actor_name] = hard_limit_ms

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
          ExpiryRefused: When its ``expires_in=`` or ``expires_at=`` is no time span or no instant.
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
        records: list[Record] = []
        begun = 0
        try:
            for message in messages:
                self.emit_before("enqueue", message, delay)
                begun += 1
                records.append(self.parts.outgoing.record(message, delay))
            failures = self.parts.publisher.publish(records)
        except BaseException as e:
            for message in messages[:begun]:
                self.emit_after("enqueue_failure", message, e)
            raise
        for index, message in enumerate(messages):
            if index in failures:
                self.emit_after("enqueue_failure", message, failures[index])
            else:
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

    def flush(self, queue_name: str, *, reason: str = "", by: str | None = None) -> None:
        """Drop the waiting messages of a queue, delayed messages included.

        Running messages continue, and :meth:`join` waits for them. Their records are deleted with the others:
        one whose worker is killed afterwards does not run again. After this call no message starts that had
        waited. The call takes about a second while workers hold some of the messages.

        Parameters:
          reason: Why, which Kafka keeps for a week beside the offsets up to which the queue was flushed; at
            most 500 characters.
          by: Who; this system's user and host by default.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer. The remaining messages stay.
        """
        self._check_declared(queue_name)
        note = FlushNote(clock.wall_ms(), caller() if by is None else by, reason)
        self.parts.unfinished.drop(queue_name, note)
        self.parts.failures.forget(queue_name)

    def flush_all(self) -> None:
        """Drop every message of every declared queue."""
        for queue_name in self.queues:
            self.flush(queue_name)

    # Hooks and shutdown

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        if signal == "worker_shutdown":
            # Before the first hook: one of the hooks interrupts tasks, and an idle thread would take the
            # messages that they hand back.
            self.parts.shutdown.begin_stopping()
            for consumer in list(self.parts.consumers):
                consumer.wake()
        if signal == "enqueue":
            message, delay = args
            actor = self.actors.get(message.actor_name)
            if HARD_TIME_LIMIT in message.options:
                raise HardTimeLimitRefused(
                    f"hard_time_limit= was given to one message of {message.actor_name!r}; declare it on the "
                    "actor."
                )
            set_expiry(message, delay, {} if actor is None else actor.options)
        self._hooks.emit_before(signal, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        self._hooks.emit_after(signal, *args, **kwargs)

    def close(self) -> None:
        """Close this process's connections. The broker connects again when it is used again."""
        self.parts.close()
