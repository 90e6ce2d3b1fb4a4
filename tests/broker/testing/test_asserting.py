"""assert_enqueued, assert_not_enqueued and assert_dead: what they accept, and what their failures show."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import ActorNotFound, QueueNotFound

from broker import KafkaBroker
from broker.testing import (
    advance,
    assert_dead,
    assert_enqueued,
    assert_not_enqueued,
    crash_worker,
    dead,
    drain,
)


@pytest.fixture
def charge() -> dramatiq.Actor[..., None]:
    @dramatiq.actor(queue_name="money")
    def charge(order: int, amount: int = 1) -> None:
        """Nothing to do."""

    return charge


def test_a_message_is_found_by_each_of_its_fields(charge: dramatiq.Actor[..., None]) -> None:
    message = charge.send_with_options(args=(7,), kwargs={"amount": 2}, delay=60_000, max_retries=1)
    found = assert_enqueued(
        charge,
        times=1,
        args=(7,),
        kwargs={"amount": 2},
        delay=timedelta(minutes=1),
        queue_name="money",
        options={"max_retries": 1},
    )
    assert found.message_id == message.message_id
    assert_enqueued("charge", delay=60_000)


@pytest.mark.parametrize(
    "wanted",
    [
        {"args": (8,)},
        {"kwargs": {"amount": 2}},
        {"delay": 1},
        {"queue_name": "default"},
        {"options": {"max_retries": 1}},
        {"times": 2},
    ],
)
def test_a_message_is_missed_when_one_field_differs(
    charge: dramatiq.Actor[..., None], wanted: dict[str, Any]
) -> None:
    charge.send(7)
    with pytest.raises(AssertionError):
        assert_enqueued(charge, **wanted)
    if "times" not in wanted:
        assert_not_enqueued(charge, **wanted)


def test_a_failed_assertion_shows_what_was_enqueued(charge: dramatiq.Actor[..., None]) -> None:
    charge.send_with_options(args=(7,), delay=5_000, max_retries=1)
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(charge, args=(8,))
    assert "no message of 'charge' with args=(8,) was" in str(caught.value)
    assert "charge(7) queue='money' delay=5000 {'max_retries': 1}" in str(caught.value)
    with pytest.raises(AssertionError, match=r"a message of 'charge' was enqueued[^!]*charge\(7\)"):
        assert_not_enqueued(charge)


def test_a_failed_assertion_says_when_nothing_was_enqueued(charge: dramatiq.Actor[..., None]) -> None:
    with pytest.raises(AssertionError, match="Nothing was enqueued"):
        assert_enqueued(charge)
    with pytest.raises(AssertionError, match="There is no dead letter"):
        assert_dead(charge)


def test_a_field_that_messages_do_not_have_is_refused(charge: dramatiq.Actor[..., None]) -> None:
    charge.send(7)
    with pytest.raises(TypeError, match="there are args, kwargs"):
        assert_enqueued(charge, arguments=(7,))


def test_a_message_that_has_run_was_enqueued_and_a_retry_is_no_further_message() -> None:
    @dramatiq.actor(max_retries=1)
    def fail() -> None:
        raise ValueError

    fail.send()
    drain(raise_errors=False)
    advance(hours=1)
    drain(raise_errors=False)
    assert_enqueued(fail, times=1, delay=None)


def test_the_messages_of_tasks_were_enqueued_too(charge: dramatiq.Actor[..., None]) -> None:
    @dramatiq.actor
    def order(number: int) -> None:
        charge.send(number)

    order.send(7)
    assert_not_enqueued(charge)
    drain()
    assert_enqueued(charge, args=(7,))


def test_a_dead_letter_is_found_by_the_class_of_its_error_a_superclass_or_its_name() -> None:
    @dramatiq.actor(max_retries=0)
    def fail() -> None:
        raise ConnectionRefusedError("port 5432")

    fail.send()
    drain(raise_errors=False)
    for error in (ConnectionRefusedError, OSError, "ConnectionRefusedError", None):
        letter = assert_dead(fail, error)
        assert letter.message is not None
    with pytest.raises(AssertionError, match=r"with ValueError\.[^!]*fail\(\): port 5432"):
        assert_dead(fail, ValueError)
    with pytest.raises(AssertionError):
        assert_dead(fail, "Error")


def test_a_misspelt_actor_or_queue_is_an_error_and_no_proof_that_nothing_was_enqueued(
    kafka_broker: KafkaBroker,
) -> None:
    work = dramatiq.actor(actor_name="work")(lambda: None)
    with pytest.raises(ActorNotFound, match="the actors: work"):
        assert_not_enqueued("wrok")
    with pytest.raises(QueueNotFound):
        assert_not_enqueued(work, queue_name="defualt")
    with pytest.raises(QueueNotFound):
        dead("defualt")
    with pytest.raises(TypeError, match="milliseconds"):
        assert_not_enqueued(work, delay="1")


def test_an_argument_of_the_wrong_type_is_named(kafka_broker: KafkaBroker) -> None:
    work: Any = dramatiq.actor(actor_name="work")(lambda: None)
    with pytest.raises(TypeError, match="no tuple"):
        assert_enqueued(work, args=1)
    with pytest.raises(TypeError, match="advance\\(seconds=5\\)"):
        advance(5)  # type: ignore[arg-type]
    wrong: Any = "during"
    with pytest.raises(ValueError, match="'before', 'after', 'settled'"), crash_worker(wrong):
        drain()
    work.send()
    drain()
    no_error: Any = 5
    with pytest.raises(TypeError, match="neither the class"):
        assert_dead(work, no_error)
