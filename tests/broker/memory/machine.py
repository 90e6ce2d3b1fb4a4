"""Everything that may happen to a broker and its messages, in any order, on a Kafka in memory.

Processes take single steps on one thread, on a clock that only the machine moves. In the end all faults are
over, the processes run until nothing is left, and the ledger is compared with what became of the messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

import dramatiq
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import CurrentMessage
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker import CancelUndecided, EnqueueFailed, KafkaBroker, Outcome, default_middleware
from broker.kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    NotEnoughReplicasError,
    UnknownTopicOrPartitionError,
    for_code,
)
from broker.testing import Kit, ManualClock, MemoryCluster
from broker.testing.memory.faults import ProcessKilled, Request
from tests.broker.memory.ledger import MAX_RETRIES, RATE, Ledger, Plan

QUEUE = "work"
COORDINATOR_NOT_AVAILABLE, NOT_LEADER = 15, 6
PASSING_ERRORS: list[Callable[[], KafkaError]] = [
    lambda: NotEnoughReplicasError("for a moment"),
    lambda: UnknownTopicOrPartitionError("for a moment"),
    lambda: for_code(COORDINATOR_NOT_AVAILABLE)("for a moment"),
    lambda: for_code(NOT_LEADER)("for a moment"),
]
MAX_PROCESSES = 3
BACKOFF_MS = 5_000
#: More than any retry or delay of the machine waits for.
LONG_ENOUGH = timedelta(hours=2)
MAX_SETTLING_ROUNDS = 12
#: Longer than a session timeout, with the steps' own time: what a dead process had is taken over by then.
STEPS_OF_A_ROUND = 15


class Harm:
    """What happens while the next task runs: see :meth:`strike`."""

    def __init__(self, cluster: MemoryCluster, ledger: Ledger) -> None:
        self.next: str | None = None
        self._cluster = cluster
        self._ledger = ledger

    def strike(self, process: Process) -> None:
        harm, self.next = self.next, None
        if harm == "Kafka goes away":
            self._cluster.reachable.clear()
        elif harm == "its membership is lost":
            self._cluster.expel(f"dramatiq.{QUEUE}")
            self._ledger.is_disturbed = self._ledger.rates_may_be_exceeded = True
        elif harm == "a send is lost":
            self._cluster.refuse(Request.PRODUCE, lambda: KafkaTimeoutError("it was never sent"))
        elif harm == "its queue is paused":
            with suppress(BrokerConnectionError):
                process.broker.pause(QUEUE, reason="a test")
            process.kit.worker.step()  # which reads the pause, as a worker's own thread does
        elif harm == "its process is killed":
            process.kit.worker.kill()
            self._ledger.is_disturbed = True
            raise ProcessKilled


class Process:
    """A worker process, which also sends."""

    def __init__(self, cluster: MemoryCluster, clock: ManualClock, ledger: Ledger, harm: Harm) -> None:
        self.broker = KafkaBroker(
            middleware=[*default_middleware(), CurrentMessage()],
            partitions=2,
            enqueue_timeout_ms=5_000,
            max_crashes=1_000,
        )
        self.kit = Kit(self.broker, cluster, clock)
        self.ledger = ledger
        self._use = ExitStack()

        def run(number: int) -> None:
            if self.kit.worker.has_crashed:
                return  # a killed process runs nothing; its thread is the machine's, and goes on
            message = CurrentMessage.get_current_message()
            assert message is not None
            ledger.note_start(number, self.kit.clock.wall_ms())
            harm.strike(self)
            ledger.note_run(number, message.options.get("retries", 0))

        options = {
            "broker": self.broker,
            "queue_name": QUEUE,
            "max_retries": MAX_RETRIES,
            "min_backoff": BACKOFF_MS,
            "max_backoff": BACKOFF_MS,
        }
        self.task = dramatiq.actor(run, actor_name="run", **options)  # type: ignore[call-overload]
        self.ordered = dramatiq.actor(  # type: ignore[call-overload]
            run, actor_name="run_ordered", key_order="ordered", **options
        )
        self._use.enter_context(self.kit.use())

    @property
    def is_alive(self) -> bool:
        return not self.kit.worker.has_crashed and not self.kit.worker.process.is_killed

    def close(self) -> None:
        self._use.close()


class Machine(RuleBasedStateMachine):
    """See the module.

    Attributes:
      steps: The number of steps of all machines so far.
    """

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.cluster = MemoryCluster()
        self.ledger = Ledger()
        self.processes: list[Process] = []
        self.closing = ExitStack()
        self.ids: dict[int, str] = {}
        self.redriven = 0
        self.harm = Harm(self.cluster, self.ledger)

    @initialize()
    def begin(self) -> None:
        self._start()

    def _start(self) -> Process:
        process = Process(self.cluster, self.clock, self.ledger, self.harm)
        self.processes.append(process)
        self.closing.callback(process.close)
        return process

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.is_alive]

    def _pick(self, number: int) -> Process:
        return self.alive[number % len(self.alive)]

    def _guarded(self, process: Process, act: Callable[[], Any]) -> Any:
        """Do something in a process, which may be killed by it; None then."""
        try:
            return act()
        except ProcessKilled:
            return None
        finally:
            if not process.is_alive:  # a call that another thread makes for it fails instead, as any may
                process.kit.worker.kill()
                self._note_crash()

    def _note_crash(self) -> None:
        self.ledger.is_disturbed = True
        if not self.alive:
            self._start()

    # What applications do

    @rule(
        who=st.integers(0, 9),
        fails=st.sampled_from([0, 0, 0, 1, 2, MAX_RETRIES + 1]),
        key=st.sampled_from([None, None, "a", "b"]),
        ordered=st.booleans(),
        delay_s=st.sampled_from([None, None, None, 1, 600]),
        unique=st.sampled_from([None, None, "until_started", "until_done"]),
        limited=st.booleans(),
    )
    def send(
        self,
        who: int,
        fails: int,
        key: str | None,
        ordered: bool,
        delay_s: int | None,
        unique: str | None,
        limited: bool,
    ) -> None:
        self.send_one(
            who, fails, key, ordered=ordered, delay_s=delay_s, unique=unique, limited=limited and key == "b"
        )

    @rule(who=st.integers(0, 9), count=st.integers(2, 4), fails=st.sampled_from([0, 1]))
    def send_several_with_limits(self, who: int, count: int, fails: int) -> None:
        for _ in range(count):
            self.send_one(who, fails, "b", ordered=False, delay_s=None, limited=True)

    def send_one(
        self,
        who: int,
        fails: int,
        key: str | None,
        *,
        ordered: bool,
        delay_s: int | None,
        unique: str | None = None,
        limited: bool = False,
    ) -> None:
        process = self._pick(who)
        number = len(self.ledger.plans)
        options: dict[str, Any]
        if unique is not None:
            # One rule for a key. Each actor has keys of its own.
            unique_key = f"{unique} {key} {ordered}"
            plan = Plan(fails, None, delay_s is not None, unique_key=unique_key)
            plan.until_started = unique == "until_started"
            options = {"unique": unique, "unique_key": unique_key}
        else:
            plan = Plan(fails, key, is_delayed=delay_s is not None)
            options = {} if key is None else {"partition_key": key}
            if limited and not ordered:
                plan.key = plan.limited_key = f"{key} limited"
                options = {"partition_key": plan.key, "key_rate": RATE, "key_concurrency": 2}
        plan.sent_at = next(self.ledger.events)
        self.ledger.plans[number] = plan
        is_keyed = key is not None or unique is not None
        actor = process.ordered if ordered and is_keyed else process.task
        message = actor.message_with_options(args=(number,), **options)
        self.ids[number] = message.message_id
        delay_ms = None if delay_s is None else delay_s * 1000

        def enqueue() -> bool:
            process.broker.enqueue(message, delay=delay_ms)
            return True

        with suppress(EnqueueFailed):
            plan.is_acknowledged = bool(self._guarded(process, enqueue))

    @rule(who=st.integers(0, 9), fails=st.lists(st.sampled_from([0, 0, 1, 3]), min_size=2, max_size=6))
    def send_several(self, who: int, fails: list[int]) -> None:
        for number in fails:
            self.send_one(who, number, None, ordered=False, delay_s=None)

    @rule(who=st.integers(0, 9), count=st.integers(2, 5), ordered=st.booleans())
    def send_several_of_a_key(self, who: int, count: int, ordered: bool) -> None:
        for number in range(count):
            self.send_one(who, int(number == 0), "a", ordered=ordered, delay_s=None)

    @rule(
        who=st.integers(0, 9),
        count=st.integers(2, 5),
        fails=st.sampled_from([0, 1, MAX_RETRIES + 1]),
        ordered=st.booleans(),
        unique=st.sampled_from(["until_started", "until_done"]),
    )
    def send_several_of_a_unique_key(
        self, who: int, count: int, fails: int, ordered: bool, unique: str
    ) -> None:
        for _ in range(count):
            self.send_one(who, fails, "a", ordered=ordered, delay_s=None, unique=unique)

    @rule(who=st.integers(0, 9))
    @precondition(lambda self: any(plan.is_delayed for plan in self.ledger.plans.values()))
    def cancel(self, who: int) -> None:
        process = self._pick(who)
        number = max(n for n, plan in self.ledger.plans.items() if plan.is_delayed)
        self.ledger.plans[number].may_be_dropped = True

        def ask() -> Outcome | None:
            try:
                return process.broker.cancel(self.ids[number], timeout_s=0.1)
            except (CancelUndecided, BrokerConnectionError):
                return None

        self._guarded(process, ask)

    @rule(who=st.integers(0, 9))
    @precondition(lambda self: bool(self.ledger.plans))
    def flush(self, who: int) -> None:
        process = self._pick(who)
        for plan in self.ledger.plans.values():
            plan.may_be_dropped = True

        def flush() -> None:
            try:
                process.broker.flush(QUEUE)
            except BrokerConnectionError:
                return

        self._guarded(process, flush)

    @rule(who=st.integers(0, 9))
    @precondition(lambda self: self.redriven < 2)
    def redrive(self, who: int) -> None:
        """Put the dead letters back, which then die once more."""
        process = self._pick(who)
        self.redriven += 1

        def redrive() -> int:
            try:
                done = process.broker.redrive(QUEUE, dry_run=False, reason="a test")
            except BrokerConnectionError:
                return 1
            return done.sent

        if self._guarded(process, redrive):
            self.ledger.is_disturbed = True  # their runs begin anew

    # What operators do

    @rule(who=st.integers(0, 9), pauses=st.booleans())
    def control(self, who: int, pauses: bool) -> None:
        """Pause the queue, or resume it. The pause may stand although its answer was lost."""
        process = self._pick(who)

        def give() -> None:
            with suppress(BrokerConnectionError):
                if pauses:
                    process.broker.pause(QUEUE, reason="a test")
                else:
                    process.broker.resume(QUEUE)

        self._guarded(process, give)

    # What workers do

    @rule(who=st.integers(0, 9), times=st.integers(1, 5))
    def step(self, who: int, times: int) -> None:
        for _ in range(times):
            process = self._pick(who)
            process.kit.worker.step()
            if process.kit.worker.has_crashed:
                self._note_crash()
                return
            self.clock.tick(0.06)

    @rule(times=st.integers(3, 12))
    def work(self, times: int) -> None:
        """Let every process take steps, as they do while nothing happens."""
        for _ in range(times):
            for process in self.alive:
                process.kit.worker.step()
                if process.kit.worker.has_crashed:
                    self._note_crash()
            self.clock.tick(0.06)

    @rule(seconds=st.sampled_from([0.3, 1, 6, 700]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))
        self.cluster.clean_up()

    @rule(seconds=st.sampled_from([-3_600, -5, 5]))
    def jump(self, seconds: float) -> None:
        self.clock.jump(timedelta(seconds=seconds))
        self.ledger.rates_may_be_exceeded = True

    @rule()
    @precondition(lambda self: len(self.alive) < MAX_PROCESSES)
    def start(self) -> None:
        self._start()

    @rule(who=st.integers(0, 9))
    @precondition(lambda self: len(self.alive) > 1 and self.cluster.reachable.is_set())
    def stop(self, who: int) -> None:
        process = self._pick(who)
        self._guarded(process, process.kit.worker.stop)
        process.kit.worker.has_crashed = True  # it does nothing more

    # What goes wrong

    @rule(who=st.integers(0, 9))
    def kill(self, who: int) -> None:
        self._pick(who).kit.worker.kill()
        self._note_crash()

    @rule(who=st.integers(0, 9), before=st.booleans(), skip=st.integers(0, 3))
    def kill_at_a_write(self, who: int, before: bool, skip: int) -> None:
        process = self._pick(who).kit.process
        self.cluster.kill_at(before=before, process=process, skip=skip)

    @rule(
        harm=st.sampled_from(
            [
                "Kafka goes away",
                "its membership is lost",
                "a send is lost",
                "its queue is paused",
                "its process is killed",
            ]
        )
    )
    def harm_the_next_run(self, harm: str) -> None:
        self.harm.next = harm

    @rule(group=st.sampled_from([f"dramatiq.{QUEUE}", "delayed.forwarders"]))
    def expel(self, group: str) -> None:
        self.cluster.expel(group)
        self.ledger.is_disturbed = self.ledger.rates_may_be_exceeded = True

    @rule(
        kind=st.sampled_from([Request.PRODUCE, Request.COMMIT, Request.FETCH, Request.LIST_OFFSETS]),
        error=st.sampled_from(PASSING_ERRORS),
        times=st.integers(1, 3),
    )
    def refuse(self, kind: Request, error: Callable[[], KafkaError], times: int) -> None:
        self.cluster.refuse(kind, error, times=times)

    @rule(kind=st.sampled_from([Request.PRODUCE, Request.COMMIT]))
    def lose_an_answer(self, kind: Request) -> None:
        self.cluster.lose_answer(kind)
        self.ledger.is_disturbed = True

    @rule()
    @precondition(lambda self: self.cluster.reachable.is_set())
    def go_away(self) -> None:
        self.cluster.reachable.clear()

    @rule()
    @precondition(lambda self: not self.cluster.reachable.is_set())
    def come_back(self) -> None:
        self.cluster.come_back()

    @rule()
    def elect(self) -> None:
        for topic in self.cluster.topics.values():
            for partition in topic.partitions:
                self.cluster.elect(partition)

    # What holds

    @invariant()
    def nothing_ran_that_was_not_sent(self) -> None:
        Machine.steps += 1
        assert self.ledger.runs.keys() <= self.ledger.plans.keys()

    def teardown(self) -> None:
        try:
            if self.processes:
                self.settle()
        finally:
            self.closing.close()

    def settle(self) -> None:
        """End all faults, run everything, and compare."""
        self.cluster.faults.clear()
        self.harm.next = None
        self.cluster.come_back()
        (self.alive or [self._start()])[0].broker.resume(QUEUE)
        # Ordered retries of one key wait for one another, a round each.
        for _ in range(MAX_SETTLING_ROUNDS + (MAX_RETRIES + 1) * len(self.ledger.plans)):
            for _ in range(STEPS_OF_A_ROUND):
                for process in self.alive or [self._start()]:
                    process.kit.worker.step()  # which notices that the process was killed on another thread
                self.clock.tick(0.06)
            if self.alive and not self.alive[0].broker.count(QUEUE):
                break
            self.clock.advance(LONG_ENOUGH)
        process = self.alive[0]
        left = process.broker.count(QUEUE)
        assert left == 0, f"{left} messages neither ran nor died: {self.ledger.plans}"
        dead = Counter(letter.message.args[0] for letter in process.kit.dead(QUEUE) if letter.message)
        self.ledger.check(dead)
