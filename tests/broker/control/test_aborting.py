"""An aborted message does not run, wherever it is, and no other message is concerned."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import AsyncIO

from broker import Abort, AbortOutcome, KafkaBroker, current_task, default_middleware
from broker.testing import Kit
from tests.broker.control.conftest import QUEUE
from tests.waiting import wait_until

DEADLINE_S = 30.0


def declare(kit: Kit, runs: list[Any], **options: Any) -> dramatiq.Actor[..., Any]:
    def work(number: int) -> None:
        runs.append(number)

    return dramatiq.actor(broker=kit.broker, queue_name=QUEUE, **options)(work)


def test_an_aborted_message_on_its_queue_does_not_run(kit: Kit, operator: KafkaBroker) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    messages = [work.send(number) for number in range(3)]
    assert operator.abort(messages[1].message_id, reason="a test", by="someone") is AbortOutcome.RECORDED
    kit.drain()
    assert sorted(runs) == [0, 2]
    assert kit.broker.count(QUEUE) == 0
    assert list(kit.broker.dead_letters(QUEUE)) == []


def test_an_aborted_message_that_is_delayed_does_not_run(kit: Kit, operator: KafkaBroker) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    message = work.send_with_options(args=(1,), delay=60_000)
    kit.drain()
    operator.abort(message.message_id)
    kit.advance(minutes=2)
    kit.drain()
    assert runs == []
    assert kit.broker.count(QUEUE) == 0


def test_an_aborted_message_that_waits_for_its_retry_does_not_run_again(
    kit: Kit, operator: KafkaBroker
) -> None:
    runs: list[int] = []

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, max_retries=5, min_backoff=1_000)
    def fail(number: int) -> None:
        runs.append(number)
        raise ConnectionError("the service is away")

    message = fail.send(1)
    kit.drain(raise_errors=False)
    operator.abort(message.message_id)
    kit.advance(hours=1)
    kit.drain(raise_errors=False)
    assert runs == [1]
    assert kit.broker.count(QUEUE) == 0
    assert list(kit.broker.dead_letters(QUEUE)) == []


def test_an_aborted_message_does_not_hold_up_the_later_ones_of_its_key(
    kit: Kit, operator: KafkaBroker
) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    messages = [work.send_with_options(args=(n,), partition_key="a key") for n in range(4)]
    operator.abort(messages[0].message_id)
    operator.abort(messages[2].message_id)
    kit.drain()
    assert runs == [1, 3]


def test_an_abort_that_stood_before_the_worker_started_is_in_force_until_its_time(
    kit: Kit, operator: KafkaBroker
) -> None:
    runs: list[int] = []
    work = declare(kit, runs)
    first, second = work.send(1), work.send_with_options(args=(2,), delay=7_200_000)
    until = datetime.fromtimestamp(kit.clock.wall_ms() / 1000, UTC) + timedelta(hours=1)
    for message in (first, second):
        operator.abort(message.message_id, expires_at=until)
    kit.drain()
    assert runs == []
    kit.advance(hours=3)
    kit.drain()
    assert runs == [2]


def test_an_abort_that_is_over_or_has_no_zone_is_refused(operator: KafkaBroker) -> None:
    with pytest.raises(ValueError, match="is over"):
        operator.abort("an id", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="no time zone"):
        operator.abort("an id", expires_at=datetime(2020, 1, 1))  # noqa: DTZ001


@pytest.fixture
def async_kit() -> Iterator[Kit]:
    broker = KafkaBroker(partitions=1, middleware=[*default_middleware(), AsyncIO()])
    with Kit(broker).use() as kit:
        yield kit


class Interrupted:
    """The runs of tasks that last until they are aborted."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.errors: list[BaseException] = []
        self.asked: list[bool] = []
        self.ended: list[int] = []


# Its tests are left out of the fast loop, which coverage measures: an exception of another thread hangs
# its tracer.
@pytest.fixture
def threaded(async_kit: Kit) -> Iterator[Kit]:
    with async_kit.threads(worker_threads=1):
        yield async_kit


@pytest.mark.slow
def test_a_running_task_in_a_thread_gets_the_abort_and_the_next_one_does_not(threaded: Kit) -> None:
    seen = Interrupted()

    @dramatiq.actor(broker=threaded.broker, queue_name=QUEUE, max_retries=3)
    def work(number: int) -> None:
        seen.begun.append(number)
        try:
            while number == 0:
                time.sleep(0.005)
        except Abort as e:
            seen.errors.append(e)
            seen.asked.append(current_task.aborted)
            raise
        seen.ended.append(number)

    first = work.send(0)
    wait_until(lambda: seen.begun == [0], deadline_s=DEADLINE_S, what="the task")
    others = [work.send(number) for number in range(1, 4)]
    outcome = threaded.broker.abort(first.message_id, timeout_s=DEADLINE_S)
    assert outcome is AbortOutcome.ABORTED
    wait_until(lambda: len(seen.ended) == 3, deadline_s=DEADLINE_S, what="the other tasks")
    threaded.broker.join(QUEUE, timeout=10_000)
    assert seen.begun == [0, 1, 2, 3]
    assert seen.asked == [True]
    assert len(others) == 3
    assert list(threaded.broker.dead_letters(QUEUE)) == []


@pytest.mark.slow
def test_a_running_coroutine_is_cancelled(threaded: Kit) -> None:
    seen = Interrupted()

    @dramatiq.actor(broker=threaded.broker, queue_name=QUEUE, max_retries=3)
    async def work(number: int) -> None:
        seen.begun.append(number)
        try:
            await asyncio.sleep(3600 if number == 0 else 0)
        except asyncio.CancelledError as e:
            seen.errors.append(e)
            raise
        seen.ended.append(number)

    first = work.send(0)
    wait_until(lambda: seen.begun == [0], deadline_s=DEADLINE_S, what="the coroutine")
    threaded.broker.abort(first.message_id)
    wait_until(lambda: seen.errors, deadline_s=DEADLINE_S, what="its cancellation")
    work.send(1)
    wait_until(lambda: seen.ended == [1], deadline_s=DEADLINE_S, what="the next one")
    threaded.broker.join(QUEUE, timeout=10_000)


@pytest.mark.slow
def test_no_other_task_of_a_thread_gets_an_abort_that_comes_when_its_task_ends(threaded: Kit) -> None:
    """Tasks that take about as long as an abort takes to arrive, one after the other in one thread."""
    ended: list[int] = []
    wrong: list[int] = []
    aborted: set[int] = set()

    @dramatiq.actor(broker=threaded.broker, queue_name=QUEUE, max_retries=0)
    def work(number: int) -> None:
        try:
            for _ in range(50):
                threading.Event().wait(0)
        except Abort:
            if number not in aborted:
                wrong.append(number)
            raise
        finally:
            ended.append(number)

    interrupt = threaded.broker.parts.aborts.interrupt
    messages = [work.send(number) for number in range(300)]
    ids = {message.message_id: number for number, message in enumerate(messages)}
    for message_id, number in ids.items():
        if number % 2:
            aborted.add(number)
            interrupt([message_id])
    stop = time.monotonic() + DEADLINE_S
    while len(ended) < 300 and time.monotonic() < stop:
        interrupt([message_id for message_id, number in ids.items() if number % 2])
    wait_until(lambda: len(ended) >= 300, deadline_s=DEADLINE_S, what="all tasks")
    threaded.broker.join(QUEUE, timeout=20_000)
    assert wrong == []
