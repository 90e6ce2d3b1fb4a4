"""Runs messages on the calling thread, with a worker's consumers, forwarder, scheduler and completer."""

from __future__ import annotations

from collections.abc import Callable
from queue import PriorityQueue
from typing import TYPE_CHECKING, Any

from dramatiq.errors import BrokerConnectionError
from dramatiq.worker import Worker, WorkerThread

from ..admin.partition_counts import PartitionCounts, count_records
from ..consume.consumer import QueueConsumer
from ..deliveries.delivery import Delivery
from ..kafka.errors import KafkaError
from ..kafka.types import OffsetAndMetadata
from ..offsets.commit_metadata import CommitState, decode, encode
from ..process import clock
from ..worker.lifecycle import WorkerLifecycle
from .clock import ManualClock
from .memory.clients import MemoryClients
from .memory.cluster import MemoryProcess
from .memory.faults import ProcessKilled, Request

if TYPE_CHECKING:
    from ..broker import KafkaBroker
    from ..delays import Forwarder
    from ..schedules import Scheduler

#: The maximum number of messages that are taken from the queues before one of them runs, as with 8 threads.
PREFETCH = 16
#: The time that passes in a round without progress, longer than any pause between two polls.
TICK_S = 0.06
#: The same after QUICK_ROUNDS rounds: a partition may have to wait for a session timeout.
LONG_TICK_S = 0.5
QUICK_ROUNDS = 20
#: Work is done when nothing is left and no record was written for this many rounds.
IDLE_ROUNDS = 6
#: The time without progress after which :meth:`InlineWorker.drain` gives up.
STALLED_S = 120.0
#: More runs than any test means to have in one drain.
MAX_RUNS = 10_000


class DrainStalled(AssertionError):
    """Messages are left that can neither run nor become dead letters."""


