"""Each way in which a message can end leaves a dead letter that says why."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
import pytest
import tenacity
from dramatiq import Message
from dramatiq.middleware import SkipMessage, TimeLimitExceeded

from broker import (
    DeadLetter,
    KafkaBroker,
    PermanentError,
    TemporaryError,
    default_middleware,
    retry_if_temporary,
)
from broker.produce.record import Record
from tests.broker.conftest import MakeBroker, StartWorker
from tests.waiting import wait_until

DEADLINE_S = 60.0
HEADERS = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]

POLICY = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0.1), retry=retry_if_temporary
)
ERRORS: dict[str, BaseException] = {
    "exhausted": TemporaryError("locked"),
    "permanent": PermanentError("no such ad"),
    "not retried": ValueError("bad input"),
    "time limit": TimeLimitExceeded(),
    "too large": ValueError("x" * 2_000_000),
}


@pytest.fixture(scope="module")
def told() -> list[DeadLetter]:
    """What the broker's on_dead_letter was called with."""
    return []


@pytest.fixture(scope="module")
def broker(make_broker: MakeBroker, told: list[DeadLetter]) -> KafkaBroker:
    broker = make_broker(middleware=default_middleware(on_dead_letter=told.append))

    @dramatiq.actor(broker=broker, retry=POLICY)
    def fail(how: str) -> None:
        raise ERRORS[how]

    @dramatiq.actor(broker=broker, retry=POLICY, max_age=1)
    def too_old() -> None: ...

    return broker


@pytest.fixture(scope="module")
def records(broker: KafkaBroker) -> dict[str, bytes]:
    """What is put into the queue, by the way it has to end."""
    fail = broker.get_actor("fail")
    messages: dict[str, Message[None]] = {how: fail.message(how) for how in ERRORS}
    messages["age limit"] = broker.get_actor("too_old").message().copy(message_timestamp=1)
    messages["unknown actor"] = fail.message("x").copy(actor_name="gone")
    messages["another queue's"] = fail.message("x").copy(queue_name="other")
    raw = {how: message.encode() for how, message in messages.items()}
    return {
        **raw,
        "undecodable": b"\xff\x00 no message",
        "no object": b"[1]",
        "large garbage": b"\xff" * 900_000,
    }


@pytest.fixture(scope="module")
def dead_letters(
    broker: KafkaBroker, records: dict[str, bytes], start_worker: StartWorker
) -> Callable[[str], DeadLetter]:
    """The dead letter of a record, once all of them have ended."""
    topic = broker.parts.topics.queue("default")
    failures = broker.parts.publisher.publish(
        [Record(topic, raw, headers=HEADERS) for raw in records.values()]
    )
    assert failures == {}
    start_worker(broker)

    def found() -> list[DeadLetter] | None:
        there = list(broker.dead_letters("default"))
        return there if len(there) >= len(records) else None

    there = wait_until(found, deadline_s=DEADLINE_S, what="all dead letters")
    assert len(there) == len(records)

    def dead_letter_of(how: str) -> DeadLetter:
        raw = records[how]
        try:
            message_id = Message.decode(raw).message_id
        except dramatiq.DecodeError:
            return next(dead_letter for dead_letter in there if dead_letter.raw == raw)
        return next(
            dead_letter
            for dead_letter in there
            if dead_letter.message and dead_letter.message.message_id == message_id
        )

    return dead_letter_of


@pytest.mark.parametrize(
    ("how", "error_type", "retry_count"),
    [
        ("exhausted", "TemporaryError", 2),
        ("permanent", "PermanentError", 0),
        ("not retried", "ValueError", 0),
        ("time limit", "TimeLimitExceeded", 0),
        ("too large", "ValueError", 0),
        ("age limit", "SkipMessage", 0),
        ("unknown actor", "UnknownActor", 0),
        ("another queue's", "InvalidMessage", 0),
        ("undecodable", "InvalidMessage", 0),
        ("no object", "InvalidMessage", 0),
        ("large garbage", "InvalidMessage", 0),
    ],
)
def test_it_says_why_it_ended_and_keeps_what_it_was(
    dead_letters: Callable[[str], DeadLetter],
    broker: KafkaBroker,
    how: str,
    error_type: str,
    retry_count: int,
) -> None:
    dead_letter = dead_letters(how)
    assert (dead_letter.error_type, dead_letter.retry_count) == (error_type, retry_count)
    assert dead_letter.queue_name == "default"
    assert dead_letter.origin is not None
    assert dead_letter.origin.topic == broker.parts.topics.queue("default")
    assert list(dead_letter.headers[:1]) == HEADERS
    assert len(dead_letter.error) <= 2_000


@pytest.mark.parametrize("how", ["undecodable", "no object", "large garbage"])
def test_what_was_no_message_is_kept_to_the_byte(
    dead_letters: Callable[[str], DeadLetter], records: dict[str, bytes], how: str
) -> None:
    assert (dead_letters(how).message, dead_letters(how).raw) == (None, records[how])


def test_an_unknown_actors_message_is_kept_with_all_it_had(
    dead_letters: Callable[[str], DeadLetter], records: dict[str, bytes]
) -> None:
    assert dead_letters("unknown actor").message == Message.decode(records["unknown actor"])


def test_the_age_limits_own_words_are_the_error(dead_letters: Callable[[str], DeadLetter]) -> None:
    assert dead_letters("age limit").error_type == SkipMessage.__name__
    assert "age limit" in dead_letters("age limit").error


def test_every_one_of_them_is_told_to_on_dead_letter(
    dead_letters: Callable[[str], DeadLetter], records: dict[str, bytes], told: list[DeadLetter]
) -> None:
    ends = {how: dead_letters(how) for how in records}
    wait_until(lambda: len(told) >= len(ends), deadline_s=DEADLINE_S, what="all to be told")
    for dead_letter in ends.values():
        assert [(t.error, t.message) for t in told if t.origin == dead_letter.origin] == [
            (dead_letter.error, dead_letter.message)
        ]


def test_the_queue_is_empty_when_all_have_ended(
    dead_letters: Callable[[str], DeadLetter], broker: KafkaBroker
) -> None:
    dead_letters("exhausted")
    broker.join("default", timeout=int(DEADLINE_S * 1000))
