"""drain() and advance(): what runs, when, on which thread, and which error it ends with."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
import tenacity
from dramatiq.errors import Retry
from dramatiq.middleware import CurrentMessage, Shutdown, TimeLimitExceeded
from dramatiq.rate_limits import WindowRateLimiter
from dramatiq.rate_limits.backends import StubBackend as RateLimits

from broker import KafkaBroker, PermanentError, default_middleware, retry_if_temporary
from broker.kafka.types import TopicPartition
from broker.testing import (
    DrainStalled,
    Kit,
    MemoryCluster,
    advance,
    assert_dead,
    assert_enqueued,
    dead,
    delayed,
    drain,
    pending,
)
from tests.broker.testing.conftest import Runs

Declare = Callable[..., dramatiq.Actor[..., Any]]


def test_drain_runs_what_was_sent_on_the_callers_thread_and_returns_the_number_of_runs(runs: Runs) -> None:
    @dramatiq.actor
    def work(number: int) -> None:
        runs.append((number, threading.current_thread()))

    for number in range(3):
        work.send(number)
    assert runs == []
    assert drain() == 3
    assert sorted(runs, key=lambda run: run[0]) == [(n, threading.current_thread()) for n in range(3)]
    assert drain() == 0


def test_drain_runs_what_tasks_enqueue_also_on_queues_that_nothing_was_sent_to_before(runs: Runs) -> None:
    @dramatiq.actor(queue_name="second")
    def second() -> None:
        runs.append("second")

    @dramatiq.actor(queue_name="first")
    def first() -> None:
        second.send()

    first.send()
    assert drain() == 2
    assert runs == ["second"]


def test_a_message_through_five_retries_and_a_day_of_delay_takes_no_time(runs: Runs) -> None:
    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(6), wait=tenacity.wait_fixed(3600), retry=retry_if_temporary
    )

    @dramatiq.actor(retry=policy)
    def work() -> None:
        runs.append(1)
        if len(runs) < 6:
            raise ConnectionError("try again")

    work.send_with_options(delay=timedelta(days=1))
    assert drain() == 0
    advance(days=1)
    for attempt in range(1, 6):
        with pytest.raises(ConnectionError):
            drain()
        assert len(runs) == attempt
        advance(minutes=59)
        assert drain() == 0
        advance(minutes=1)
    assert drain() == 1
    assert dead() == []


def test_drain_raises_the_first_error_after_everything_that_is_due_has_run(
    failing: Declare, runs: Runs
) -> None:
    error = ValueError("the reason")
    failing(error, max_retries=0, priority=0).send()

    @dramatiq.actor(priority=1)
    def work() -> None:
        runs.append(1)

    work.send()
    with pytest.raises(ValueError, match="the reason") as caught:
        drain()
    assert caught.value is error
    assert runs == [1]
    assert drain() == 0


def test_drain_raises_nothing_when_asked_not_to(failing: Declare) -> None:
    failing(ValueError("no"), max_retries=0).send()
    assert drain(raise_errors=False) == 1
    assert drain() == 0


@pytest.mark.parametrize("error", [KeyError("expected"), Retry("later", 1000)])
def test_an_expected_error_and_a_request_for_another_attempt_are_not_raised(
    failing: Declare, error: Exception
) -> None:
    failing(error, throws=KeyError).send()
    assert drain() == 1


@pytest.mark.parametrize("error", [SystemExit(3), Shutdown(), asyncio.CancelledError()])
def test_an_error_that_is_no_exception_is_a_tasks_like_any_other(
    failing: Declare, error: BaseException
) -> None:
    fail = failing(error, max_retries=0)
    fail.send()
    with pytest.raises(type(error)):
        drain()
    assert_dead(fail, type(error))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.fail.Exception("the test's own")])
def test_an_interrupt_and_a_failure_of_the_test_end_a_drain_at_once(
    failing: Declare, error: BaseException, runs: Runs
) -> None:
    failing(error, priority=0, max_retries=0).send()

    @dramatiq.actor(priority=1)
    def work() -> None:
        runs.append(1)

    work.send()
    with pytest.raises(type(error)):
        drain(raise_errors=False)
    assert runs == []


def test_messages_run_by_priority(runs: Runs) -> None:
    for priority in (2, 0, 1):
        dramatiq.actor(actor_name=f"work_{priority}", priority=priority)(runs.append).send(priority)
    drain()
    assert runs == [0, 1, 2]


def test_the_current_message_is_known_to_its_task(runs: Runs) -> None:
    @dramatiq.actor
    def work() -> None:
        runs.append(CurrentMessage.get_current_message())

    message = work.send()
    drain()
    assert [known.message_id for known in runs] == [message.message_id]


def test_async_actors_run(runs: Runs) -> None:
    @dramatiq.actor
    async def follow() -> None:
        runs.append("follow")

    @dramatiq.actor
    async def work() -> None:
        await asyncio.sleep(0)
        follow.send()

    work.send()
    assert drain() == 2
    assert runs == ["follow"]


def test_results_pipelines_groups_and_callbacks_work() -> None:
    @dramatiq.actor(store_results=True)
    def add(first: int, second: int) -> int:
        return first + second

    @dramatiq.actor
    def note(message: dict[str, Any], result: int) -> None:
        assert result == 3

    message = add.send_with_options(args=(1, 2), on_success=note)
    pipeline = (add.message(1, 2) | add.message_with_options(args=(10,))).run()
    group = dramatiq.group([add.message(1, 1), add.message(2, 2)]).run()
    drain()
    assert message.get_result() == 3
    assert pipeline.get_result() == 13
    assert list(group.get_results()) == [2, 4]
    assert_enqueued(note)


def test_whoever_blocks_for_a_result_lets_the_messages_run_and_waits_in_no_time() -> None:
    @dramatiq.actor(store_results=True)
    def add(first: int, second: int) -> int:
        return first + second

    assert add.send(1, 2).get_result(block=True) == 3
    later = add.send_with_options(args=(1, 2), delay=60_000)
    began_s = time.monotonic()
    with pytest.raises(dramatiq.results.ResultTimeout):
        later.get_result(block=True, timeout=50_000)
    assert later.get_result(block=True, timeout=50_000) == 3
    assert time.monotonic() - began_s < 50


def test_a_message_that_is_too_old_does_not_run(runs: Runs) -> None:
    @dramatiq.actor(max_age=3_600_000)
    def work() -> None:
        runs.append(1)

    work.send()
    advance(hours=2)
    drain()
    assert runs == []
    assert_dead(work)


def test_a_task_that_advances_the_clock_past_its_time_limit_is_interrupted(runs: Runs) -> None:
    @dramatiq.actor(time_limit=60_000, max_retries=0)
    def work() -> None:
        advance(seconds=59)
        runs.append("in time")
        advance(seconds=2)
        runs.append("too late")

    work.send()
    with pytest.raises(TimeLimitExceeded):
        drain()
    assert runs == ["in time"]
    advance(hours=1)  # the test itself has no limit


def test_rate_limits_go_by_the_clock(runs: Runs) -> None:
    limit = WindowRateLimiter(RateLimits(), "work", limit=1, window=60)

    @dramatiq.actor(min_backoff=1_000, max_backoff=1_000)
    def work() -> None:
        with limit.acquire():
            runs.append(1)

    work.send()
    work.send()
    drain()
    assert runs == [1]
    advance(minutes=2)
    drain()
    assert runs == [1, 1]


def test_messages_of_a_key_run_in_order_also_past_a_failure(runs: Runs) -> None:
    @dramatiq.actor(partition_key=lambda key, number: key, key_order="ordered", min_backoff=1000)
    def work(key: str, number: int) -> None:
        runs.append((key, number))
        if number == 1 and runs.count((key, number)) == 1:
            raise ConnectionError

    for number in (1, 2, 3):
        work.send("a", number)
    work.send("b", 4)
    drain(raise_errors=False)
    assert runs == [("a", 1), ("b", 4)]
    assert [message.decode().args for message in delayed()] == [("a", 1)]
    assert [message.args for message in pending()] == [("a", 2), ("a", 3)]
    advance(hours=1)
    drain()
    assert runs[2:] == [("a", 1), ("a", 2), ("a", 3)]


def test_a_permanent_error_makes_a_dead_letter_at_once(failing: Declare) -> None:
    policy = tenacity.Retrying(stop=tenacity.stop_after_attempt(9), retry=retry_if_temporary)
    fail = failing(PermanentError("no such order"), retry=policy)
    fail.send()
    with pytest.raises(PermanentError):
        drain()
    assert assert_dead(fail, PermanentError).error == "no such order"


def test_a_drain_while_consumption_is_paused_runs_nothing_and_ends(
    kafka_broker: KafkaBroker, runs: Runs
) -> None:
    dramatiq.actor(actor_name="work")(runs.append).send(1)
    kafka_broker.consumption_paused = True
    assert drain() == 0
    kafka_broker.consumption_paused = False
    assert drain() == 1


def test_a_task_cannot_drain(runs: Runs) -> None:
    dramatiq.actor(actor_name="work", max_retries=0)(lambda: drain()).send()
    with pytest.raises(RuntimeError, match="a task cannot drain"):
        drain()


def test_a_drain_that_cannot_end_says_what_is_left_and_why() -> None:
    def refuse(letter: object) -> None:
        raise RuntimeError("no table for dead letters")

    broker = KafkaBroker(middleware=default_middleware(on_dead_letter=refuse))

    @dramatiq.actor(broker=broker, max_retries=0)
    def work() -> None:
        raise ValueError

    with Kit(broker).use() as kit:
        work.send()
        with pytest.raises(DrainStalled, match=r"'default': 1") as caught:
            kit.drain()
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert "no table for dead letters" in str(caught.value)


def test_a_topic_that_would_lose_messages_stalls_a_drain_with_the_brokers_own_advice() -> None:
    cluster = MemoryCluster()
    cluster.create_topic("default", 1, {"cleanup.policy": "compact"})
    broker = KafkaBroker()
    work = dramatiq.actor(actor_name="work", broker=broker)(print)
    with Kit(broker, cluster).use() as kit:
        cluster.append(TopicPartition("default", 0), b"key", work.message().encode())
        with pytest.raises(DrainStalled, match=r"cleanup\.policy"):
            kit.drain()


def test_a_task_that_sends_itself_for_ever_is_noticed(runs: Runs) -> None:
    def work() -> None:
        runs.append(1)
        actor.send()

    actor = dramatiq.actor(work)
    actor.send()
    with pytest.raises(DrainStalled, match="more than 20 runs"):
        drain(max_runs=20)
    assert len(runs) == 21


def test_a_message_for_an_unknown_actor_becomes_a_dead_letter(kafka_broker: KafkaBroker) -> None:
    dramatiq.actor(actor_name="work")(print).send()
    del kafka_broker.actors["work"]
    assert drain() == 0
    assert_dead("work", "UnknownActor")


def test_a_drain_logs_no_warning(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    dramatiq.actor(actor_name="work")(runs.append).send(1)
    drain()
    assert caplog.records == []
