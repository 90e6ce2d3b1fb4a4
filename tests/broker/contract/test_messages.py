"""What becomes of a message that a worker gets."""

from __future__ import annotations

import time

import dramatiq
import pytest
from dramatiq import Broker, Message
from dramatiq.middleware import CurrentMessage, SkipMessage

from tests.broker.contract.backends import Backend
from tests.waiting import wait_until

DEADLINE_S = 60.0
JOIN_TIMEOUT_MS = 60_000


def message_id() -> str:
    message = CurrentMessage.get_current_message()
    assert message is not None
    return message.message_id


def test_a_message_runs_once_with_its_arguments(working_broker: Broker, actor_name: str) -> None:
    calls: list[tuple[object, ...]] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task(*args: object, **kwargs: object) -> None:
        calls.append((args, kwargs))

    task.send(1, "zwei", [3.5, None], key={"ключ": "значение"})
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert calls == [((1, "zwei", [3.5, None]), {"key": {"ключ": "значение"}})]


def test_each_of_many_messages_runs_once(working_broker: Broker, actor_name: str) -> None:
    seen: list[int] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task(number: int) -> None:
        seen.append(number)

    for number in range(200):
        task.send(number)
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert sorted(seen) == list(range(200))


def test_the_message_that_send_returns_is_the_one_that_runs(working_broker: Broker, actor_name: str) -> None:
    ran: list[str] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task() -> None:
        ran.append(message_id())

    sent = [task.send().message_id, task.send_with_options(delay=50).message_id]
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert sorted(ran) == sorted(sent)


def test_an_actor_can_send_messages_while_it_runs(working_broker: Broker, actor_name: str) -> None:
    seen: list[int] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task(left: int) -> None:
        seen.append(left)
        if left:
            task.send(left - 1)

    task.send(3)
    wait_until(lambda: seen == [3, 2, 1, 0], deadline_s=DEADLINE_S, what="the chain's end")


def test_a_failing_message_is_retried_with_its_id(working_broker: Broker, actor_name: str) -> None:
    attempts: list[str] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name, min_backoff=10, max_backoff=50)
    def task() -> None:
        attempts.append(message_id())
        if len(attempts) < 3:
            raise RuntimeError("not yet")

    sent = task.send()
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert attempts == [sent.message_id] * 3


def test_retries_end_at_max_retries_with_a_dead_letter(
    working_broker: Broker, backend: Backend, actor_name: str
) -> None:
    attempts: list[int] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name, min_backoff=10, max_backoff=50)
    def task() -> None:
        attempts.append(1)
        raise RuntimeError("never")

    sent = task.send_with_options(max_retries=2)
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert len(attempts) == 3
    assert list(backend.dead_letter_ids(working_broker, "default")).count(sent.message_id) == 1


def test_an_error_in_throws_is_not_retried(working_broker: Broker, backend: Backend, actor_name: str) -> None:
    attempts: list[int] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name, throws=ZeroDivisionError)
    def task() -> None:
        attempts.append(1)
        raise ZeroDivisionError

    sent = task.send()
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert len(attempts) == 1
    assert sent.message_id in backend.dead_letter_ids(working_broker, "default")


def test_raising_retry_asks_for_another_attempt(working_broker: Broker, actor_name: str) -> None:
    attempts: list[int] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise dramatiq.errors.Retry("again", delay=10)

    task.send()
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert len(attempts) == 2


def test_a_message_of_an_unknown_actor_becomes_a_dead_letter(
    working_broker: Broker, backend: Backend
) -> None:
    stranger: Message[None] = Message("default", "nobody", (), {}, {})
    working_broker.enqueue(stranger)
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert stranger.message_id in backend.dead_letter_ids(working_broker, "default")


def test_a_skipped_message_is_done(working_broker: Broker, backend: Backend, actor_name: str) -> None:
    attempts: list[int] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task() -> None:
        attempts.append(1)
        raise SkipMessage("not today")

    sent = task.send()
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert len(attempts) == 1
    assert sent.message_id not in backend.dead_letter_ids(working_broker, "default")


def test_a_delayed_message_does_not_run_before_its_time(working_broker: Broker, actor_name: str) -> None:
    ran_at_s: list[float] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task() -> None:
        ran_at_s.append(time.time())

    due_s = time.time() + 0.4
    task.send_with_options(delay=400)
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert len(ran_at_s) == 1
    assert ran_at_s[0] >= due_s


def test_delayed_messages_run_in_the_order_they_are_due(working_broker: Broker, actor_name: str) -> None:
    seen: list[str] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task(name: str) -> None:
        seen.append(name)

    task.send_with_options(args=("late",), delay=1_500)
    task.send_with_options(args=("soon",), delay=300)
    task.send("now")
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert seen == ["now", "soon", "late"]


@pytest.mark.parametrize("size", [100_000, 900_000])
def test_a_large_message_arrives_whole(working_broker: Broker, actor_name: str, size: int) -> None:
    lengths: list[int] = []

    @dramatiq.actor(broker=working_broker, actor_name=actor_name)
    def task(text: str) -> None:
        lengths.append(len(text))

    task.send("x" * size)
    working_broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert lengths == [size]
