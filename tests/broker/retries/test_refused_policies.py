"""Policies that cannot be run durably are refused when the actor is declared, with the reason."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
import tenacity
from dramatiq.brokers.stub import StubBroker
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_all,
    retry_always,
    retry_any,
    retry_if_exception_type,
    retry_if_not_exception_message,
    retry_if_not_exception_type,
    retry_if_not_result,
    retry_if_result,
    retry_unless_exception_type,
    stop_after_attempt,
    stop_all,
    stop_any,
    stop_when_event_set,
    wait_fixed,
)

from broker import RetryPolicyRefused, TenacityRetries, default_middleware

EVENT = threading.Event()
IS_NONE = retry_if_result(lambda result: result is None)
ON_ERROR = retry_if_exception_type(OSError)


async def never(_state: object) -> bool:
    return False


class NeedsArguments(Retrying):
    def __init__(self, needed: int, **options: Any) -> None:
        super().__init__(**options)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a result predicate": (lambda: Retrying(retry=IS_NONE), "retry_if_result"),
    "its opposite": (lambda: Retrying(retry=retry_if_not_result(bool)), "retry_if_not_result"),
    "a result predicate in an or": (lambda: Retrying(retry=ON_ERROR | IS_NONE), "retry_if_result"),
    "a result predicate in an and": (lambda: Retrying(retry=ON_ERROR & IS_NONE), "retry_if_result"),
    "a result predicate deep inside": (
        lambda: Retrying(retry=retry_any(ON_ERROR, retry_all(ON_ERROR, retry_any(IS_NONE)))),
        "retry_if_result",
    ),
    "what retries every outcome": (lambda: Retrying(retry=retry_always), "a task that succeeded"),
    "what retries until an error": (
        lambda: Retrying(retry=retry_unless_exception_type(OSError)),
        "a task that succeeded",
    ),
    "what retries until a text": (
        lambda: Retrying(retry=ON_ERROR | retry_if_not_exception_message("done")),
        "a task that succeeded",
    ),
    "a callback for the result": (lambda: Retrying(retry_error_callback=lambda _: 1), "on_retry_exhausted"),
    "an event": (lambda: Retrying(stop=stop_when_event_set(EVENT)), "stop_when_event_set"),
    "an event deep inside": (
        lambda: Retrying(stop=stop_any(stop_after_attempt(3), stop_all(stop_when_event_set(EVENT)))),
        "stop_when_event_set",
    ),
    "a sleep of its own": (lambda: Retrying(sleep=lambda _: None), "custom sleep"),
    "a sleep on an event": (lambda: Retrying(sleep=tenacity.sleep_using_event(EVENT)), "custom sleep"),
    "an event loop": (AsyncRetrying, "AsyncRetrying"),
    "a coroutine": (lambda: Retrying(retry=ON_ERROR | never), "coroutine"),  # type: ignore[operator]
    "a class": (lambda: Retrying, "an instance"),
    "a decorator": (lambda: tenacity.retry(stop=stop_after_attempt(3)), "no tenacity.Retrying"),
    "a number": (lambda: 3, "no tenacity.Retrying"),
    "a subclass that cannot be copied": (lambda: NeedsArguments(1), "copy()"),
}


def declare(broker: StubBroker, queue_name: str = "default", **options: Any) -> dramatiq.Actor[[], None]:
    def task() -> None: ...

    return dramatiq.actor(broker=broker, queue_name=queue_name, **options)(task)


@pytest.fixture
def broker() -> StubBroker:
    return StubBroker(middleware=default_middleware())


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_outlive_the_process_is_refused_with_the_reason(
    broker: StubBroker, make: Callable[[], object], reason: str
) -> None:
    with pytest.raises(RetryPolicyRefused) as refusal:
        declare(broker, retry=make())
    assert reason in str(refusal.value)
    assert "'task'" in str(refusal.value)


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_brokers_default_is_refused_in_the_same_way(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(RetryPolicyRefused) as refusal:
        default_middleware(retry=make())  # type: ignore[arg-type]
    assert reason in str(refusal.value)


def test_a_refused_actor_leaves_nothing_behind(broker: StubBroker) -> None:
    with pytest.raises(RetryPolicyRefused):
        declare(broker, "q", retry=Retrying(retry=IS_NONE))
    assert not broker.get_declared_actors()
    assert not broker.get_declared_queues()

    actor = declare(broker, "q", retry=Retrying())
    assert broker.get_actor("task") is actor


def test_a_policy_and_dramatiqs_own_options_exclude_each_other(broker: StubBroker) -> None:
    with pytest.raises(RetryPolicyRefused, match="max_retries, min_backoff"):
        declare(broker, retry=Retrying(), max_retries=3, min_backoff=100, throws=OSError)


def test_a_policy_on_one_message_is_refused_before_anything_is_sent(broker: StubBroker) -> None:
    actor = declare(broker)
    with pytest.raises(RetryPolicyRefused, match="Declare it on the actor"):
        actor.send_with_options(retry=Retrying())
    assert broker.queues["default"].empty()


@pytest.mark.parametrize(
    "policy",
    [
        Retrying(),
        Retrying(retry=retry_if_not_exception_type(OSError)),
        Retrying(retry=ON_ERROR & retry_if_not_exception_message("done")),
        Retrying(retry=lambda state: state.attempt_number < 3),
        Retrying(stop=stop_any(stop_after_attempt(3)), wait=wait_fixed(1) + tenacity.wait_random(0, 1)),
    ],
)
def test_what_looks_at_errors_and_counts_alone_is_accepted(broker: StubBroker, policy: Retrying) -> None:
    assert declare(broker, retry=policy).options["retry"] is policy
    assert TenacityRetries(retry=policy).retry is policy
