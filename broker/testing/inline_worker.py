"""Runs messages on the calling thread, with the consumers, the forwarder and the completer of a worker."""

from __future__ import annotations

from queue import PriorityQueue
from typing import TYPE_CHECKING, Any

from dramatiq.errors import BrokerConnectionError, RateLimitExceeded, Retry
from dramatiq.worker import Worker, WorkerThread

from ..consume.consumer import QueueConsumer
from ..deliveries.delivery import Delivery
from ..kafka.errors import KafkaError
from ..offsets.commit_metadata import decode
from ..process import clock
from ..worker.lifecycle import WorkerLifecycle
from .clock import ManualClock
from .memory.clients import MemoryClients
from .memory.cluster import MemoryProcess
from .memory.faults import ProcessKilled, Request

if TYPE_CHECKING:
    from ..broker import KafkaBroker
    from ..delays import Forwarder

#: The maximum number of messages that are taken from the queues before one of them runs, as with 8 threads.
PREFETCH = 16
#: The time that passes in a round without progress, longer than any pause between two polls.
TICK_S = 0.06
#: The same after QUICK_ROUNDS rounds: a partition may have to wait for a session timeout.
LONG_TICK_S = 0.5
QUICK_ROUNDS = 20
#: Work is done when nothing is left and no record was written for this many rounds.
IDLE_ROUNDS = 6
#: The time after which :meth:`InlineWorker.drain` gives up.
STALLED_S = 120.0


class DrainStalled(AssertionError):
    """Messages are left that can neither run nor become dead letters."""


class _Settling:
    """What a ``WorkerThread`` knows of Dramatiq's ``ConsumerThread``: it settles a message that has run."""

    def __init__(self, worker: InlineWorker, consumer: QueueConsumer) -> None:
        self._worker = worker
        self._consumer = consumer

    def post_process_message(self, message: Delivery) -> None:
        self._worker.note(message)
        broker = self._worker.broker
        signal, settle = ("nack", self._consumer.nack) if message.failed else ("ack", self._consumer.ack)
        broker.emit_before(signal, message)
        settle(message)
        broker.emit_after(signal, message)


