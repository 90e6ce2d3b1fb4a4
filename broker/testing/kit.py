"""A broker in memory for tests: runs its messages, moves its time, and says what became of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import dramatiq.common
import dramatiq.message
from dramatiq.actor import Actor
from dramatiq.message import Message
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from ..offsets.commit_metadata import decode
from ..process import clock
from .clock import ManualClock
from .inline_worker import InlineWorker
from .memory.clients import MemoryClients
from .memory.cluster import MemoryCluster, MemoryProcess

if TYPE_CHECKING:
    from ..broker import KafkaBroker
    from ..dead_letters import DeadLetter
    from ..delays.view import DelayedMessage

CrashPoint = Literal["before", "after", "settled"]

#: The attributes of a broker that a kit replaces for a while.
_REPLACED = ("parts", "_hooks", "_settings", "middleware", "consumption_paused")
#: The kits in use, the innermost last: the functions of ``broker.testing`` act on that one.
_active: list[Kit] = []


class _Journal(Middleware):
    """Notes the messages that are enqueued, each once, with the delay of its first enqueue."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[Message[Any], int | None]] = {}

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        self.entries.setdefault(message.message_id, (message.copy(), delay))


class Kit:
    """The broker of a test, whose Kafka is in memory while :meth:`use` is entered.

    Parameters:
      broker: A broker with its actors. Its parts are replaced for a while, and itself stays: whatever has a
        reference to it works on.
      cluster: The cluster, to share one between brokers; a new one by default.
      clock: The clock that the process goes by meanwhile.

    Attributes:
      enqueued: The messages that were enqueued, with their delays in ms, in order. A retry is no new message.
    """

    def __init__(
        self, broker: KafkaBroker, cluster: MemoryCluster | None = None, clock: ManualClock | None = None
    ) -> None:
        self.broker = broker
        self.clock = clock or ManualClock()
        self._given_cluster = cluster
        self._journal = _Journal()
        self._crash_at: CrashPoint | None = None
        self._threaded = False

    @property
    def enqueued(self) -> list[tuple[Message[Any], int | None]]:
        return list(self._journal.entries.values())

    @contextmanager
    def use(self) -> Iterator[Kit]:
        """Let the broker work in memory, and the process go by the clock."""
        broker = self.broker
        kept = {name: getattr(broker, name) for name in _REPLACED}
        with ExitStack() as undoing:
            undoing.enter_context(clock.use(self.clock))
            undoing.enter_context(_dramatiq_by(self.clock))
            self.cluster = self._given_cluster or MemoryCluster()
            undoing.callback(lambda: vars(broker).update(kept))
            broker.middleware = [*broker.middleware, self._journal]
            self._connect()
            _active.append(self)
            undoing.callback(_active.remove, self)
            undoing.callback(self._leave)
            yield self

    def _connect(self) -> None:
        """Give the broker the parts of a new process."""
        clients = MemoryClients(self.cluster)
        self.broker._reassemble(clients, delay_index_dir=":memory:")
        self.worker = InlineWorker(self.broker, clients, self.clock)
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

    def drain(self, *, raise_errors: bool = True) -> int:
        """Run every message that is due, and what follows from it, on this thread.

        Retries and delayed messages run once :meth:`advance` has made them due.

        Parameters:
          raise_errors: Whether to raise the first error of a task in the end. An error that its actor names
            in ``throws`` is never raised.

        Returns:
          The number of runs.

        Raises:
          DrainStalled: When a message is left that can neither run nor become a dead letter.
          RuntimeError: While a worker with threads runs.
        """
        if self._threaded:
            raise RuntimeError("a worker with threads runs the messages: wait with broker.join(queue)")
        if self.worker.has_crashed:
            self._restart()
        runs = self.worker.drain()
        errors, self.worker.errors = self.worker.errors, []
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

    def _restart(self) -> None:
        """Begin a process after the last one was killed."""
        self.worker.stop()
        self._connect()

    def advance(self, duration: timedelta | None = None, **parts: float) -> None:
        """Let time pass: ``advance(hours=2)``, ``advance(timedelta(days=1))``. Nothing runs meanwhile.

        Topics are compacted, and records deleted, as their settings say.
        """
        self.clock.advance((duration or timedelta()) + timedelta(**parts))
        self.cluster.clean_up()

    @contextmanager
    def crash_worker(self, at: CrashPoint = "after") -> Iterator[None]:
        """Kill the worker's process with the next message that runs within the block. A later :meth:`drain`
        runs in a new process.

        Parameters:
          at: "before": when its task would begin. "after": when its task has returned, before anything that
            follows from it is in Kafka. "settled": when everything that follows from it is in Kafka, before
            its offset is committed.

        Raises:
          AssertionError: When no message ran in the block.
        """
        self._crash_at = self.worker.crash_at = at
        try:
            yield
            crashed = self.worker.has_crashed
        finally:
            self._crash_at = self.worker.crash_at = None
        if not crashed:
            raise AssertionError("no message ran within crash_worker(), so the worker did not crash")

    @contextmanager
    def kafka_away(self) -> Iterator[None]:
        """Let nothing reach Kafka: sends fail after their timeout, which takes no real time."""
        with self.cluster.away():
            yield

    # What became of messages

    def pending(self, queue_name: str | None = None) -> list[Message[Any]]:
        """The messages that wait in a queue, or in all queues, and are due."""
        return [m for name in self._queues(queue_name) for m in self._pending(name)]

    def _pending(self, queue_name: str) -> Iterator[Message[Any]]:
        parts = self.broker.parts
        topic = self.cluster.topics.get(parts.topics.queue(queue_name))
        if topic is None:
            return
        offsets = self.cluster.group(parts.group_of(queue_name)).offsets
        for partition in topic.partitions:
            commit = offsets.get(partition)
            state = None if commit is None else decode(commit.offset, commit.metadata)
            for record in self.cluster.log(partition).records:
                done = state is not None and (
                    record.offset <= state.highest and record.offset not in state.incomplete
                )
                if not done and record.value is not None:
                    yield Message.decode(record.value)

    def delayed(self, queue_name: str | None = None) -> list[DelayedMessage]:
        """The messages that wait for their time, retries included, by due time."""
        found = [
            message
            for name in self._queues(queue_name)
            for message in self.broker.delayed(name, limit=sys.maxsize).messages
        ]
        return sorted(found, key=lambda message: message.due)

    def dead(self, queue_name: str | None = None) -> list[DeadLetter]:
        """The dead letters of a queue, or of all queues."""
        return [d for name in self._queues(queue_name) for d in self.broker.dead_letters(name)]

    def _queues(self, queue_name: str | None) -> list[str]:
        return list(self.broker.queues) if queue_name is None else [queue_name]

    # Assertions

    def assert_enqueued(
        self, actor: Actor[..., Any] | str, *, times: int | None = None, **wanted: Any
    ) -> Message[Any]:
        """Assert that a message of ``actor`` was enqueued since the test began; return the first one.

        Parameters:
          times: The exact number of such messages; by default at least one.
          wanted: Fields that the message must have: ``args``, ``kwargs``, ``queue_name``, ``options`` (those
            named there) and ``delay``, in ms or as a timedelta (None: no delay).

        Raises:
          AssertionError: With all messages that were enqueued.
        """
        found = self._matching(actor, wanted)
        if not found or times not in (None, len(found)):
            number = "a message" if times is None else f"{times} message(s)"
            raise AssertionError(
                f"{number} of {_described(actor, wanted)} should have been enqueued, and {len(found)} "
                f"was or were.\n{self._listing()}"
            )
        return found[0]

    def assert_not_enqueued(self, actor: Actor[..., Any] | str, **wanted: Any) -> None:
        """Assert that no message of ``actor`` was enqueued; see :meth:`assert_enqueued`."""
        if self._matching(actor, wanted):
            raise AssertionError(
                f"no message of {_described(actor, wanted)} should have been enqueued.\n{self._listing()}"
            )

    def _matching(self, actor: Actor[..., Any] | str, wanted: Mapping[str, Any]) -> list[Message[Any]]:
        if unknown := wanted.keys() - _FIELDS.keys():
            raise TypeError(f"unknown fields {sorted(unknown)}; there are {', '.join(_FIELDS)}")
        name = actor if isinstance(actor, str) else actor.actor_name
        return [
            message
            for message, delay in self.enqueued
            if message.actor_name == name
            and all(_FIELDS[field](message, delay, value) for field, value in wanted.items())
        ]

    def _listing(self) -> str:
        if not self.enqueued:
            return "Nothing was enqueued."
        lines = []
        for message, delay in self.enqueued:
            late = "" if delay is None else f" delay={delay}"
            options = {k: v for k, v in message.options.items() if v is not None}
            lines.append(f"  {message} queue={message.queue_name!r}{late}{f' {options}' if options else ''}")
        return "\n".join(["Enqueued, in order:", *lines])

    def assert_dead(
        self, actor: Actor[..., Any] | str, error: type[BaseException] | str | None = None
    ) -> DeadLetter:
        """Assert that there is a dead letter of ``actor``; return the first one.

        Parameters:
          error: The class of its error, or the name of the class; by default any.

        Raises:
          AssertionError: With all dead letters.
        """
        name = actor if isinstance(actor, str) else actor.actor_name
        error_type = error if error is None or isinstance(error, str) else error.__name__
        letters = self.dead()
        for letter in letters:
            is_of_actor = letter.message is not None and letter.message.actor_name == name
            if is_of_actor and error_type in (None, letter.error_type):
                return letter
        listing = "\n".join(f"  {letter.message or letter.queue_name}: {letter.error}" for letter in letters)
        raise AssertionError(
            f"a message of {name!r} should be a dead letter{f' with {error_type}' if error_type else ''}.\n"
            + (f"Dead letters:\n{listing}" if letters else "There is no dead letter.")
        )