class _Settling:
    """What a ``WorkerThread`` knows of Dramatiq's ``ConsumerThread``: it settles a message that has run."""

    def __init__(self, worker: InlineWorker, consumer: QueueConsumer) -> None:
        self._worker = worker
        self._consumer = consumer

    def post_process_message(self, message: Delivery) -> None:
        self._worker.reach("after")
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
      after_run: Called after each run; what it raises ends the drain.

    Attributes:
      crash_at: The point of the next message at which the process is killed: "before" its task, "after" its
        task, or "settled", before its offset is committed; None for never.
      is_asked_to_stop: Whether an operator has stopped the worker.
      is_running: Whether a task runs, which is then the caller of whatever asks.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        clients: MemoryClients,
        clock: ManualClock,
        *,
        after_run: Callable[[], None] = lambda: None,
    ) -> None:
        self.broker = broker
        self.crash_at: str | None = None
        self.has_crashed = False
        self.is_running = False
        self.is_asked_to_stop = False
        self._reads_notices = False
        self._clients = clients
        self._clock = clock
        self._after_run = after_run
        self._consumers: dict[str, QueueConsumer] = {}
        self._forwarder: Forwarder | None = None
        self._scheduler: Scheduler | None = None
        self._worker: Worker | None = None
        self._work: PriorityQueue[Any] = PriorityQueue()
        self._number = 0
        self._thread: WorkerThread | None = None
        #: Why nothing is read from a queue, or why a delivery is held: for the error of a drain.
        self._obstacles: dict[str, BaseException] = {}

    @property
    def process(self) -> MemoryProcess:
        return self._clients.process

    @property
    def is_started(self) -> bool:
        return self._worker is not None

    # Life

    def start(self) -> None:
        """Boot the middleware. A second call does nothing."""
        if self._worker is not None:
            return
        self._worker = Worker(self.broker, worker_threads=1)
        self._thread = WorkerThread(broker=self.broker, consumers={}, work_queue=self._work, worker_timeout=0)
        self._emit("before_worker_boot", self._worker)
        self.broker.parts.shutdown.begin_working()
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
            self.broker.parts.completer.step()
            if self._forwarder is not None:
                self._forwarder.close()
            if self._scheduler is not None:
                self._scheduler.close()
            self.broker.parts.notices.close()
            for consumer in self._consumers.values():
                consumer.close()
        self._emit("after_worker_shutdown", worker)
        self._consumers, self._forwarder, self._scheduler = {}, None, None

    def _emit(self, hook: str, *args: Any) -> None:
        """Call a hook of the middleware, but for the one that starts the threads of a worker process."""
        for middleware in self.broker.middleware:
            if not isinstance(middleware, WorkerLifecycle):
                getattr(middleware, hook)(self.broker, *args)

    # Work

    def drain(self, max_runs: int = MAX_RUNS) -> int:
        """Run all due messages and their follow-ups; return the number of runs.

        Raises:
          DrainStalled: When something is left that can neither run nor become a dead letter, or more than
            ``max_runs`` have run.
        """
        self.start()
        runs = idle = rounds = 0
        progress_s = clock.monotonic_s()
        while not self.has_crashed:
            if not self._clients.cluster.reachable.is_set():
                break
            before = self._clients.cluster.requests[Request.PRODUCE]
            ran = self.step()
            runs += ran
            if ran or self._clients.cluster.requests[Request.PRODUCE] != before:
                idle = rounds = 0
                progress_s = clock.monotonic_s()
                if runs > max_runs:
                    raise DrainStalled(
                        f"more than {max_runs} runs, and messages are still due: does a task send itself, or "
                        "ask for another attempt without a delay?"
                    )
                continue
            idle += 1
            rounds += 1
            if idle >= IDLE_ROUNDS and (self.broker.consumption_paused or not self._left()):
                break
            if clock.monotonic_s() - progress_s > STALLED_S:
                raise self._stalled()
            self._clock.tick(TICK_S if rounds < QUICK_ROUNDS else LONG_TICK_S)
        return runs

    def _stalled(self) -> DrainStalled:
        reasons = "".join(f"\n  {what}: {error!r}" for what, error in self._obstacles.items())
        stalled = DrainStalled(
            f"these queues have messages left that can neither run nor become dead letters: {self._left()}"
            f"{reasons}"
        )
        stalled.__cause__ = next(iter(self._obstacles.values()), None)
        return stalled

    def attend(self) -> None:
        """Do what a worker does beside running messages: forward, commit, answer cancels and flushes."""
        self.start()
        broker, was_paused = self.broker, self.broker.consumption_paused
        broker.consumption_paused = True
        try:
            self.step()
        finally:
            broker.consumption_paused = was_paused
        if self.has_crashed:
            raise ProcessKilled

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
        self._forward()
        if topics.control in cluster.topics or self._reads_notices:
            self._read_notices()
        if self.is_running:
            return 0  # in the middle of a task, whose step goes on later
        for queue_name in list(self.broker.queues):
            if topics.queue(queue_name) in cluster.topics:
                self._fetch(queue_name)
        ran = 0
        while not self._work.empty() and not self._clients.process.is_killed:
            self._run(self._work.get()[-1])
            ran += 1
        if self._clients.process.is_killed:
            raise ProcessKilled
        self._settle()
        return ran

    def _forward(self) -> None:
        """Do what the threads of the forwarder and of the scheduler do."""
        parts, there = self.broker.parts, self._clients.cluster.topics
        if parts.topics.delayed in there:
            if self._forwarder is None:
                self._forwarder = parts.new_forwarder()
            self._forwarder.step(max_wait_ms=0)
        if parts.topics.schedules in there or parts.schedules.declared:
            if self._scheduler is None:
                self._scheduler = parts.new_scheduler()
            self._scheduler.step(max_wait_ms=0)

    def _read_notices(self) -> None:
        """Do what the thread of the notice reader does."""
        parts = self.broker.parts
        if not self._reads_notices:
            self._reads_notices = True
            parts.control.on_stop = self._take_stop
            parts.notices.begin()
        parts.notices.step(max_wait_s=0.0)

    def _take_stop(self) -> None:
        """Note that the process is to end: no test runner is ended."""
        self.is_asked_to_stop = True

    def _settle(self) -> None:
        self._note_obstacle(
            "the records or the on_dead_letter of a message", self.broker.parts.completer.step()
        )

    def _note_obstacle(self, what: str, error: BaseException | None) -> None:
        if error is None:
            self._obstacles.pop(what, None)
        else:
            self._obstacles[what] = error

    def _fetch(self, queue_name: str) -> None:
        consumer = self._consumers.get(queue_name)
        try:
            if consumer is None:
                self._found_group(queue_name)
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
            self._note_obstacle(f"the queue {queue_name!r}", None)
        except (BrokerConnectionError, KafkaError) as e:
            self._note_obstacle(f"the queue {queue_name!r}", e)
            # As Dramatiq does: another consumer is made later.
            if consumer is not None:
                consumer.close()
            self._consumers.pop(queue_name, None)

    def _found_group(self, queue_name: str) -> None:
        """Let the queue's group be as old as its topic, as where a worker ran before the first message.

        A group that finds messages and no offsets says so in the log: its offsets may be lost.
        """
        parts, cluster = self.broker.parts, self._clients.cluster
        topic = cluster.topics.get(parts.topics.queue(queue_name))
        if topic is None:
            return
        offsets = cluster.group(parts.group_of(queue_name)).offsets
        beginning = OffsetAndMetadata(0, encode(CommitState(0, -1, clean=True)), -1)
        for partition in topic.partitions:
            offsets.setdefault(partition, beginning)

    def _run(self, delivery: Delivery) -> None:
        self.reach("before")
        assert self._thread is not None
        consumer = self._consumers[delivery.queue_name]
        self._thread.consumers[delivery.queue_name] = _Settling(self, consumer)  # type: ignore[assignment]
        self._work.unfinished_tasks += 1  # the thread marks one as done
        self.is_running = True
        try:
            self._thread.process_message(delivery)
        finally:
            self.is_running = False
        self._settle()
        self.reach("settled")
        self._after_run()

    def reach(self, point: str) -> None:
        """Crash at this point of a message if that is wanted. The dead process gets no further."""
        if self.crash_at == point:
            self._clients.process.kill()
        if self._clients.process.is_killed:
            raise ProcessKilled

    def kill(self) -> None:
        """Kill the process between two steps."""
        self._clients.process.kill()
        self.has_crashed = True

    def _left(self) -> dict[str, int]:
        """The number of messages that are due and not done, by queue."""
        left = {}
        gate = self.broker.parts.in_flight.gate
        for queue_name in self.broker.queues:
            if queue_name in gate.paused or gate.is_quiet:
                continue
            consumer = self._consumers.get(queue_name)
            for_rates = 0 if consumer is None else consumer.waits_for_rates  # as a delayed one waits
            count = max(0, self._incomplete(queue_name) - for_rates) + self._due(queue_name)
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
        total = PartitionCounts()
        for partition in topic.partitions:
            log, commit = cluster.log(partition), offsets.get(partition)
            state = None if commit is None else decode(commit.offset, commit.metadata)
            total += count_records(state, log.start, log.end)
        return total.left + total.removed  # the worker may have read what was removed

    def _due(self, queue_name: str) -> int:
        parts = self.broker.parts
        delayed = self._clients.cluster.topics.get(parts.topics.delayed)
        if delayed is None or not any(log.end for log in delayed.logs):
            return 0
        next_due = parts.delays.pending(queue_name, limit=0).next_due
        return int(next_due is not None and next_due.timestamp() * 1000 <= clock.wall_ms())
