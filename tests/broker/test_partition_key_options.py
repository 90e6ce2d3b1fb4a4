"""Which keys and orders are refused, and with which words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from broker import PartitionKeyRefused, default_middleware
from broker.consume.decoding import read_message
from broker.errors import InvalidMessage
from broker.partition_keys.lane import SequenceNumber
from broker.partition_keys.record_format import MAX_KEY_BYTES, TICKET_HEADER, read_requeue_headers


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker(middleware=default_middleware())
    yield broker
    broker.close()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (7, "is int, not text"),
        (b"user-7", "is bytes, not text"),
        (["user-7"], "is list, not text"),
        ("", "is empty"),
        ("x" * (MAX_KEY_BYTES + 1), "has 256 bytes, 255 are allowed"),
        ("я" * 128, "has 256 bytes, 255 are allowed"),
        ("\ud800", "UTF-8"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_when_it_is_sent(
    broker: StubBroker, key: Any, reason: str
) -> None:
    actor = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    with pytest.raises(PartitionKeyRefused, match=reason):
        actor.send_with_options(partition_key=key)
    assert broker.queues["default"].empty()


@pytest.mark.parametrize("key", [7, "", ["k"], "x" * (MAX_KEY_BYTES + 1)])
def test_a_record_with_such_a_key_is_no_message(broker: StubBroker, key: Any) -> None:
    message = dramatiq.actor(broker=broker, actor_name="task")(lambda: None).message()
    message.options["partition_key"] = key
    with pytest.raises(InvalidMessage, match="partition_key"):
        read_message(message.encode(), queue_name="default", actors=broker.actors)


@pytest.mark.parametrize("key", ["k", "x" * MAX_KEY_BYTES, "я" * 127, None])
def test_other_keys_are_sent(broker: StubBroker, key: str | None) -> None:
    actor = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    message = actor.send_with_options(partition_key=key)
    assert message.options["partition_key"] == key
    read_message(message.encode(), queue_name="default", actors=broker.actors)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"key_order": "strict"}, "'relaxed' or 'ordered'"),
        ({"key_order": True}, "'relaxed' or 'ordered'"),
        ({"partition_key": "user-7"}, "Pass a function"),
    ],
)
def test_options_that_mean_nothing_are_refused_when_the_actor_is_declared(
    broker: StubBroker, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PartitionKeyRefused, match=reason):
        dramatiq.actor(broker=broker, actor_name="task", **options)(lambda: None)


def test_an_order_for_one_message_is_refused(broker: StubBroker) -> None:
    actor = dramatiq.actor(broker=broker, actor_name="task")(lambda: None)
    with pytest.raises(PartitionKeyRefused, match="declare it on the actor"):
        actor.send_with_options(key_order="ordered")


@pytest.mark.parametrize("key", [lambda: 1 / 0, lambda: 7], ids=["raises", "makes no text"])
def test_an_actors_key_that_cannot_be_made_is_refused_when_it_is_sent(broker: StubBroker, key: Any) -> None:
    actor = dramatiq.actor(broker=broker, actor_name="task", partition_key=key)(lambda: None)
    with pytest.raises(PartitionKeyRefused, match="A message of 'task' was not sent"):
        actor.send()
    assert broker.queues["default"].empty()


@pytest.mark.parametrize("content", [b"", b"1", b"1:2:x", b"1:2:3:4", None])
def test_a_header_that_is_no_ticket_is_none(content: bytes | None) -> None:
    assert read_requeue_headers([("traceparent", b"00"), (TICKET_HEADER, content)]) is None  # type: ignore[list-item]
    assert read_requeue_headers([(TICKET_HEADER, b"1:2:3")]) == (SequenceNumber(1, 2), 3)
