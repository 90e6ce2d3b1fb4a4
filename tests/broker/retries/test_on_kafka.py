"""Policies on Kafka: what they count outlives every process, and what waits holds nothing up."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import dramatiq
import tenacity
from dramatiq import Message
from dramatiq.middleware import Middleware

from broker import KafkaBroker, TemporaryError, default_middleware, retry_if_temporary
from broker.produce.record import Record
from dev.child import Child
from dev.stack import ROOT, Stack
from tests.broker.conftest import MakeBroker, StartWorker
from tests.broker.dead_letters.samples import QUEUE, records_on_queue
from tests.waiting import wait_until

DEADLINE_S = 90.0
JOIN_TIMEOUT_MS = int(DEADLINE_S * 1000)
HEADERS = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]


def test_a_retry_keeps_the_messages_id_time_and_headers(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker()

    @dramatiq.actor(broker=broker, retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3)))
    def undelayed() -> None:
        raise TemporaryError("locked")

    @dramatiq.actor(
        broker=broker,
        retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.1)),
    )
    def delayed() -> None:
        raise TemporaryError("locked")

    sent = [undelayed.message(), delayed.message()]
    topic = broker.parts.topics.queue(QUEUE)
    assert (
        broker.parts.publisher.publish([Record(topic, message.encode(), headers=HEADERS) for message in sent])
        == {}
    )
    start_worker(broker)
    wait_until(
        lambda: len(list(broker.dead_letters(QUEUE))) == 2, deadline_s=DEADLINE_S, what="both to be given up"
    )

    attempts: dict[str, list[Message[None]]] = {message.message_id: [] for message in sent}
    for message, headers in records_on_queue(broker):
        assert headers == HEADERS
        attempts[message.message_id].append(message)
    for message in sent:
        attempts[message.message_id].sort(key=lambda each: each.options.get("retries", 0))
        assert [each.options.get("retries", 0) for each in attempts[message.message_id]] == [0, 1, 2]
        assert {each.message_timestamp for each in attempts[message.message_id]} == {
            message.message_timestamp
        }
        last = attempts[message.message_id][-1]
        assert last.options["first_sent_timestamp"] == message.message_timestamp
        assert last.options["last_error"] == "TemporaryError: locked"


def attempted(ledger: Path, attempt: int) -> bool:
    return any(line.startswith(f"a {attempt} ") for line in ledger.read_text().splitlines())


def test_attempts_are_counted_over_the_death_of_every_worker(
    stack: Stack, make_broker: MakeBroker, tmp_path: Path
) -> None:
    broker = make_broker()

    @dramatiq.actor(broker=broker)
    def task(name: str) -> None: ...

    ledger = tmp_path / "ledger"
    ledger.touch()
    arguments = [stack.bootstrap_servers, broker.parts.topics.queue(""), str(ledger)]
    command = [sys.executable, "-m", "tests.broker.retries.worker_app", *arguments]
    sent = task.send("a")
    lines: list[str] = []
    for attempt in (1, 2, 3):
        worker = Child("the worker", command, log=tmp_path / "worker.log", cwd=ROOT)
        worker.start()
        try:
            wait_until(partial(attempted, ledger, attempt), deadline_s=DEADLINE_S, what=f"attempt {attempt}")
            if attempt < 3:
                wait_until(
                    lambda: broker.parts.delays.count(QUEUE), deadline_s=DEADLINE_S, what="the retry to wait"
                )
            else:
                broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
        finally:
            worker.kill()
        lines = ledger.read_text().splitlines()

    # A crash before the commit repeats an attempt, under its own number; none is skipped, none is added.
    assert set(lines) == {"a 1 0", "a 2 3", "a 3 6"}
    dead_letters = list(broker.dead_letters(QUEUE))
    assert {dead_letter.message.message_id for dead_letter in dead_letters if dead_letter.message} == {
        sent.message_id
    }
    assert {dead_letter.retry_count for dead_letter in dead_letters} == {2}


class Witness(Middleware):
    """Sees whether the broker knows that it stops when the first hook is told."""

    def __init__(self) -> None:
        self.stopping: list[bool] = []

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        assert isinstance(broker, KafkaBroker)
        self.stopping.append(broker.parts.shutdown.stopping)


def test_a_rolling_restart_counts_no_attempt(make_broker: MakeBroker, start_worker: StartWorker) -> None:
    namespace: str | None = None
    attempts: list[int] = []
    running, finish = threading.Event(), threading.Event()
    witness = Witness()
    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(1), before=lambda state: attempts.append(state.attempt_number)
    )

    def long_task() -> None:
        running.set()
        while not finish.is_set():
            time.sleep(0.01)  # an interrupt comes through between two instructions, not within a call

    for restart in range(3):
        broker = make_broker(namespace=namespace, middleware=[witness, *default_middleware()])
        namespace = broker.parts.topics.queue("")
        actor = dramatiq.actor(broker=broker, retry=policy, notify_shutdown=True)(long_task)
        if restart == 0:
            actor.send()
        running.clear()
        # Dramatiq's own timeout: a thread that idles takes what comes in for that long after it was stopped.
        worker = start_worker(broker, worker_timeout=1_000)
        assert running.wait(DEADLINE_S)
        if restart == 2:
            finish.set()
            broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
        worker.stop(timeout=20_000)
        assert not any(thread.is_alive() for thread in worker.workers)
    # More than three of them where a slow machine fell out of its group before it could commit.
    assert len(attempts) >= 3
    assert set(attempts) == {1}
    assert witness.stopping == [True] * 3
    assert list(broker.dead_letters(QUEUE)) == []


def test_a_thousand_tasks_that_wait_for_an_hour_hold_up_nothing(  # 10,000: python -m bench.delays failing
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker()
    done: list[int] = []

    @dramatiq.actor(
        broker=broker, retry=tenacity.Retrying(wait=tenacity.wait_fixed(3600), retry=retry_if_temporary)
    )
    def failing() -> None:
        raise TemporaryError("locked")

    @dramatiq.actor(broker=broker)
    def healthy(number: int) -> None:
        done.append(number)

    broker.enqueue_many([failing.message() for _ in range(1_000)])
    broker.enqueue_many([healthy.message(number) for number in range(100)])
    start_worker(broker, worker_threads=2)
    wait_until(lambda: broker.parts.delays.count(QUEUE) == 1_000, deadline_s=DEADLINE_S, what="all to wait")
    wait_until(lambda: len(done) == 100, deadline_s=DEADLINE_S, what="the others to run")
    assert Counter(done) == dict.fromkeys(range(100), 1)
    assert broker.count(QUEUE) >= 1_000


def test_a_brokers_default_policy_holds_for_its_actors(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), retry=retry_if_temporary)
    broker: KafkaBroker = make_broker(middleware=default_middleware(retry=policy))
    runs: list[str] = []

    @dramatiq.actor(broker=broker)
    def task(kind: str) -> None:
        runs.append(kind)
        raise TemporaryError if kind == "temporary" else ValueError

    task.send("temporary")
    task.send("bad")
    start_worker(broker)
    broker.join(QUEUE, timeout=JOIN_TIMEOUT_MS)
    assert Counter(runs) == {"temporary": 2, "bad": 1}
    assert len(list(broker.dead_letters(QUEUE))) == 2
