"""What a delay may be, and that what is written is what is read."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace

import pytest
from dramatiq.message import Message
from hypothesis import given
from hypothesis import strategies as st

from broker.delays.record_format import (
    CancelDecision,
    CancelForgotten,
    CancelNote,
    CancelRequest,
    Delay,
    Done,
    Flush,
    Outcome,
    UnreadableRecord,
    cancel_decision,
    cancel_forgotten,
    cancel_request,
    check_delay_ms,
    delay_record,
    flush_command,
    read,
    tombstone,
)
from broker.produce.record import Record

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


def understood(record: Record) -> object:
    return read(record.key, record.value, record.headers)


def message(message_id: str = "m1", queue: str = "mail") -> Message[None]:
    return Message(queue, "greet", (1,), {}, {}, message_id=message_id)


@pytest.mark.parametrize("delay_ms", [0, 50, 1000, 30 * DAY_MS, 365 * DAY_MS])
def test_a_delay_from_nothing_to_a_year_is_accepted(delay_ms: int) -> None:
    assert check_delay_ms(delay_ms) == delay_ms


@pytest.mark.parametrize("delay_ms", [-1, -0.5, -DAY_MS, -sys.float_info.max])
def test_a_delay_below_0_is_over_already_as_with_the_brokers_of_dramatiq(delay_ms: float) -> None:
    now_ms = 1_000_000
    assert check_delay_ms(delay_ms) == 0
    delay = understood(delay_record("delayed", message(), delay_ms, now_ms=now_ms))
    assert isinstance(delay, Delay)
    assert delay.due_ms == now_ms


def test_a_fraction_of_a_millisecond_is_rounded_up_so_that_nothing_is_early() -> None:
    assert check_delay_ms(0.2) == 1


@pytest.mark.parametrize(
    ("delay_ms", "explanation"),
    [
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (float("-inf"), "finite"),
        (1_790_000_000_000, "not a point in time"),
    ],
)
def test_an_impossible_delay_is_refused_with_what_to_do(delay_ms: float, explanation: str) -> None:
    with pytest.raises(ValueError, match=explanation):
        check_delay_ms(delay_ms)


@pytest.mark.parametrize("delay_ms", ["1000", None, True])
def test_a_delay_that_is_no_number_is_refused(delay_ms: object) -> None:
    with pytest.raises(TypeError, match="number of milliseconds"):
        check_delay_ms(delay_ms)  # type: ignore[arg-type]


def test_the_due_time_is_absolute_and_set_by_the_sender() -> None:
    delay = understood(delay_record("delayed", message(), 1500, now_ms=1_000_000))

    assert isinstance(delay, Delay)
    assert delay.due_ms == 1_001_500


def test_a_delay_carries_the_encoded_message_as_it_is() -> None:
    sent = message()

    delay = understood(delay_record("delayed", sent, 10, headers=[("traceparent", b"00-1")], key=b"k"))

    assert isinstance(delay, Delay)
    assert (delay.value, delay.queue, delay.message_id) == (sent.encode(), "mail", "m1")
    assert (delay.headers, delay.key) == ((("traceparent", b"00-1"),), b"k")


def test_two_delays_of_one_message_have_keys_of_their_own_and_one_placement() -> None:
    first, second = (delay_record("delayed", message(), 10) for _ in range(2))

    assert first.key != second.key
    assert first.placement == second.placement


def test_a_header_with_a_name_of_the_brokers_own_is_refused() -> None:
    with pytest.raises(ValueError, match="delay-due-ms"):
        delay_record("delayed", message(), 10, headers=[("delay-due-ms", b"1")])


@given(message_id=st.text(min_size=1), queue=st.text(st.characters(codec="ascii"), min_size=1))
def test_every_kind_of_record_is_read_as_it_was_written(message_id: str, queue: str) -> None:
    try:
        message_id.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate cannot be in any message
    delay = understood(delay_record("delayed", message(message_id, queue), 5, now_ms=0))
    assert isinstance(delay, Delay)
    note = CancelNote("ann", "why\n", 11, queue)
    request, record = cancel_request("delayed", message_id, partition=0, note=note)
    decision = CancelDecision(request.id, Outcome.TOO_LATE, 12, note)

    assert (delay.message_id, delay.queue, delay.due_ms) == (message_id, queue, 5)
    assert understood(tombstone("delayed", delay.id, Outcome.FORWARDED, partition=0)) == Done(
        delay.id, Outcome.FORWARDED
    )
    assert understood(record) == request == CancelRequest(decision.id, note)
    assert (request.message_id, decision.message_id) == (message_id, message_id)
    assert understood(cancel_decision("delayed", decision, partition=0)) == decision
    assert understood(cancel_forgotten("delayed", request.id, partition=0)) == CancelForgotten(request.id)
    assert understood(flush_command("delayed", queue, partition=0)) == Flush(queue)


def test_a_cancel_of_a_version_without_notes_is_read_and_such_a_version_reads_one_of_this() -> None:
    key = b"cancel:m:" + b"0" * 16
    request = CancelRequest(key.decode().removeprefix("cancel:"))
    assert read(key, b'{"outcome": null}', []) == request
    decision = CancelDecision(request.id, Outcome.CANCELLED, 12)
    assert read(key, b'{"outcome": "cancelled", "decided_ms": 12}', []) == decision
    # An earlier version reads these two fields, and no other one.
    noted = replace(decision, note=CancelNote("ann", "why", 11, "mail"))
    fields = json.loads(cancel_decision("delayed", noted, partition=0).value or b"")
    assert (fields["outcome"], fields["decided_ms"]) == ("cancelled", 12)


def test_a_tombstone_written_by_hand_is_understood() -> None:
    delay = delay_record("delayed", message(), 10)

    done = read(delay.key, None, [])

    assert isinstance(done, Done)
    assert done.outcome is None


@given(
    key=st.none()
    | st.binary()
    | st.sampled_from([b"delay:x", b"delay:m:0123456789abcdef", b"cancel:m", b"flush:q"]),
    value=st.none() | st.binary() | st.sampled_from([b"{}", b"[]", b'{"outcome": "magic"}']),
    headers=st.lists(
        st.tuples(st.sampled_from(["delay-due-ms", "delay-queue", "delay-outcome", "x"]), st.binary())
    ),
)
def test_a_foreign_record_is_unreadable_and_nothing_worse(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    with contextlib.suppress(UnreadableRecord):
        read(key, value, headers)