def _is_delay(wanted: Any, delay: int | None) -> bool:
    if isinstance(wanted, timedelta):
        wanted = round(wanted.total_seconds() * 1000)
    return bool(wanted == delay)


_FIELDS: Mapping[str, Callable[[Message[Any], int | None, Any], bool]] = {
    "args": lambda message, _, wanted: tuple(message.args) == tuple(wanted),
    "kwargs": lambda message, _, wanted: message.kwargs == wanted,
    "queue_name": lambda message, _, wanted: message.queue_name == wanted,
    "options": lambda message, _, wanted: wanted.items() <= message.options.items(),
    "delay": lambda _, delay, wanted: _is_delay(wanted, delay),
}


def _described(actor: Actor[..., Any] | str, wanted: Mapping[str, Any]) -> str:
    name = actor if isinstance(actor, str) else actor.actor_name
    return f"{name!r}" + "".join(f" with {field}={value!r}" for field, value in wanted.items())


@contextmanager
def _dramatiq_by(clock: ManualClock) -> Iterator[None]:
    """Let Dramatiq's middleware and messages go by the clock."""
    original = dramatiq.common.current_millis
    replaced = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("dramatiq.") and getattr(module, "current_millis", None) is original
    ]
    for module in replaced:
        vars(module)["current_millis"] = clock.wall_ms
    # The timestamp of a message comes from time.time (dramatiq/message.py:84 of 2.1).
    own_time = SimpleNamespace(time=lambda: clock.wall_ms() / 1000)
    original_time = vars(dramatiq.message)["time"]
    vars(dramatiq.message)["time"] = own_time
    try:
        yield
    finally:
        vars(dramatiq.message)["time"] = original_time
        for module in replaced:
            vars(module)["current_millis"] = original


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