class InlineWorker:
    """A worker process without threads.

    Its middleware boots with the first :meth:`drain` and shuts down with :meth:`stop`.

    Parameters:
      clock: The process's clock, which is to stand still.

    Attributes:
      errors: The errors of tasks since the last drain, but for those that an actor expects (``throws``).
      crash_at: The point of the next message at which the process is killed: "before" its task, "after" its
        task, or "settled", before its offset is committed; None for never.
    """

    def __init__(self, broker: KafkaBroker, clients: MemoryClients, clock: ManualClock) -> None:
        self.broker = broker
        self.errors: list[BaseException] = []
        self.crash_at: str | None = None
        self.has_crashed = False
        self._clients = clients
        self._clock = clock
        self._consumers: dict[str, QueueConsumer] = {}
        self._forwarder: Forwarder | None = None
        self._worker: Worker | None = None
        self._work: PriorityQueue[Any] = PriorityQueue()
        self._number = 0
        self._thread: WorkerThread | None = None

    @property
    def process(self) -> MemoryProcess:
        return self._clients.process

    # Life

    def start(self) -> None:
        """Boot the middleware. A second call does nothing."""
        if self._worker is not None:
            return
        self._worker = Worker(self.broker, worker_threads=1)
        self._emit("before_worker_boot", self._worker)
        self.broker.parts.shutdown.begin_working()
        self._thread = WorkerThread(broker=self.broker, consumers={}, work_queue=self._work, worker_timeout=0)
        self._emit("after_worker_boot", self._worker)
        self._emit("after_worker_thread_boot", self._thread)

    def stop(self) -> None:
        """Shut the middleware down, and leave the groups."""
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        self._emit("before_worker_thread_shutdown", self._thread)
        self._emit("before_worker_shutdown", worker)
        if not self._clients.process.is_killed:
            self.broker.parts.shutdown.begin_stopping()
            if self._forwarder is not None:
                self._forwarder.close()
            for consumer in self._consumers.values():
                consumer.close()
        self._emit("after_worker_shutdown", worker)
        self._consumers, self._forwarder = {}, None

    def _emit(self, hook: str, *args: Any) -> None:
        """Call a hook of the middleware, but for the one that starts the threads of a worker process."""
        for middleware in self.broker.middleware:
            if not isinstance(middleware, WorkerLifecycle):
                getattr(middleware, hook)(self.broker, *args)

    # Work

    def drain(self) -> int:
        """Run everything that is due, also what follows from it; return the number of runs.

        Raises:
          DrainStalled: When something is left that can neither run nor become a dead letter.
        """
        self.start()
        runs = idle = rounds = 0
        began_s = clock.monotonic_s()
        while not self.has_crashed:
            if not self._clients.cluster.reachable.is_set():
                break
            before = self._clients.cluster.requests[Request.PRODUCE]
            ran = self.step()
            runs += ran
            if ran or self._clients.cluster.requests[Request.PRODUCE] != before:
                idle = rounds = 0
                continue
            idle += 1
            rounds += 1
            if idle >= IDLE_ROUNDS and (self.broker.consumption_paused or not self._left()):
                break
            if clock.monotonic_s() - began_s > STALLED_S:
                raise DrainStalled(f"these queues have messages left that do not run: {self._left()}")
            self._clock.tick(TICK_S if rounds < QUICK_ROUNDS else LONG_TICK_S)
        return runs

    def step(self) -> int:
        """Forward, fetch, run and settle what can be now; return the number of runs. Time does not pass."""
        self.start()
        try:
            return self._take_steps()
        except ProcessKilled:
            self.has_crashed = True
            return 0

    def _take_steps(self) -> int:
        cluster, topics = self._clients.cluster, self.broker.parts.topics
        if topics.delayed in cluster.topics:
            if self._forwarder is None:
                self._forwarder = self.broker.parts.new_forwarder()
            self._forwarder.step(max_wait_ms=0)
        for queue_name in list(self.broker.queues):
            if topics.queue(queue_name) in cluster.topics:
                self._fetch(queue_name)
        ran = 0
        while not self._work.empty() and not self._clients.process.is_killed:
            self._run(self._work.get()[-1])
            ran += 1
        if self._clients.process.is_killed:
            raise ProcessKilled
        self.broker.parts.completer.step()
        return ran

    def _fetch(self, queue_name: str) -> None:
        consumer = self._consumers.get(queue_name)
        try:
            if consumer is None:
                consumer = QueueConsumer(
                    self.broker.parts.consumer_config(queue_name),
                    self.broker.parts.for_consumers,
                    prefetch=PREFETCH,
                    timeout_ms=0,
                )
                self._consumers[queue_name] = consumer
                self.broker.parts.consumers.add(consumer)
            while self._work.qsize() < PREFETCH and (delivery := next(consumer)) is not None:
                assert isinstance(delivery, Delivery)
                self._number += 1
                actor = self.broker.actors[delivery.actor_name]
                self._work.put((actor.priority, self._number, delivery))
        except (BrokerConnectionError, KafkaError):
            # As Dramatiq does: another consumer is made later.
            if consumer is not None:
                consumer.close()
            self._consumers.pop(queue_name, None)

    def _run(self, delivery: Delivery) -> None:
        if self.crash_at == "before":
            self._crash()
        assert self._thread is not None
        consumer = self._consumers[delivery.queue_name]
        self._thread.consumers[delivery.queue_name] = _Settling(self, consumer)  # type: ignore[assignment]
        self._work.unfinished_tasks += 1  # the thread marks one as done
        self._thread.process_message(delivery)
        self.broker.parts.completer.step()
        if self.crash_at == "settled":
            self._crash()

    def note(self, message: Delivery) -> None:
        """Note the error of a message that has run."""
        if self.crash_at == "after":
            self._crash()
        self._clients.process.check()
        error = message._exception
        actor = self.broker.actors[message.actor_name]
        expected = message.options.get("throws") or actor.options.get("throws")
        if error is None or isinstance(error, Retry | RateLimitExceeded):
            return
        if not (expected and isinstance(error, expected)):
            self.errors.append(error)

    def kill(self) -> None:
        """Kill the process between two steps."""
        self._clients.process.kill()
        self.has_crashed = True

    def _crash(self) -> None:
        self._clients.process.kill()
        raise ProcessKilled

    def _left(self) -> dict[str, int]:
        """The number of messages that are due and not done, by queue."""
        left = {}
        for queue_name in self.broker.queues:
            count = self._incomplete(queue_name) + self._due(queue_name)
            if count:
                left[queue_name] = count
        return left

    def _incomplete(self, queue_name: str) -> int:
        """The records of a queue that no commit says are done."""
        cluster, parts = self._clients.cluster, self.broker.parts
        topic = cluster.topics.get(parts.topics.queue(queue_name))
        if topic is None:
            return 0
        offsets = cluster.group(parts.group_of(queue_name)).offsets
        count = 0
        for partition in topic.partitions:
            end = cluster.log(partition).end
            commit = offsets.get(partition)
            if commit is None:
                count += end - cluster.log(partition).start
                continue
            state = decode(commit.offset, commit.metadata)
            count += max(0, end - max(state.highest + 1, state.next_offset)) + len(state.incomplete)
        return count

    def _due(self, queue_name: str) -> int:
        parts = self.broker.parts
        delayed = self._clients.cluster.topics.get(parts.topics.delayed)
        if delayed is None or not any(log.end for log in delayed.logs):
            return 0
        next_due = parts.delays.pending(queue_name, limit=0).next_due
        return int(next_due is not None and next_due.timestamp() * 1000 <= clock.wall_ms())
