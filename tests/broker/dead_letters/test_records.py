"""What a dead letter's record holds, and that it always fits."""

from __future__ import annotations

import base64
import json
from typing import Any

import dramatiq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.dead_letters import DeadLetter, dead_letter_record
from broker.dead_letters.dead_letter import read_dead_letter
from broker.deliveries.delivery import Origin
from broker.kafka.clients import Clients
from broker.kafka.topic_layout import TopicLayout
from broker.kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from broker.kafka.topics import Topics
from broker.produce.record import Record
from tests.examples import examples

TOPICS = Topics(Clients("localhost:9092"), TopicLayout(1, 1, 1000), namespace="shop-")
ORIGIN = Origin("shop-mail", 3, 42)
KEYS = ["original_message", "error", "error_type", "traceback", "retry_count", "timestamp"]


def raised(text: str = "no such order") -> Exception:
    try:
        try:
            raise KeyError("order 7")
        except KeyError as cause:
            raise LookupError(text) from cause
    except LookupError as error:
        return error


def message(**options: Any) -> dramatiq.Message[Any]:
    return dramatiq.Message("mail", "send", (7, "Заказ"), {"urgent": True}, options)


def make(raw: bytes, error: BaseException | None = None, **more: Any) -> Record:
    return dead_letter_record(TOPICS, queue_name="mail", origin=ORIGIN, raw=raw, error=error, **more)


def read(record: Record) -> DeadLetter:
    return read_dead_letter("mail", record.value, record.headers)


def test_the_record_is_one_json_object_with_the_keys_that_are_promised() -> None:
    sent = message(retries=2)
    record = make(b"as it was read", raised(), message=sent)
    assert record.value is not None
    entry = json.loads(record.value)
    assert list(entry) == KEYS
    assert entry["original_message"] == json.loads(sent.encode())
    assert (entry["error"], entry["error_type"], entry["retry_count"]) == ("no such order", "LookupError", 2)
    assert "KeyError: 'order 7'" in entry["traceback"]
    assert entry["traceback"].endswith("LookupError: no such order\n")
    assert abs(entry["timestamp"] - sent.message_timestamp) < 60_000


def test_the_record_goes_to_the_queues_dead_letters_under_the_messages_id_and_says_where_it_came_from() -> (
    None
):
    sent = message()
    record = make(sent.encode(), raised(), headers=[("traceparent", b"00-1"), ("origin-topic", b"forged")])
    assert record.topic == "shop-mail_dlq"
    assert record.key == sent.message_id.encode()
    assert record.headers == [
        ("traceparent", b"00-1"),
        ("origin-topic", b"shop-mail"), ("origin-partition", b"3"), ("origin-offset", b"42"),
    ]  # fmt: skip
    assert read(record).origin == ORIGIN


def test_a_message_comes_back_equal() -> None:
    sent = message(retries=1, nested={"a": [1, 2.5, None]})
    dead_letter = read(make(sent.encode(), raised()))
    assert dead_letter.message == sent
    assert dead_letter.why_not_redrivable is None


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\xfe", b"not json", b"[1, 2]", b'"text"', b"NaN", b"[" * 100_000],
    ids=lambda raw: repr(raw[:9]),
)
def test_bytes_that_are_no_message_are_kept_as_they_are(raw: bytes) -> None:
    record = make(raw, raised())
    assert json.loads(record.value or b"")["original_message"] == base64.b64encode(raw).decode()
    dead_letter = read(record)
    assert (dead_letter.message, dead_letter.raw) == (None, raw)
    assert dead_letter.why_not_redrivable is not None
    assert record.key == b"shop-mail/3/42"


@pytest.mark.parametrize(
    "raw", [b"{}", b'{"message_id": 3}', b'{"options": [], "retries": {}}', b'{"base64": "AAAA"}']
)
def test_an_object_that_is_no_message_is_kept_readable(raw: bytes) -> None:
    record = make(raw, raised())
    assert json.loads(record.value or b"")["original_message"] == json.loads(raw)
    assert read(record).message is None


