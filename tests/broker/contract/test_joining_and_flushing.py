"""Waiting for what is left in a queue, and dropping it."""

from __future__ import annotations

import threading
from typing import cast

import dramatiq
import pytest
from dramatiq import Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.errors import ActorNotFound, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Middleware
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import StubBackend as ResultsBackend

from broker import KafkaBroker
from tests.broker.contract.backends import Backend, KafkaBackend
from tests.broker.contract.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = 60_000


@pytest.fixture
def flushable(request: pytest.FixtureRequest, backend: Backend) -> None:
    if backend.name == "kafka" and request.getfixturevalue("stack").name == "embedded":
        pytest.skip("the embedded Kafka cannot: delete records; run with --stack=real")


def test_joining_an_empty_queue_returns_at_once(working_broker: Broker) -> None:
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)


def test_joining_a_queue_that_nobody_declared_is_an_error(working_broker: Broker) -> None:
    with pytest.raises(QueueNotFound):
        working_broker.join("nowhere", timeout=1_000)


@pytest.mark.parametrize("question", ["count", "delayed", "flush"])
def test_a_question_about_a_queue_that_nobody_declared_is_an_error(
    kafka_backend: KafkaBackend, question: str
) -> None:
    with pytest.raises(QueueNotFound, match="nowhere"):
        getattr(kafka_backend.broker(), question)("nowhere")


def test_join_waits_for_delayed_messages_and_for_retries(working_broker: Broker, actor_name: str) -> None:
    done: list[str] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name, min_backoff=300, max_backoff=300)
    def task(name: str) -> None:
        if name == "retried" and "failed" not in done:
            done.append("failed")
            raise RuntimeError("once")
        done.append(name)

    task.send_with_options(args=("delayed",), delay=500)
    task.send("retried")
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert sorted(done) == ["delayed", "failed", "retried"]


def test_join_waits_for_what_is_running_and_says_when_its_time_is_over(
    working_broker: Broker, actor_name: str
) -> None:
    started, gate = threading.Event(), threading.Event()

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task() -> None:
        started.set()
        gate.wait(DEADLINE_S)

    task.send()
    assert started.wait(DEADLINE_S)
    try:
        with pytest.raises(QueueJoinTimeout):
            working_broker.join("default", timeout=300)
    finally:
        gate.set()
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)


@pytest.mark.usefixtures("flushable")
def test_a_flushed_queue_runs_nothing_that_it_held_and_takes_new_messages(
    broker: Broker, start_worker: StartWorker
) -> None:
    seen: list[str] = []

    @dramatiq.actor(broker=broker)
    def task(name: str) -> None:
        seen.append(name)

    for _ in range(10):
        task.send("flushed")
    broker.flush("default")
    start_worker(broker)
    task.send("sent after the flush")
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert seen == ["sent after the flush"]


@pytest.mark.usefixtures("flushable")
def test_a_flush_drops_what_a_worker_holds_and_has_not_begun_without_a_result(
    make_broker: MakeBroker, start_worker: StartWorker, backend: Backend
) -> None:
    if backend.name == "stub":
        pytest.skip("Dramatiq's workers run what they have prefetched after a flush")
    results = ResultsBackend()
    broker = make_broker(Results(backend=results))
    started, gate, ran = threading.Event(), threading.Event(), []

    @dramatiq.actor(broker=broker, store_results=True)
    def task(number: int) -> int:
        ran.append(number)
        started.set()
        gate.wait(DEADLINE_S)
        return number

    messages = [task.send(number) for number in range(20)]
    start_worker(broker, worker_threads=1)
    assert started.wait(DEADLINE_S)
    broker.flush("default")
    with pytest.raises(QueueJoinTimeout, match=r"^1 message"):
        broker.join("default", timeout=1_000)
    gate.set()
    broker.join("default", timeout=JOIN_TIMEOUT_MS)
    messages.append(task.send(20))
    assert messages[-1].get_result(backend=results, block=True, timeout=JOIN_TIMEOUT_MS) == 20
    assert ran[1:] == [20]
    for message in messages:
        number = message.args[0]
        if number not in ran:
            with pytest.raises(ResultMissing):
                message.get_result(backend=results)


@pytest.mark.usefixtures("flushable")
def test_what_a_flush_has_deleted_is_purged_and_not_lost_while_a_worker_runs_some_of_it(
    backend: Backend, make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    if backend.name != "kafka":
        pytest.skip("it has no ledger")
    broker = cast(KafkaBroker, make_broker())
    started, gate = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker)
    def task(number: int) -> None:
        started.set()
        gate.wait(DEADLINE_S)

    for number in range(20):
        task.send(number)
    start_worker(broker, worker_threads=1)
    assert started.wait(DEADLINE_S)
    broker.flush("default", reason="a test", by="ada")
    (state,) = broker.queues("default")
    assert (state.lag, state.counts.difference) == (0, 0)
    assert state.counts.purged >= 1  # the running one, and others until a commit says that they were dropped
    assert state.purge is not None
    assert (state.purge.by, state.purge.reason) == ("ada", "a test")
    gate.set()
    broker.join("default", timeout=JOIN_TIMEOUT_MS)

    def is_passed() -> bool:
        (state,) = broker.queues("default")
        return state.counts.purged == state.counts.difference == 0

    wait_until(is_passed, deadline_s=DEADLINE_S, what="a commit behind the flush")


