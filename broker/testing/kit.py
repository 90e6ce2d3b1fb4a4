"""A broker in memory for tests: runs its messages, moves its time, and says what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from dramatiq.errors import ActorNotFound, QueueJoinTimeout, QueueNotFound
from dramatiq.message import Message
from dramatiq.middleware import TimeLimit
from dramatiq.worker import Worker

from ..process import clock
from .clock import ManualClock
from .inline_worker import MAX_RUNS, InlineWorker
from .journal import AnyActor, Journal, assert_dead, name_of
from .memory.clients import MemoryClients
from .memory.cluster import MemoryCluster, MemoryProcess
from .process_time import ProcessTime
from .waiting_messages import WaitingMessages

if TYPE_CHECKING:
    from ..broker import KafkaBroker
    from ..dead_letters import DeadLetter
    from ..delays.view import DelayedMessage

CrashPoint = Literal["before", "after", "settled"]

#: The attributes of a broker that a kit replaces for a while.
_REPLACED = ("parts", "_hooks", "_settings", "middleware", "consumption_paused")
#: The collections of a broker that a test may add to.
_EXTENDED = ("actors", "queues", "actor_options")
#: A join lets time pass so often, from one due time to the next, before it gives up.
MAX_JOIN_STEPS = 500
#: Dramatiq's name of an actor's queue (dramatiq/actor.py); an application need not use it.
DEFAULT_QUEUE = "default"
#: The kits in use, the innermost last: the functions of ``broker.testing`` act on that one.
_active: list[Kit] = []
_process_time = ProcessTime()


class Kit:
    """The broker of a test, whose Kafka is in memory while :meth:`use` is entered.

    Parameters:
      broker: A broker with its actors. Its parts are replaced for a while, and itself stays: whatever has a
        reference to it works on.
      cluster: The cluster, to share one between brokers; a new one by default.
      clock: The clock that the process goes by meanwhile; by default a still one, which kits in use share.

    Attributes:
      enqueued: The messages that were enqueued, with their delays in ms, in order. A retry is no new message.
    """

    def __init__(
        self, broker: KafkaBroker, cluster: MemoryCluster | None = None, clock: ManualClock | None = None
    ) -> None:
        self.broker = broker
        self._given_cluster = cluster
        self._given_clock = clock
        self._journal = Journal()
        self._crash_at: CrashPoint | None = None
        self._crashes = 0
        self._threaded = False
        self._is_draining = False

    @property
    def enqueued(self) -> list[tuple[Message[Any], int | None]]:
        return list(self._journal.entries.values())

    @contextmanager
    def use(self) -> Iterator[Kit]:
        """Let the broker work in memory, and the process go by the clock."""
        broker = self.broker
        kept = {name: getattr(broker, name) for name in _REPLACED}
        extended = {name: type(getattr(broker, name))(getattr(broker, name)) for name in _EXTENDED}
        self.clock = self._given_clock or _process_time.clock or ManualClock()
        self._journal = Journal()
        with ExitStack() as undoing:
            undoing.enter_context(_process_time.use(self.clock, _let_results_come))
            self.cluster = self._given_cluster or MemoryCluster()
            undoing.callback(self._restore, kept, extended)
            broker.middleware = [*broker.middleware, self._journal]
            # Without a worker thread they would wait for nothing.
            vars(broker).update(
                join=self._join, cancel=self._cancel, run_now=self._run_now, flush=self._flush
            )
            self._connect()
            _active.append(self)
            undoing.callback(_active.remove, self)
            undoing.callback(self._leave)
            yield self

    def _restore(self, kept: dict[str, Any], extended: dict[str, Any]) -> None:
        for name in ("join", "cancel", "run_now", "flush"):
            vars(self.broker).pop(name, None)
        for name, content in extended.items():
            own = getattr(self.broker, name)
            own.clear()
            own.update(content)
        vars(self.broker).update(kept)

    def _connect(self) -> None:
        """Give the broker the parts of a new process."""
        clients = MemoryClients(self.cluster)
        self.broker._reassemble(clients, delay_index_dir=":memory:")
        self.worker = InlineWorker(self.broker, clients, self.clock, after_run=self._journal.raise_foreign)
        self.worker.crash_at = self._crash_at

    @property
    def process(self) -> MemoryProcess:
        """The process that the broker's clients belong to now."""
        return self.worker.process

    def _leave(self) -> None:
        self.cluster.come_back()
        self.worker.stop()
        if not self.worker.has_crashed:
            self.broker.close()

    # Running

    def drain(self, *, raise_errors: bool = True, max_runs: int = MAX_RUNS) -> int:
        """Run all due messages and their follow-ups on this thread.

        Retries and delayed messages run once :meth:`advance` has made them due.

        Parameters:
          raise_errors: Whether to raise the first error of a task in the end. An error that its actor names
            in ``throws`` is never raised. An error of the test, such as that of ``pytest.fail()`` in a task,
            is raised at once in any case.
          max_runs: The number of runs after which a task is taken for one that sends itself.

        Returns:
          The number of runs.

        Raises:
          DrainStalled: When a message is left that can neither run nor become a dead letter, with the reason,
            or after ``max_runs``.
          RuntimeError: While a worker with threads runs, or in a task.
        """
        if self._threaded:
            raise RuntimeError("a worker with threads runs the messages: wait with broker.join(queue)")
        if self._is_draining:
            raise RuntimeError("a task cannot drain: the drain that runs it goes on when it has returned")
        self._is_draining = True
        try:
            if self.worker.has_crashed:
                self._restart()
            runs = self.worker.drain(max_runs)
        finally:
            self._is_draining = False
            self._crashes += self.worker.has_crashed
            errors = self._journal.take_errors()
        if errors and raise_errors:
            raise errors[0]
        return runs

    @contextmanager
    def threads(self, **options: Any) -> Iterator[Worker]:
        """Run messages in a ``dramatiq.Worker`` with ``options`` for a while. Real time passes as well."""
        self.worker.stop()
        self._threaded = self.clock.flows = True
        worker = Worker(self.broker, **{"worker_timeout": 100, "worker_threads": 4, **options})
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()
            self._threaded = self.clock.flows = False
            self._journal.take_errors()

    def _restart(self) -> None:
        """Begin a process after the last one was killed."""
        self.worker.stop()
        self._connect()

    def advance(self, duration: timedelta | None = None, **parts: float) -> None:
        """Let time pass: ``advance(hours=2)``, ``advance(timedelta(days=1))``. Nothing runs meanwhile.

        Topics are compacted, and records deleted, as their settings say. A task that calls this is
        interrupted when it has exceeded its time limit.

        Raises:
          TypeError: When ``duration`` is no timedelta.
          ValueError: When it is negative.
        """
        if not isinstance(duration, timedelta | None):
            raise TypeError(f"advance({duration!r}): name the unit, as in advance(seconds={duration!r})")
        self.clock.advance((duration or timedelta()) + timedelta(**parts))
        self.cluster.clean_up()
        for middleware in self.broker.middleware:
            # Its own thread, which only Dramatiq's command line starts, does this once a second.
            if isinstance(middleware, TimeLimit) and hasattr(middleware.manager, "_handle_deadlines"):
                middleware.manager._handle_deadlines()

    @contextmanager
    def crash_worker(self, at: CrashPoint = "after") -> Iterator[None]:
        """Kill the worker's process with the next message that runs within the block. A later :meth:`drain`
        runs in a new process, and within the block that is killed, too.

        Parameters:
          at: "before": when its task would begin. "after": when its task has returned, before anything that
            follows from it is in Kafka. "settled": when everything that follows from it is in Kafka, before
            its offset is committed.

        Raises:
          AssertionError: When no message ran in the block.
          ValueError: When there is no such point.
        """
        if at not in get_args(CrashPoint):
            raise ValueError(f"at={at!r}: the points are {', '.join(map(repr, get_args(CrashPoint)))}")
        if self._threaded:
            raise RuntimeError("a worker with threads does not crash: it is this process")
        outer, crashes = self._crash_at, self._crashes
        self._crash_at = self.worker.crash_at = at
        try:
            yield
        finally:
            self._crash_at = self.worker.crash_at = outer
        if self._crashes == crashes:
            raise AssertionError("no message ran within crash_worker(), so the worker did not crash")

    @contextmanager
    def kafka_away(self) -> Iterator[None]:
        """Let nothing reach Kafka: sends fail after their timeout, which takes no real time."""
        if not self.cluster.reachable.is_set():
            yield
            return
        with self.cluster.away():
            yield

    # In the place of the broker's own methods

    def _join(self, queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
        """See ``KafkaBroker.join``. On a still clock it drains, and lets time pass from one due time to the
        next.
        """
        join = type(self.broker).join
        if not self.clock.flows:
            if self._is_draining:
                raise RuntimeError("a task cannot join a queue: nothing else runs on its thread")
            if self.broker.fail_fast_default if fail_fast is None else fail_fast:
                self.broker.parts.failures.keep_from_now_on()
            self._run_all_of(queue_name, timeout)
        join(self.broker, queue_name, timeout=timeout, fail_fast=fail_fast)

    def _run_all_of(self, queue_name: str, timeout_ms: int | None) -> None:
        deadline_s = None if timeout_ms is None else clock.monotonic_s() + timeout_ms / 1000
        for _ in range(MAX_JOIN_STEPS):
            self.drain(raise_errors=False)
            if self.broker.count(queue_name) == 0:
                return
            delayed = self.delayed(queue_name)
            if not delayed:
                break
            wait_s = max(0.0, delayed[0].due.timestamp() - clock.wall_ms() / 1000)
            if deadline_s is not None and clock.monotonic_s() + wait_s > deadline_s:
                break
            self.advance(seconds=wait_s)
        raise QueueJoinTimeout(
            f"{self.broker.count(queue_name)} message(s) are left in the queue {queue_name!r}, and no worker "
            "thread runs"
        )

    def _cancel(self, message_id: str, **options: Any) -> Any:
        with self._attended():
            return type(self.broker).cancel(self.broker, message_id, **options)

    def _run_now(self, *message_ids: str, **options: Any) -> Any:
        with self._attended():
            return type(self.broker).run_now(self.broker, *message_ids, **options)

    def _flush(self, queue_name: str, **options: Any) -> None:
        with self._attended():
            type(self.broker).flush(self.broker, queue_name, **options)

    @contextmanager
    def _attended(self) -> Iterator[None]:
        """Let the worker do what the caller waits for, although it has no thread. It runs no message.

        A broker that only sends has no worker, unless there is no other one on the cluster: then it is one
        meanwhile.
        """
        if self.clock.flows:
            yield
            return
        if self.worker.has_crashed:
            self._restart()
        on_cluster = [kit.worker for kit in _active if kit.cluster is self.cluster]
        is_needed = not any(worker.is_started and not worker.has_crashed for worker in on_cluster)
        if not self.worker.is_started and not is_needed:
            yield
            return
        with self.clock.attended(self.worker.attend):
            yield
        if is_needed:
            self.worker.stop()

    # What became of messages

    def pending(self, queue_name: str | None = None) -> list[Message[Any]]:
        """The messages of a queue, or of all queues, that are due, also behind others of their key."""
        return [message for waiting in self._waiting(queue_name) for message in waiting.pending()]

    def delayed(self, queue_name: str | None = None) -> list[DelayedMessage]:
        """The messages whose time has not come, retries included, by due time."""
        found = [message for waiting in self._waiting(queue_name) for message in waiting.delayed()]
        return sorted(found, key=lambda message: message.due)

    def dead(self, queue_name: str | None = None) -> list[DeadLetter]:
        """The dead letters of a queue, or of all queues."""
        return [d for name in self._queues(queue_name) for d in self.broker.dead_letters(name)]

    def _waiting(self, queue_name: str | None) -> list[WaitingMessages]:
        return [WaitingMessages(self.broker, self.cluster, name) for name in self._queues(queue_name)]

    def _queues(self, queue_name: str | None) -> list[str]:
        if queue_name is None:
            return list(self.broker.queues)
        if queue_name not in self.broker.queues:
            raise QueueNotFound(queue_name)
        return [queue_name]

    # Assertions

    def assert_enqueued(self, actor: AnyActor, *, times: int | None = None, **wanted: Any) -> Message[Any]:
        """Assert that a message of ``actor`` was enqueued since the test began, whether it has run or not;
        return the first one. A retry is no new message.

        Parameters:
          times: The exact number of such messages; by default at least one.
          wanted: Fields that the message must have: ``args``, ``kwargs``, ``queue_name``, ``options`` (those
            named there) and ``delay``, in ms or as a timedelta (None: no delay).

        Raises:
          AssertionError: With all messages that were enqueued.
          ActorNotFound, QueueNotFound: When the broker has no such actor or queue.
        """
        self._check_names(actor, wanted.get("queue_name"))
        return self._journal.assert_enqueued(actor, times, wanted)

    def assert_not_enqueued(self, actor: AnyActor, **wanted: Any) -> None:
        """Assert that no message of ``actor`` was enqueued; see :meth:`assert_enqueued`."""
        self._check_names(actor, wanted.get("queue_name"))
        self._journal.assert_not_enqueued(actor, wanted)

    def _check_names(self, actor: AnyActor, queue_name: str | None) -> None:
        """Refuse a misspelt name, which no message would ever have.

        A broker that only sends has no actors: those of all kits in use count.
        """
        brokers = [kit.broker for kit in _active]
        actors = {name for broker in brokers for name in broker.actors}
        if name_of(actor) not in actors:
            known = ", ".join(sorted(actors)) or "none"
            raise ActorNotFound(f"there is no actor {name_of(actor)!r}; the actors: {known}")
        queues = {DEFAULT_QUEUE, None}.union(*(broker.queues for broker in brokers))
        if queue_name not in queues:
            raise QueueNotFound(queue_name)

    def assert_dead(self, actor: AnyActor, error: type[BaseException] | str | None = None) -> DeadLetter:
        """Assert that there is a dead letter of ``actor``; return the first one.

        Parameters:
          error: The class of its error, or a superclass, or the name of the class; by default any.

        Raises:
          AssertionError: With all dead letters.
          TypeError: When ``error`` is neither a class nor a name.
        """
        return assert_dead(self.dead(), actor, error)


def _let_results_come() -> None:
    """Let the workers run while a caller waits for a result."""
    for kit in _active:
        if not kit.clock.flows and not kit._is_draining:
            kit.drain(raise_errors=False)


def current() -> Kit:
    """The kit of the test that runs.

    Raises:
      RuntimeError: When none is in use.
    """
    if not _active:
        raise RuntimeError(
            "no broker is in memory: use the fixture kafka_broker, or `with Kit(broker).use():`"
        )
    return _active[-1]