def test_a_message_with_a_number_that_json_lacks_comes_back_equal() -> None:
    sent: dramatiq.Message[Any] = dramatiq.Message("mail", "send", (float("inf"),), {}, {})
    dead_letter = read(make(sent.encode(), raised()))
    assert dead_letter.message == sent


def test_a_message_with_half_a_surrogate_pair_comes_back_equal() -> None:
    sent: dramatiq.Message[Any] = dramatiq.Message("mail", "send", ("\ud83d",), {}, {})
    assert read(make(sent.encode(), raised("\udc80"))).message == sent


def test_an_option_that_is_no_json_costs_only_the_options() -> None:
    sent = message()
    dead_letter = read(make(sent.encode(), raised(), message=sent.copy(options={"policy": object()})))
    assert dead_letter.message == sent


def test_an_error_whose_text_raises_is_told_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("mute")

    dead_letter = read(make(message().encode(), Mute()))
    assert dead_letter.error_type == "Mute"
    assert "RuntimeError" in dead_letter.error


def test_a_message_that_was_failed_without_an_error_says_so() -> None:
    dead_letter = read(make(message().encode()))
    assert (dead_letter.error, dead_letter.error_type, dead_letter.traceback) == (
        "failed without an error",
        "",
        "",
    )


@pytest.mark.parametrize("value", [None, b"", b"text", b"{}", b'{"original_message": 3}', b"[]"])
def test_a_foreign_record_in_the_topic_is_read_as_a_dead_letter_without_a_message(
    value: bytes | None,
) -> None:
    dead_letter = read_dead_letter("mail", value, [])
    assert (dead_letter.message, dead_letter.error_type, dead_letter.raw) == (
        None,
        "UnreadableDeadLetter",
        value or b"",
    )


def test_the_longest_message_that_a_queue_takes_is_kept_whole() -> None:
    sent: dramatiq.Message[Any] = dramatiq.Message(
        "mail", "send", ("\x00" * 174_000,), {}, {}
    )  # as JSON six bytes for one
    raw = sent.encode()
    assert len(raw) > 1_040_000
    assert read(make(raw, raised("x" * 1_000_000))).message == sent
    garbage = b"\xff" * 1_048_588
    assert read(make(garbage, raised("x" * 1_000_000))).raw == garbage


def test_what_is_too_large_to_be_kept_loses_its_end_and_says_so() -> None:
    record = make(b"\xff" * MAX_DEAD_LETTER_BYTES, raised())
    dead_letter = read(record)
    assert ("original-truncated", b"%d" % MAX_DEAD_LETTER_BYTES) in dead_letter.headers
    assert len(dead_letter.raw) > MAX_DEAD_LETTER_BYTES // 2
    assert dead_letter.why_not_redrivable == "its message was truncated, because it was too large"


@settings(max_examples=examples(40))
@given(
    unit=st.sampled_from(["a", "\x00", "Ж", "\ud800", "😀", '"']),
    message_chars=st.integers(0, MAX_DEAD_LETTER_BYTES),
    error_chars=st.integers(0, 100_000),
    header_bytes=st.integers(0, 100_000),
    escaped=st.booleans(),
)
def test_a_dead_letter_always_fits(
    unit: str, message_chars: int, error_chars: int, header_bytes: int, escaped: bool
) -> None:
    sent: dramatiq.Message[Any] = dramatiq.Message(
        "mail", "send", (unit * (message_chars // len(unit.encode(errors="replace"))),), {}, {}
    )
    raw = sent.encode() if escaped else json.dumps(sent.asdict(), ensure_ascii=False).encode(errors="replace")
    record = make(raw, raised(unit * error_chars), headers=[("baggage", b"x" * header_bytes)])
    size = len(record.value or b"") + len(record.key or b"")
    size += sum(len(name) + len(value) for name, value in record.headers)
    assert size <= MAX_DEAD_LETTER_BYTES - 1_000
    dead_letter = read(record)
    assert dead_letter.message is not None or dead_letter.why_not_redrivable is not None