@pytest.mark.usefixtures("flushable")
def test_flushing_a_queue_leaves_the_others_alone(broker: Broker, start_worker: StartWorker) -> None:
    seen: list[str] = []

    def task(name: str) -> None:
        seen.append(name)

    flushed = dramatiq.actor(broker=broker, queue_name="flushed", actor_name="flushed")(task)
    kept = dramatiq.actor(broker=broker, queue_name="kept", actor_name="kept")(task)
    flushed.send("flushed")
    kept.send("kept")
    broker.flush("flushed")
    start_worker(broker)
    for queue_name in ("flushed", "kept"):
        broker.join(queue_name, timeout=JOIN_TIMEOUT_MS)
    assert seen == ["kept"]


@pytest.mark.usefixtures("flushable")
def test_flushing_everything_drops_waiting_and_delayed_messages_of_every_queue(
    broker: Broker, start_worker: StartWorker
) -> None:
    seen: list[str] = []

    def task(name: str) -> None:
        seen.append(name)

    actors = [
        dramatiq.actor(broker=broker, queue_name=name, actor_name=name)(task) for name in ("first", "second")
    ]
    for actor in actors:
        actor.send("waiting")
        actor.send_with_options(args=("delayed",), delay=1_000)
    broker.flush_all()
    start_worker(broker)
    for actor in actors:
        actor.send("new")
        # Due after what was flushed would have been.
        actor.send_with_options(args=("new and delayed",), delay=1_500)
    wait_until(lambda: len(seen) >= 4, deadline_s=DEADLINE_S, what="the new messages")
    assert sorted(seen) == ["new", "new", "new and delayed", "new and delayed"]


class Broken(Exception):
    """A task's own error."""


@pytest.fixture
def failing(broker: Broker, start_worker: StartWorker) -> dramatiq.Actor[[str], None]:
    """An actor that fails for good, or in its first attempt, and a worker that runs it."""
    attempts: set[str] = set()

    @dramatiq.actor(broker=broker, max_retries=1, min_backoff=10, max_backoff=10)
    def task(how: str) -> None:
        if how == "for good" or how not in attempts:
            attempts.add(how)
            raise Broken(how)

    start_worker(broker)
    return task


def test_a_join_that_fails_fast_raises_the_error_of_the_message_that_failed(
    broker: Broker, failing: dramatiq.Actor[[str], None]
) -> None:
    failing.send("once")
    broker.join("default", timeout=JOIN_TIMEOUT_MS, fail_fast=True)  # type: ignore[call-arg]
    failing.send("for good")
    broker.join("default", timeout=JOIN_TIMEOUT_MS, fail_fast=False)  # type: ignore[call-arg]
    with pytest.raises(Broken, match="for good"):
        broker.join("default", timeout=JOIN_TIMEOUT_MS, fail_fast=True)  # type: ignore[call-arg]


def test_a_join_that_fails_fast_raises_actor_not_found_for_an_actor_that_nobody_knows(
    broker: Broker, failing: dramatiq.Actor[[str], None]
) -> None:
    broker.enqueue(Message("default", "nobody", (), {}, {}))
    with pytest.raises(ActorNotFound):
        broker.join("default", timeout=JOIN_TIMEOUT_MS, fail_fast=True)  # type: ignore[call-arg]


def test_a_join_fails_fast_by_default_where_the_broker_says_so(
    broker: Broker, failing: dramatiq.Actor[[str], None]
) -> None:
    broker.fail_fast_default = True  # type: ignore[attr-defined]
    failing.send("for good")
    broker.join("default", timeout=JOIN_TIMEOUT_MS, fail_fast=False)  # type: ignore[call-arg]
    with pytest.raises(Broken):
        broker.join("default", timeout=JOIN_TIMEOUT_MS)


def test_a_join_that_fails_fast_raises_for_a_message_that_fails_without_an_error(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    class Refuses(Middleware):
        def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
            message.fail()

    broker = make_broker(Refuses())

    @dramatiq.actor(broker=broker)
    def task() -> None: ...

    task.send()
    start_worker(broker)
    with pytest.raises(Exception, match=r"without an error|unknown error"):
        broker.join("default", timeout=JOIN_TIMEOUT_MS, fail_fast=True)  # type: ignore[call-arg]
