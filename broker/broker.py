"""The Dramatiq broker."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Unpack, cast

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import QueueJoinTimeout, QueueNotFound
from dramatiq.message import Message
from dramatiq.middleware import (
    Callbacks,
    GroupCallbacks,
    Interrupt,
    Middleware,
    MiddlewareError,
    Pipelines,
    Retries,
    Shutdown,
    SkipMessage,
)
from kafka.structs import TopicPartition

from .admin.backlog import Backlog
from .admin.lane_backlog import LaneBacklog
from .complete.completer import Completer, PendingDeadLetter
from .complete.current_delivery import CurrentDelivery
from .complete.lane_writer import LaneWriter
from .consume.consumer import QueueConsumer
from .dead_letters import DeadLetter, DeadLetterQueue, Resolved, default_middleware
from .dead_letters.dead_letter import DiscardOptions, Filters, RedriveOptions
from .dead_letters.failures import Failures
from .dead_letters.giving_up import give_up
from .dead_letters.record_format import shortened
from .dead_letters.undelivered import dead_letter_undelivered
from .delays import Delays, Outcome, Pending
from .delays.record_format import Delay
from .deliveries.delivery import Delivery
from .deliveries.in_flight import InFlightDeliveries
from .error_text import MAX_TRACEBACK_CHARS, NOTES, error_text, shorten_notes
from .errors import EnqueueFailed, NotNow, RetryPolicyRefused
from .kafka.clients import ASK_TIMEOUT_S, Clients
from .kafka.rights import Denials, Rights
from .kafka.topics import TopicLayout, Topics
from .kafka.unreadable_batches import report_missing_codecs
from .partition_keys import PartitionKeys, key_of
from .partition_keys.record_format import REQUEUE_HEADERS_BYTES, lane_header
from .process.forks import reset_on_fork
from .produce.publisher import Publisher, Record
from .retries import TenacityRetries
from .url import reads_url
from .worker.hooks import HookListeners
from .worker.lifecycle import WorkerLifecycle
from .worker.topic_repair import TopicRepair

DEFAULT_RETENTION_MS = 7 * 24 * 3600 * 1000
#: How long a stopping worker waits for what its last tasks left to publish, and then for its goodbye to the
#: group.
SETTLE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_MS = 5_000
#: What is left of it for each further queue once others have waited for Kafka in vain.
SHORT_LEAVE_GROUP_S = 0.25
JOIN_POLL_S = 0.1
#: What a count in join() may take at least, however soon its time is up.
MIN_COUNT_S = 5.0
#: What a consumer waits for an answer at most. kafka-python's own 30 s would hold up a shutdown as long.
REQUEST_TIMEOUT_MS = 10_000

#: Tried in order until a retry fits: how many characters of its traceback and its error's text stay.
NOTES_CHARS = (2_000, 200, 0)

#: Middleware whose failure would lose what follows from a message. Dramatiq logs such a failure and acks.
_FOLLOW_UP_MIDDLEWARE = (Retries, Pipelines, Callbacks, GroupCallbacks)
#: How an attempt ends that does not count as one.
_NO_ATTEMPT = (Shutdown, NotNow)
_HOOK_FAILED = "Unexpected failure in %s of %r."


class KafkaBroker(Broker):
    """A Dramatiq broker on Kafka topics. Making one connects to nothing, and one may be used by many threads.

    A message is complete when its task has run and everything that follows from it (a retry, a pipeline's
    next step, a dead letter) is in Kafka. Until then a crash of any process makes it run again: at least
    once, with the same ``message_id``.

    Parameters:
      bootstrap_servers: ``host:port``, several separated by commas, or a list.
      url: The other parameters but ``middleware`` in one text, for frameworks that hand a broker over so:
        ``kafka://user:password@host:9092,host2:9092/namespace?group_id=shop``; see ``url.py``.
      group_id: Workers with the same group share the work. Each queue has a consumer group of its own,
        ``{group_id}.{namespace}{queue}``.
      namespace: Put before the name of every topic, so that several applications can share a cluster.
      partitions: How many partitions a topic is created with. They do not limit how many tasks run at once,
        but how many processes can share one queue.
      replication_factor: What a topic is created with; 3 on a cluster of three or more.
      retention_ms: How long Kafka keeps the records of a queue it creates, done or not. A message that waits
        for longer is lost, with an error in the log.
      middleware: All middleware; by default Dramatiq's, with durable retries (see ``default_middleware``).
        Dead letters, delays and partition keys are the broker's own and need none.
      client_options: What else kafka-python is to be given: ``security_protocol``, ``sasl_*``, ``ssl_*``,
        ``client_id``.
      commit_interval_ms: How often finished work is committed: the work of at most that long is repeated by a
        crash.
      enqueue_timeout_ms: How long it may take to reach Kafka before ``enqueue`` raises EnqueueFailed, and
        then how long Kafka may take to acknowledge the message.
      session_timeout_ms: How long a worker may be silent before its partitions go to others.
      max_crashes: A message whose worker process died with it that often is dead-lettered as PoisonMessage.
        At least 3: the first crash shows that there is a culprit, the second who it may be, the third that
        it is.
      delay_index_dir: Where the index of delayed messages is kept (a cache; see ``broker/delays``).
      fail_fast_default: Whether :meth:`join` raises the error of a message that failed, where it is not said.

    Raises:
      ValueError: When a parameter is out of its range, or is given in the URL, too.
    """

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
    ) -> None:
        if max_crashes < 3:
            raise ValueError(
                f"max_crashes is {max_crashes}; a culprit can only be told from bystanders by the third crash"
            )
        self.group_id = group_id
        self.commit_interval_ms = commit_interval_ms
        self.max_crashes = max_crashes
        self.close_timeout_ms = CLOSE_TIMEOUT_MS
        self._close_timeouts_s = 0.0
        self.consumer_settings = {
            "session_timeout_ms": session_timeout_ms,
            # A rebalance waits until each member has learnt of it with a heartbeat.
            "heartbeat_interval_ms": min(1_000, session_timeout_ms // 3),
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
        }
        self.consumption_paused = False
        self.clients = Clients(bootstrap_servers, client_options)
        self.topics = Topics(
            self.clients, TopicLayout(partitions, replication_factor, retention_ms), namespace=namespace
        )
        self.publisher = Publisher(self.clients, self.topics, timeout_ms=enqueue_timeout_ms)
        self.in_flight = InFlightDeliveries()
        # Its own producer: what a worker owes Kafka is not to wait behind what its tasks send.
        self._completion_publisher = Publisher(self.clients, self.topics, timeout_ms=enqueue_timeout_ms)
        self.completer = Completer(self._completion_publisher, self.in_flight, give_up=self._give_up)
        self.delays = Delays(
            self.clients,
            self.topics,
            self.publisher,
            index_dir=delay_index_dir,
            add_dead_letter=self._dead_letter_delayed,
        )
        self.dead_letter_queue = DeadLetterQueue(self.clients, self.topics, self.publisher)
        self.fail_fast_default = fail_fast_default
        self.failures = Failures(self.dead_letter_queue)
        self.lane_writer = LaneWriter(
            self.topics, self._completion_publisher, self.in_flight, group=group_id, give_up=self._give_up
        )
        self._lanes = LaneBacklog(
            self.clients, self.topics, self.publisher, group=group_id, written=self.lane_writer.written
        )
        self._current_delivery = CurrentDelivery()
        self._hook_listeners = HookListeners()
        self.stopping = False
        #: Set when ``stopping`` is, for who waits.
        self.stop_asked = threading.Event()
        self._settle_deadline_s: float | None = None
        self.consumers: weakref.WeakSet[QueueConsumer] = weakref.WeakSet()
        self.silent_since_s: dict[str, float] = {}
        self.mending = TopicRepair()
        self.denials = Denials()
        reset_on_fork(self)

        super().__init__(middleware=default_middleware() if middleware is None else middleware)
        self.queues: dict[str, None] = {}
        if not any(isinstance(m, PartitionKeys) for m in self.middleware):
            self.add_middleware(PartitionKeys())
        self.add_middleware(WorkerLifecycle())
        # Without them an ordered key would lose its order, and nothing delayed would ever be forwarded.
        self._hook_listeners.always = [
            m for m in self.middleware if isinstance(m, PartitionKeys | WorkerLifecycle)
        ]
        self.actor_options.add("retry")  # also where it is refused, with better reasons than Dramatiq has

    def reset_after_fork(self) -> None:
        """Be no worker: in the child of a fork, its consumers and its threads are the parent's."""
        self.stopping = False
        self.stop_asked = threading.Event()
        self.consumers = weakref.WeakSet()
        self.silent_since_s = {}

    # Names

    def group_of(self, queue_name: str) -> str:
        """The consumer group of a queue: one for all of them would rebalance all whenever one changes."""
        return f"{self.group_id}.{self.topics.queue(queue_name)}"

    def topics_of(self, queue_name: str) -> list[str]:
        """The topics that a worker of a queue needs."""
        return [self.topics.queue(queue_name), self.topics.dead_letters(queue_name), self.topics.delayed]

    # Actors, queues and messages

    def declare_actor(self, actor: Actor[Any, Any]) -> None:
        """Declare an actor.

        Raises:
          RetryPolicyRefused: When its ``retry=`` cannot be run durably, or no middleware would run it.
        """
        policy_runs = any(isinstance(m, TenacityRetries) for m in self.middleware)
        if actor.options.get("retry") is not None and not policy_runs:
            raise RetryPolicyRefused(
                f"The retry= of actor {actor.actor_name!r} is refused: it needs TenacityRetries, which is "
                "not in the broker's middleware. Put it there in the place of Dramatiq's Retries."
            )
        super().declare_actor(actor)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue. Its topics are created when the first message or the first consumer needs them.

        Raises:
          InvalidQueueName: When Kafka could not hold them.
        """
        if queue_name in self.queues:
            return
        self.topics.check_queue_name(queue_name, beside=self.queues)
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
        self.completer.start()  # here, because a worker's threads are interrupted
        report_missing_codecs()
        consumer = QueueConsumer(self, queue_name, prefetch=prefetch, timeout_ms=timeout)
        self.consumers.add(consumer)
        return consumer

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message and return once Kafka has acknowledged it.

        What middleware enqueues while a worker finishes a delivery is not sent here: it joins that delivery,
        which completes once Kafka has it.

        Parameters:
          delay: Milliseconds after which it may run at the earliest.

        Raises:
          EnqueueFailed: When Kafka did not acknowledge it in time. It may still arrive.
        """
        delivery = self._current_delivery.delivery
        if delivery is None:
            return self.enqueue_many([message], delay=delay)[0]
        try:
            self._join(delivery, message, delay)
        except Exception as e:
            self._current_delivery.failure = e
            raise
        self.emit_after("enqueue", message, delay)
        return message

    def _join(self, delivery: Delivery, message: Message[Any], delay: int | None) -> None:
        is_retry = delivery.is_retry(message)
        if is_retry:
            # Dramatiq's Retries bounds its frames and not the error's text.
            shorten_notes(message.options, MAX_TRACEBACK_CHARS)
        self.emit_before("enqueue", message, delay)
        if message.message_id == delivery.message_id:
            self._make_fit(message, delay)
        if self.lane_writer.keeps(delivery, message, delay, self.actors):
            return
        record = self._record(message, delay)
        if is_retry:
            delivery.drop_retry()  # two middlewares that retry would double it at every failure
            delivery.retry = record
        delivery.outbox.append(record)

    def enqueue_many(
        self, messages: Iterable[Message[Any]], *, delay: int | None = None
    ) -> list[Message[Any]]:
        """Enqueue many messages with a single wait for all of them.

        Raises:
          EnqueueFailed: When Kafka did not acknowledge all of them; ``failures`` says which. The others are
            enqueued.
        """
        messages = list(messages)
        records = []
        for message in messages:
            self.emit_before("enqueue", message, delay)
            records.append(self._record(message, delay))
        failures = self.publisher.publish(records)
        for index, message in enumerate(messages):
            if index not in failures:
                self.emit_after("enqueue", message, delay)
        if failures:
            raise EnqueueFailed({messages[index].message_id: reason for index, reason in failures.items()})
        return messages

    def ping(self, timeout_s: float = 2.0) -> None:
        """Ask the cluster for a sign of life.

        Raises:
          KafkaUnavailable: When none comes within ``timeout_s``.
        """

        def find() -> None:
            with self.clients.admin():
                pass

        self.clients.ask(find, "Kafka gave no sign of life", deadline_s=time.monotonic() + timeout_s)

    # What waits

    def join(self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
        """Wait until every message of a queue, delayed ones included, is complete, whichever worker runs it.

        Parameters:
          timeout: Milliseconds.
          fail_fast: Then raise the error of the first message that became a dead letter since the last such
            join or flush of the queue, or since this broker was made: for tests. By default what
            ``fail_fast_default`` says. It reads the queue's dead letters.

        Raises:
          QueueNotFound: When the queue was not declared.
          QueueJoinTimeout: When messages are left after ``timeout``.
          Exception: The error of the task, when it ran in this process. Its traceback is in its notes.
          MessageFailed: When another process ran it, or no task did; it says what the dead letter says.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        deadline_s = None if timeout is None else time.monotonic() + timeout / 1000
        while left := self._count(queue_name, until_s=deadline_s):
            if deadline_s is not None and time.monotonic() >= deadline_s:
                raise QueueJoinTimeout(
                    f"{left} message(s) are left in the queue {queue_name!r} after {timeout} ms"
                )
            time.sleep(JOIN_POLL_S)
        if fail_fast or (fail_fast is None and self.fail_fast_default):
            error = self.failures.first(queue_name)
            if error is not None:
                raise error

    def count(self, queue_name: str) -> int:
        """How many messages of a queue are not complete: waiting, delayed, running or being settled.

        One that moves between the queue and the delayed topic may be counted twice, but it is only 0 when
        nothing was left.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        return self._count(queue_name)

    def _count(self, queue_name: str, *, until_s: float | None = None) -> int:
        now_s = time.monotonic()
        deadline_s = now_s + ASK_TIMEOUT_S
        if until_s is not None:  # one that has passed leaves time for an answer all the same
            deadline_s = min(deadline_s, max(until_s, now_s + MIN_COUNT_S))
        topic, group = self.topics.queue(queue_name), self.group_of(queue_name)
        return self.clients.ask(
            lambda: self._count_once(queue_name),
            f"What is left of the queue {queue_name!r} could not be counted",
            deadline_s=deadline_s,
            patient=False,
            rights=Rights((topic,), group=group, on_group="DESCRIBE"),
        )

    def _count_once(self, queue_name: str) -> int:
        self.topics.ensure(self.topics_of(queue_name), for_reading=True)
        before = self.delays.pending(queue_name, limit=0)
        with Backlog(self.clients, self.topics.queue(queue_name), self.group_of(queue_name)) as backlog:
            waiting = backlog.count()
        # Read after the queue: what moves from there into its lane is counted at least once.
        waiting += self._lanes.count(queue_name)
        after = self.delays.pending(queue_name, limit=0)
        left = max(before.count, after.count) + waiting
        return left if before.position == after.position else max(1, left)

    def flush(self, queue_name: str) -> None:
        """Drop what waits of a queue, delayed messages included.

        What runs is not stopped, and :meth:`join` waits for it. Nothing that had waited begins any more once
        this returns, which takes about a second while workers hold some of it.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer. What is not dropped by then stays.
        """
        self._check_declared(queue_name)
        self.topics.ensure(self.topics_of(queue_name), for_reading=True)
        self.delays.flush(queue_name)
        self._lanes.flush(queue_name)
        self._drop(queue_name)
        if self._lanes.flush(queue_name):
            # What a worker held had moved there meanwhile, and some of it may be on its way back.
            self._drop(queue_name)
        self.failures.forget(queue_name)

    def _drop(self, queue_name: str) -> None:
        topic, group = self.topics.queue(queue_name), self.group_of(queue_name)

        def ends() -> dict[TopicPartition, int]:
            with Backlog(self.clients, topic, group) as backlog:
                return backlog.ends()

        def drop() -> None:
            with Backlog(self.clients, topic, group) as backlog:
                backlog.drop(dropped)

        doing = f"The queue {queue_name!r} could not be flushed"
        dropped = self.clients.ask(ends, doing, rights=Rights((topic,), group=group))
        self.clients.ask(drop, doing, rights=Rights((topic,), on_topic="DELETE", group=group))

    def flush_all(self) -> None:
        """Drop every message of every declared queue."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def delayed(self, queue_name: str, *, limit: int = 100) -> Pending:
        """What waits for its time: how many, when the next is due, and the first ``limit`` by due time.

        Retries wait there too. It is read from Kafka, in any process and without a worker.

        Raises:
          QueueNotFound: When the queue was not declared.
          KafkaUnavailable: When Kafka does not answer.
        """
        self._check_declared(queue_name)
        return self.delays.pending(queue_name, limit=limit)

    def cancel(self, message_id: str, *, timeout_s: float = 10.0) -> Outcome:
        """Drop a message that waits for its time, or for its retry; see ``Delays.cancel``.

        It takes a worker, which decides: CANCELLED, TOO_LATE or UNKNOWN.

        Raises:
          CancelUndecided: When no worker decided within ``timeout_s``. The request stands.
          KafkaUnavailable: When Kafka does not answer. The request may stand.
        """
        return self.delays.cancel(message_id, timeout_s=timeout_s)

    def cancel_outcome(self, message_id: str) -> Outcome | None:
        """What was decided about cancelling a message. It is kept for a week; None means nothing is decided.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.delays.outcome(message_id)

    def dead_letters(self, queue_name: str, **filters: Unpack[Filters]) -> Iterator[DeadLetter]:
        """The dead letters of a queue that were neither redriven nor discarded.

        Their history is in ``dead_letter_queue``.

        Parameters:
          filters: See ``dead_letters.letter.Filters``; all of them have to hold.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        return self.dead_letter_queue.read(queue_name, **filters)

    def redrive(self, queue_name: str, **options: Unpack[RedriveOptions]) -> Resolved:
        """Put dead letters back on their queue; see ``DeadLetterQueue.redrive``. A dry run by default."""
        return self.dead_letter_queue.redrive(queue_name, **options)

    def discard(self, queue_name: str, **options: Unpack[DiscardOptions]) -> Resolved:
        """Put dead letters away; see ``DeadLetterQueue.discard``. A dry run by default."""
        return self.dead_letter_queue.discard(queue_name, **options)

    # The life of a delivery

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        if signal == "process_message":
            self._begin(args[0])
        elif signal == "worker_shutdown":
            # Before the first hook: one of them interrupts tasks, and an idle thread would take what those
            # hand back.
            self.begin_stopping()
        hook = f"before_{signal}"
        listeners = self._hook_listeners.of(self.middleware, hook)
        if listeners and signal in ("ack", "nack"):
            if _is_withdrawn(args[0]):
                return
            with self._current_delivery.of(args[0]):
                self._call_before(listeners, hook, *args, **kwargs)
        else:
            self._call_before(listeners, hook, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        hook = f"after_{signal}"
        listeners = self._hook_listeners.of(self.middleware, hook)
        if signal in ("process_message", "skip_message"):
            if not _is_withdrawn(args[0]):
                with self._current_delivery.of(args[0]):
                    self._call_following(listeners, hook, *args, **kwargs)
            return
        if listeners and signal in ("ack", "nack") and _is_withdrawn(args[0]):
            return
        for middleware in reversed(listeners):
            try:
                getattr(middleware, hook)(self, *args, **kwargs)
            except Exception:
                self.logger.critical(_HOOK_FAILED, hook, middleware, exc_info=True)

    def _call_before(self, listeners: list[Middleware], hook: str, *args: Any, **kwargs: Any) -> None:
        for middleware in listeners:
            try:
                getattr(middleware, hook)(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical(_HOOK_FAILED, hook, middleware, exc_info=True)

    def _call_following(
        self, listeners: list[Middleware], hook: str, message: MessageProxy, **kwargs: Any
    ) -> None:
        """Unlike Dramatiq's emit_after, fail a message whose follow-up was lost instead of acking it, and let
        one Retries decide about a failure: a second one would retry it twice, or give it up besides.
        """
        error = kwargs.get("exception")
        is_decided = False
        for middleware in reversed(listeners):
            decides = error is not None and isinstance(middleware, Retries)
            if decides and is_decided:
                continue
            try:
                getattr(middleware, hook)(self, message, **kwargs)
            except (Exception, Interrupt) as e:
                # An interrupt that comes too late for the task hits whatever its thread does by then. If it
                # got past here, Dramatiq would ack.
                self.logger.critical(_HOOK_FAILED, hook, middleware, exc_info=True)
                if isinstance(middleware, _FOLLOW_UP_MIDDLEWARE):
                    self._current_delivery.failure = e
            if decides:
                is_decided = message.failed or _is_retried(message)
        if error is not None and self._is_undecided(message):
            self._decide(message, error)
        if (failure := self._current_delivery.failure) is not None:
            if isinstance(message, Delivery):
                # A dead letter takes the place of all of it: a message is tried again or given up, not both.
                message.drop_outbox()
            message.stuff_exception(failure)
            message.fail()

    def _is_undecided(self, message: MessageProxy) -> bool:
        """Whether a failed message has neither been given up nor gets another attempt.

        A Retries that is there decides, also when it does neither. Without one Dramatiq acks the message.
        """
        return (
            isinstance(message, Delivery)
            and not message.failed
            and not _is_retried(message)
            and not any(isinstance(m, Retries) for m in self.middleware)
        )

    def _decide(self, message: MessageProxy, error: BaseException) -> None:
        if not isinstance(error, _NO_ATTEMPT):
            self.logger.warning(
                "Message %r fails for good, since there is no Retries middleware: %s",
                message.message_id,
                error_text(error),
            )
            message.fail()
            return
        try:
            self.enqueue(cast("Message[Any]", message))
        except (Exception, Interrupt) as e:  # noqa: BLE001 - whatever it was, a dead letter says so
            self._current_delivery.failure = e

    def _begin(self, message: MessageProxy) -> None:
        if isinstance(message, Delivery) and not self.in_flight.begin(message):
            # The one who has the partition now runs it, and calls the hooks, or nobody does: it was flushed.
            message.withdrawn = True
            raise SkipMessage("its partition was taken away, or it was flushed, before it began")

    def _give_up(self, delivery: Delivery | PendingDeadLetter, error: BaseException) -> None:
        """Let a dead letter that says so take the place of an outbox that Kafka can never take.

        Another dead letter would be refused, too: one that is there is shortened, and held until its topic
        takes it.
        """
        self.logger.error("What follows from %s cannot be published: %r", delivery, error)
        if isinstance(delivery, PendingDeadLetter):  # it brings nothing but a dead letter
            delivery.outbox[:] = [shortened(self.topics, dead_letter) for dead_letter in delivery.outbox]
            return
        if (dead_letter := delivery.dead_letter) is not None:
            delivery.dead_letter = shortened(self.topics, dead_letter)
            delivery.outbox[delivery.outbox.index(dead_letter)] = delivery.dead_letter
            return
        delivery.preparation = partial(give_up, self, delivery, error)
        delivery.drop_outbox()

    def _dead_letter_delayed(self, delay: Delay, error: BaseException) -> PendingDeadLetter:
        """Keep a delayed message in the dead letters whose queue refuses it for good."""
        return dead_letter_undelivered(
            self,
            delay.queue,
            message_id=delay.message_id,
            origin=None,
            raw=delay.value,
            headers=delay.headers,
            error=error,
        )

    def _make_fit(self, message: Message[Any], delay: int | None) -> None:
        """Shorten what a retry says about its last failure, when the message would not fit for it."""
        notes = {name: message.options[name] for name in NOTES if name in message.options}
        for at_most in NOTES_CHARS:
            if self.publisher.seems_to_fit(self._record(message, delay)):
                return
            shorten_notes(message.options, at_most)
        if not self.publisher.seems_to_fit(self._record(message, delay)):
            message.options.update(notes)  # for its dead letter

    def _record(self, message: Message[Any], delay: int | None) -> Record:
        if message.queue_name not in self.queues:  # those were checked when they were declared
            self.topics.check_queue_name(message.queue_name)
        # A retry is enqueued as the delivery that it follows from; what came with that one goes on with it.
        headers = list(getattr(message, "headers", ()))
        if (key := key_of(message)) is not None:
            headers.append(lane_header(key))
        if delay is not None:
            return self.delays.record(message, delay, headers=headers, key=key)
        spare = 0 if key is None else REQUEUE_HEADERS_BYTES
        topic = self.topics.queue(message.queue_name)
        return Record(topic, message.encode(), key=key, headers=headers, spare=spare)

    # The life of a process

    def begin_working(self) -> None:
        """Let a worker run, also after another one was stopped."""
        self.stopping = False
        self.stop_asked.clear()

    def begin_stopping(self) -> None:
        """Hand out nothing more, commit what finishes at once, and wait for no Kafka that does not answer."""
        self.stopping = True
        self.stop_asked.set()
        self._settle_deadline_s = None
        self._close_timeouts_s = 0.0

    def hurry(self, timeout_s: float) -> None:
        """Begin to stop, and let nothing of it take longer than ``timeout_s``."""
        self.begin_stopping()
        self._settle_deadline_s = time.monotonic() + timeout_s
        self.close_timeout_ms = int(timeout_s * 1000)

    def leave_group_timeout_s(self) -> float:
        """How long a consumer may wait for Kafka while it closes.

        Those of a worker that stops are closed one after another. What some of them wait in vain is taken
        from the others: a worker of many queues would otherwise take many times as long while Kafka is away.
        """
        return max(SHORT_LEAVE_GROUP_S, self.close_timeout_ms / 1000 - self._close_timeouts_s)

    def note_close_timeout(self, waited_s: float) -> None:
        """A consumer has closed without an answer from Kafka."""
        if self.stopping:
            self._close_timeouts_s += waited_s

    def drain_if_stopping(self) -> None:
        """In a worker that is stopping, wait for what its last tasks left to publish.

        All its queues and :meth:`close` share one SETTLE_TIMEOUT_S, which begins with the first that waits.
        """
        if self.stopping:
            self.completer.drain(self._settle_time_left_s())

    def _settle_time_left_s(self) -> float:
        if self._settle_deadline_s is None:
            self._settle_deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
        return max(0.0, self._settle_deadline_s - time.monotonic())

    def close(self) -> None:
        """Close this process's connections. The broker connects again when it is used again."""
        self.completer.stop(timeout_s=self._settle_time_left_s() if self.stopping else 0.0)
        self.delays.close()
        self._lanes.close()
        self.publisher.close()
        self._completion_publisher.close()


def _is_retried(message: MessageProxy) -> bool:
    return isinstance(message, Delivery) and message.is_retried


def _is_withdrawn(message: MessageProxy) -> bool:
    return isinstance(message, Delivery) and message.withdrawn
