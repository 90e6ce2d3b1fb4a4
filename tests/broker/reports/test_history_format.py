"""Batches of the history: what is written comes back, and foreign values are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import EventKind, HistoryEvent
from broker.reports.history_format import MAX_BATCH, Batch, UnreadableBatch, decode_batch, encode_batch
from broker.reports.payload import pack, unpack

names = st.sampled_from(["", "resize", "mail", "ünïcode", "x" * 50])
events = st.builds(
    HistoryEvent,
    kind=st.sampled_from([kind.value for kind in EventKind]) | st.just("of a later version"),
    message_id=st.text(max_size=10),
    actor_name=names,
    queue_name=names,
    attempt=st.integers(1, 100),
    at_ms=st.integers(0, 2**42),
    worker_id=st.just("host:1:aa"),
    run_s=st.none() | st.integers(0, 10**12).map(lambda us: us / 1e6),
    queue_s=st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1e3),
    error_type=st.none(),
    error=st.none(),
    retry_at_ms=st.none() | st.integers(0, 2**42),
)
failures = st.builds(
    lambda event, error_type, error: replace(event, error_type=error_type, error=error),
    events,
    st.sampled_from(["ValueError", "OSError"]),
    st.text(max_size=20),
)
batches = st.lists(events | failures, max_size=30)


def encoded(found: list[HistoryEvent], **counts: object) -> bytes:
    return encode_batch("host:1:aa", found, **{"unrecorded": {}, "dropped": 0, **counts})  # type: ignore[arg-type]


def selected(batch: Batch, **conditions: object) -> list[HistoryEvent]:
    given = {"message_id": None, "actor": None, "error_type": None, "since_ms": 0, **conditions}
    return list(batch.select(**given))  # type: ignore[arg-type]


@given(batches, st.dictionaries(names, st.integers(0, 2**40), max_size=3), st.integers(0, 2**40))
def test_a_batch_is_read_as_it_was_written(
    found: list[HistoryEvent], unrecorded: dict[str, int], dropped: int
) -> None:
    batch = decode_batch(encoded(found, unrecorded=unrecorded, dropped=dropped))
    assert selected(batch) == found
    assert (batch.worker_id, batch.count) == ("host:1:aa", len(found))
    assert (batch.unrecorded, batch.dropped) == (unrecorded, dropped)


@given(batches, st.sampled_from(["resize", "mail"]), st.sampled_from(["ValueError", "KeyError"]))
def test_a_selection_has_the_events_that_match_all_conditions(
    found: list[HistoryEvent], actor: str, error_type: str
) -> None:
    batch = decode_batch(encoded(found))
    assert selected(batch, actor=actor) == [event for event in found if event.actor_name == actor]
    assert selected(batch, actor=actor, error_type=error_type) == [
        event for event in found if event.actor_name == actor and event.error_type == error_type
    ]
    for event in found[:3]:
        mine = selected(batch, message_id=event.message_id, since_ms=event.at_ms)
        assert event in mine
        assert all(one.message_id == event.message_id and one.at_ms >= event.at_ms for one in mine)


@given(st.binary(max_size=100) | batches.map(lambda found: encoded(found)[:-3]))
def test_a_foreign_or_damaged_value_is_refused(value: bytes) -> None:
    with pytest.raises(UnreadableBatch):
        decode_batch(value)


def test_an_unknown_version_is_refused_and_unknown_fields_are_ignored() -> None:
    body = unpack(encoded([]))
    with pytest.raises(UnreadableBatch, match="version 2; this broker reads version 1"):
        decode_batch(pack({**body, "v": 2}))
    assert decode_batch(pack({**body, "colour": "blue"})).count == 0


@pytest.mark.parametrize("column", ["kind", "message_id", "at_ms", "run_us"])
def test_a_batch_whose_columns_do_not_fit_is_refused(column: str) -> None:
    body = unpack(encoded([HistoryEvent("succeeded", "m", "a", "q", 1, 0, "host:1:aa")]))
    body["columns"][column] = []
    with pytest.raises(UnreadableBatch):
        decode_batch(pack(body))


def test_a_full_batch_of_the_longest_errors_fits_a_record_of_kafkas_default_size() -> None:
    found = [
        HistoryEvent(
            "retried", f"{number:036}", "actor", "queue", 1, number, "host:1:aa", 0.1, 0.1, "E", "é" * 200
        )
        for number in range(MAX_BATCH)
    ]
    assert len(encoded(found)) < 100_000
