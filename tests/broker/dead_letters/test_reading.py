"""Reading the dead letters of a queue."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from broker import DeadLetter, KafkaBroker, KafkaUnavailable
from broker.produce.record import Record
from dev.ports import free_port
from tests.broker.conftest import MakeBroker
from tests.broker.dead_letters.samples import QUEUE, add_dead_letter, message


@pytest.fixture(scope="module")
def broker(make_broker: MakeBroker) -> KafkaBroker:
    """One with five dead letters."""
    broker = make_broker()
    add_dead_letter(broker, [MAIL, MAIL_2], ValueError("bad input"))
    add_dead_letter(broker, [REPORT], TimeoutError("slow"))
    garbage = Record(broker.parts.topics.dead_letters(QUEUE), b"not ours")
    assert broker.parts.publisher.publish([garbage]) == {}
    return broker


MAIL, MAIL_2, REPORT = message("mail"), message("mail"), message("report")


def ids(dead_letters: object) -> set[str]:
    return {dead_letter.message.message_id for dead_letter in dead_letters if dead_letter.message}  # type: ignore[attr-defined]


def test_without_filters_everything_is_read_even_what_is_none_of_ours(broker: KafkaBroker) -> None:
    dead_letters = list(broker.dead_letters(QUEUE))
    assert ids(dead_letters) == {MAIL.message_id, MAIL_2.message_id, REPORT.message_id}
    assert len(dead_letters) == 4
    assert all(dead_letter.dlq_origin for dead_letter in dead_letters)


def test_each_filter_picks_what_it_says(broker: KafkaBroker) -> None:
    assert ids(broker.dead_letters(QUEUE, error_type="TimeoutError")) == {REPORT.message_id}
    assert ids(broker.dead_letters(QUEUE, message_id=MAIL.message_id)) == {MAIL.message_id}
    assert ids(broker.dead_letters(QUEUE, actor="mail")) == {MAIL.message_id, MAIL_2.message_id}
    assert ids(broker.dead_letters(QUEUE, actor="mail", error_type="TimeoutError")) == set()
    assert ids(broker.dead_letters(QUEUE, where=lambda dead_letter: dead_letter.error == "slow")) == {
        REPORT.message_id
    }


def test_since_is_inclusive_and_until_is_not(broker: KafkaBroker) -> None:
    [dead_letter] = broker.dead_letters(QUEUE, message_id=REPORT.message_id)
    at = datetime.fromtimestamp(dead_letter.timestamp / 1000, UTC)
    later = at + timedelta(milliseconds=1)
    assert REPORT.message_id in ids(broker.dead_letters(QUEUE, since=at))
    assert REPORT.message_id not in ids(broker.dead_letters(QUEUE, until=at))
    assert REPORT.message_id in ids(broker.dead_letters(QUEUE, until=later))
    assert REPORT.message_id not in ids(broker.dead_letters(QUEUE, since=later))


def test_a_time_without_a_zone_is_refused_at_once(broker: KafkaBroker) -> None:
    with pytest.raises(ValueError, match="time zone"):
        broker.dead_letters(QUEUE, since=datetime(2030, 1, 1))  # noqa: DTZ001 - what is tested


def test_an_unknown_filter_is_refused_at_once(broker: KafkaBroker) -> None:
    with pytest.raises(
        TypeError, match="'colour' is not a filter of dead letters; the filters are error_type, since"
    ):
        broker.dead_letters(QUEUE, colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'eror_type' is not a filter .*; did you mean 'error_type'"):
        broker.redrive(QUEUE, eror_type="ValueError")  # type: ignore[call-arg]


def test_a_queue_without_dead_letters_has_none(broker: KafkaBroker) -> None:
    assert list(broker.dead_letters("another")) == []


def test_what_comes_in_while_it_is_read_is_left_for_the_next_time(make_broker: MakeBroker) -> None:
    broker = make_broker()
    add_dead_letter(broker, [message() for _ in range(20)])
    dead_letters = broker.dead_letters(QUEUE)
    first = list(itertools.islice(dead_letters, 1))
    add_dead_letter(broker, [message() for _ in range(20)])
    assert len(first + list(dead_letters)) == 20
    assert len(list(broker.dead_letters(QUEUE))) == 40


def test_a_thousand_large_ones_are_read_one_after_the_other(make_broker: MakeBroker) -> None:
    broker = make_broker(partitions=2)
    messages = [message(padding="x" * 10_000) for _ in range(1_000)]
    add_dead_letter(broker, messages)
    assert ids(broker.dead_letters(QUEUE)) == {message.message_id for message in messages}


@pytest.mark.parametrize(
    "ask",
    [
        lambda broker: list(broker.dead_letters(QUEUE)),
        lambda broker: broker.redrive(QUEUE),
        lambda broker: broker.discard(QUEUE, dry_run=False, reason="test"),
        lambda broker: list(broker.dead_letter_queue.history(QUEUE)),
    ],
    ids=["read", "redrive", "discard", "history"],
)
def test_without_kafka_every_question_is_answered_by_an_error(
    ask: Callable[[KafkaBroker], list[DeadLetter]],
) -> None:
    broker = KafkaBroker(f"127.0.0.1:{free_port()}", client_options={"bootstrap_timeout_ms": 500})
    with pytest.raises(KafkaUnavailable):
        ask(broker)
