"""Workers: their signals, their queues, priorities, and what a stop leaves behind."""

from __future__ import annotations

import logging
import threading

import dramatiq
import pytest
from dramatiq import Broker, Worker
from dramatiq.middleware import SkipMessage

from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import WORKER_THREADS, WORKER_TIMEOUT_MS, MakeBroker, StartWorker
from tests.broker.contract.signal_log import SignalLog
from tests.waiting import wait_until

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = 60_000


def test_the_signals_of_a_message_come_in_dramatiqs_order(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    log = SignalLog()
    broker = make_broker(log)

    @dramatiq.actor(broker=broker, max_retries=0)
    def task(what: str) -> None:
        if what == "skip":
            raise SkipMessage("asked to")
        if what == "fail":
            raise RuntimeError("asked to")

    start_worker(broker)
    done, skipped, failed = (task.send(what) for what in ("work", "skip", "fail"))
    broker.join("default", timeout=JOIN_TIMEOUT_MS)

    begun = ["before_enqueue", "after_enqueue", "before_process_message"]
    assert log.of(done) == [*begun, "after_process_message", "before_ack", "after_ack"]
    assert log.of(skipped) == [*begun, "after_skip_message", "before_ack", "after_ack"]
    assert log.of(failed) == [*begun, "after_process_message", "before_nack", "after_nack"]


def test_the_signals_of_a_retry_come_between_those_of_its_attempts(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    log = SignalLog()
    broker = make_broker(log)

    @dramatiq.actor(broker=broker, max_retries=1, min_backoff=500, max_backoff=500)
    def task() -> None:
        raise RuntimeError("asked to")

    start_worker(broker)
    sent = task.send()
    broker.join("default", timeout=JOIN_TIMEOUT_MS)

    # What a broker does while a message waits for its time is its own affair.
    signals = [name for name in log.of(sent) if name != "before_delay_message"]
    acks = ("before_ack", "after_ack", "before_nack", "after_nack")
    attempt = ["before_process_message", "after_process_message"]
    others = [name for name in signals if name not in acks]
    assert others[:6] == ["before_enqueue", "after_enqueue", *attempt, "before_enqueue", "after_enqueue"]
    assert others[-2:] == attempt
    # The ack follows the retry's enqueueing. The thread that acks may be slower than the retry's delay.
    acked = [name for name in signals if name in acks]
    assert acked[:2] == ["before_ack", "after_ack"]
    assert acked[-2:] == ["before_nack", "after_nack"]
    assert signals.index("before_ack") >= 6
    assert signals.index("before_nack") > len(signals) - 1 - signals[::-1].index("after_process_message")


def test_the_signals_of_declarations_and_of_a_worker_come_in_dramatiqs_order(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    log = SignalLog()
    broker = make_broker(log)
    dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    start_worker(broker, worker_threads=1).stop()

    assert log.containing("declare_queue") == ["before_declare_queue", "after_declare_queue"]
    assert log.containing("declare_actor") == ["before_declare_actor", "after_declare_actor"]
    assert log.containing("worker_boot") + log.containing("worker_shutdown") == [
        "before_worker_boot", "after_worker_boot", "before_worker_shutdown", "after_worker_shutdown",
    ]  # fmt: skip
    for kind in ("worker_thread", "consumer_thread"):
        assert f"after_{kind}_boot" in log.containing(kind)
        assert log.containing(kind)[-1] == f"before_{kind}_shutdown"


def test_of_the_messages_at_hand_those_with_the_lowest_priority_number_run_first(
    broker: Broker, start_worker: StartWorker
) -> None:
    seen: list[str] = []
    started = threading.Barrier(3)
    gates = [threading.Event(), threading.Event()]

    @dramatiq.actor(broker=broker)
    def block(number: int) -> None:
        started.wait(DEADLINE_S)
        gates[number].wait(DEADLINE_S)

    dramatiq.actor(broker=broker, actor_name="unimportant", priority=50)(lambda: seen.append("unimportant"))
    dramatiq.actor(broker=broker, actor_name="important", priority=0)(lambda: seen.append("important"))

    worker = start_worker(broker, worker_threads=2)
    block.send(0)
    block.send(1)
    started.wait(DEADLINE_S)
    broker.get_actor("unimportant").send()
    broker.get_actor("important").send()
    wait_until(lambda: worker.work_queue.qsize() == 2, deadline_s=DEADLINE_S, what="both to be at hand")
    # One thread goes on and finds both; the other one stays out of it.
    gates[0].set()
    wait_until(lambda: len(seen) == 2, deadline_s=DEADLINE_S, what="both to run")
    gates[1].set()
    assert seen == ["important", "unimportant"]


def test_a_worker_serves_only_the_queues_it_is_told_to(broker: Broker, start_worker: StartWorker) -> None:
    seen: list[str] = []

    def task() -> None:
        seen.append(threading.current_thread().name)

    served = dramatiq.actor(broker=broker, queue_name="served", actor_name="served")(task)
    left = dramatiq.actor(broker=broker, queue_name="left", actor_name="left")(task)
    first = start_worker(broker, queues={"served"})
    left.send()
    served.send()
    broker.join("served", timeout=JOIN_TIMEOUT_MS)
    assert len(seen) == 1
    first.stop()
    start_worker(broker, queues={"left"})
    broker.join("left", timeout=JOIN_TIMEOUT_MS)
    assert len(seen) == 2


def test_one_worker_serves_many_queues_also_one_declared_while_it_runs(
    broker: Broker, start_worker: StartWorker
) -> None:
    seen: list[str] = []
    names = ["q1", "q2", "q3", "q4"]

    def declare(name: str) -> dramatiq.Actor[[], None]:
        return dramatiq.actor(broker=broker, queue_name=name, actor_name=name)(lambda: seen.append(name))

    actors = [declare(name) for name in names[:3]]
    start_worker(broker)
    actors.append(declare(names[3]))
    for actor in actors:
        actor.send()
    for name in names:
        broker.join(name, timeout=JOIN_TIMEOUT_MS)
    assert sorted(seen) == names


def test_what_is_sent_while_no_worker_runs_is_done_by_the_next_one_and_nothing_twice(
    broker: Broker, start_worker: StartWorker
) -> None:
    seen: list[int] = []

    @dramatiq.actor(broker=broker)
    def task(number: int) -> None:
        seen.append(number)

    task.send(0)
    first = start_worker(broker)
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    first.stop()
    task.send(1)
    task.send_with_options(args=(2,), delay=100)
    second = start_worker(broker)
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    second.stop()
    task.send(3)
    start_worker(broker)
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert sorted(seen) == [0, 1, 2, 3]


def test_a_worker_begins_like_the_first_after_another_one_of_its_broker_was_stopped(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def task(number: int) -> None:
        runs.append(number)

    for number in range(2):
        worker = Worker(broker, worker_timeout=WORKER_TIMEOUT_MS, worker_threads=WORKER_THREADS)
        worker.start()
        try:
            task.send(number)
            broker.join("default", timeout=JOIN_TIMEOUT_MS)
        finally:
            worker.stop()
    assert runs == [0, 1]
    # A consumer that gives up at once is made again by Dramatiq after seconds.
    lines = [line for line in caplog.records if line.name.startswith("dramatiq.worker")]
    assert [line.getMessage() for line in lines if line.levelno > logging.INFO] == []


def test_a_stopping_worker_finishes_what_runs(broker: Broker, start_worker: StartWorker) -> None:
    seen: list[str] = []
    started, gate = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker)
    def task() -> None:
        started.set()
        gate.wait(DEADLINE_S)
        seen.append("finished")

    worker = start_worker(broker)
    task.send()
    assert started.wait(DEADLINE_S)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    wait_until(lambda: not worker.workers[0].running, deadline_s=DEADLINE_S, what="the worker to stop")
    gate.set()
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
    assert seen == ["finished"]
    broker.join("default", timeout=JOIN_TIMEOUT_MS)


def test_a_paused_worker_starts_nothing_until_it_is_resumed(
    broker: Broker, start_worker: StartWorker
) -> None:
    seen: list[int] = []

    @dramatiq.actor(broker=broker)
    def task(number: int) -> None:
        seen.append(number)

    worker = start_worker(broker)
    task.send(1)
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    worker.pause()
    task.send(2)
    assert seen == [1]
    worker.resume()
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert seen == [1, 2]


def test_a_failing_middleware_stops_nothing(make_broker: MakeBroker, start_worker: StartWorker) -> None:
    class Broken(dramatiq.Middleware):
        def before_process_message(self, broker: Broker, message: object) -> None:
            raise RuntimeError("before")

        def after_process_message(self, broker: Broker, message: object, **_: object) -> None:
            raise RuntimeError("after")

    seen: list[int] = []
    broker = make_broker(Broken())
    dramatiq.actor(broker=broker, actor_name="task")(lambda: seen.append(1)).send()
    start_worker(broker)
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert seen == [1]


def test_a_closed_broker_leaves_no_thread_behind(
    kafka_backend: KafkaBackend, start_worker: StartWorker
) -> None:
    before = set(threading.enumerate())
    broker = kafka_backend.broker()
    actor = dramatiq.actor(broker=broker, actor_name="task", max_retries=0)(lambda: 1 / 0)
    actor.send()
    worker = start_worker(broker)
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert list(broker.dead_letters("default"))
    worker.stop()
    broker.close()
    wait_until(lambda: set(threading.enumerate()) <= before, deadline_s=DEADLINE_S, what="its threads to end")
