"""A message that waits can be cancelled, and what came of that can be read afterwards by anyone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from broker.delays import CancelUndecided, Outcome
from broker.delays.index import DelayIndex, Progress
from broker.delays.record_format import (
    CancelDecision,
    CancelForgotten,
    CancelNote,
    CancelRequest,
    Delay,
    Done,
)
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import QUEUE, Station, message
from tests.waiting import wait_until

MINUTE_MS = 60_000


def test_a_cancelled_message_does_not_run_and_the_outcome_says_so(station: Station) -> None:
    station.start()
    cancelled, kept = station.delay(3_000, 3_500)

    assert station.delays.cancel(cancelled) is Outcome.CANCELLED

    assert station.wait_for([kept]) == [kept]
    assert station.delays.outcome(cancelled) is Outcome.CANCELLED
    station.wait_until_done()


def test_it_is_too_late_for_a_message_that_is_on_its_queue(station: Station) -> None:
    station.start()
    (forwarded,) = station.delay(0)
    station.wait_for([forwarded])

    assert station.delays.cancel(forwarded) is Outcome.TOO_LATE
    assert station.delays.outcome(forwarded) is Outcome.TOO_LATE


def test_nothing_is_known_of_a_message_that_was_never_delayed(station: Station) -> None:
    station.start()

    assert station.delays.cancel("never-seen") is Outcome.UNKNOWN


def test_cancelling_twice_gives_the_same_answer_twice(station: Station) -> None:
    station.start()
    (cancelled,) = station.delay(MINUTE_MS)

    assert [station.delays.cancel(cancelled) for _ in range(2)] == [Outcome.CANCELLED] * 2


def test_every_delay_of_the_message_is_cancelled(station: Station) -> None:
    station.start()
    twice = message()
    station.publish(*(station.delays.record(twice, MINUTE_MS) for _ in range(2)))

    assert station.delays.cancel(twice.message_id) is Outcome.CANCELLED
    assert station.delays.count(QUEUE) == 0


def test_another_process_than_the_forwarders_can_cancel_and_read_the_outcome(
    make_station: MakeStation,
) -> None:
    worker, api, report = make_station(), make_station(), make_station()
    worker.start()
    (waiting,) = api.delay(MINUTE_MS)

    assert report.delays.outcome(waiting) is None
    assert report.delays.cancellations(waiting) == []
    assert api.delays.cancel(waiting, reason="a mistake", by="ann") is Outcome.CANCELLED
    assert report.delays.outcome(waiting) is Outcome.CANCELLED
    (told,) = report.delays.cancellations(waiting)
    assert (told.outcome, told.by, told.reason) == (Outcome.CANCELLED, "ann", "a mistake")
    assert told.queue_name == QUEUE
    assert told.requested_at is not None
    assert told.decided_at is not None


def test_a_request_that_no_forwarder_heard_stands_until_one_does(station: Station) -> None:
    (waiting,) = station.delay(0)

    with pytest.raises(CancelUndecided, match="request stands"):
        station.delays.cancel(waiting, timeout_s=0.5)
    assert station.delays.outcome(waiting) is None
    assert station.delays.count(QUEUE) == 0
    station.start()

    wait_until(lambda: station.delays.outcome(waiting), deadline_s=60, what="the outcome")
    assert station.delays.outcome(waiting) is Outcome.CANCELLED
    assert station.ids_in_queue() == []


def test_the_outcome_survives_the_forwarder_and_its_index(make_station: MakeStation, tmp_path: Path) -> None:
    first = make_station()
    first.start()
    (cancelled,) = first.delay(MINUTE_MS)
    assert first.delays.cancel(cancelled) is Outcome.CANCELLED
    first.stop()

    second = make_station(index_dir=tmp_path / "another machine")
    second.start()

    assert second.delays.cancel(cancelled) is Outcome.CANCELLED


# What only an index that is rebuilt meets


@pytest.fixture
def index() -> DelayIndex:
    index = DelayIndex()
    index.reset("here", 0)
    return index


def test_the_decision_says_who_asked_also_after_the_worker_was_started_again(tmp_path: Path) -> None:
    request = CancelRequest(f"m:{2:016x}", CancelNote("ann", "a mistake", 7))
    index = DelayIndex(tmp_path / "index.sqlite3")
    index.reset("here", 0)
    index.apply([DELAY, request], 2, now_ms=9)
    index.close()
    index = DelayIndex(tmp_path / "index.sqlite3")
    index.note(Progress(tombstones=index.pending_tombstones(10)))
    (decision,) = index.to_publish(10)
    note = CancelNote("ann", "a mistake", 7, QUEUE)
    assert decision == CancelDecision(request.id, Outcome.CANCELLED, 9, note)
    # A forwarder of an earlier version publishes no note: that of the request stays.
    index.apply([replace(decision, note=CancelNote())], 3, now_ms=9)
    assert index.cancels_of("m") == [(decision, True)]
    index.apply([CancelForgotten(request.id)], 4, now_ms=9)
    assert index.cancels_of("m") == []


def test_an_index_file_of_a_version_without_notes_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    index = DelayIndex(path)
    index.reset("here", 0)
    index.apply([DELAY], 1, now_ms=9)
    index.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE cancel_notes")
    index = DelayIndex(path)
    assert index.next_offset == 1
    index.apply([CancelRequest(f"m:{2:016x}", CancelNote("ann"))], 2, now_ms=9)
    ((decision, _),) = index.cancels_of("m")
    assert decision.note.by == "ann"


DELAY = Delay(f"m:{1:016x}", QUEUE, 5, b"")
REQUEST = CancelRequest(f"m:{2:016x}")


def _decision(index: DelayIndex) -> Outcome:
    (decision,) = index.to_publish(10)
    return decision.outcome


def test_a_delay_that_was_forwarded_before_its_owner_came_to_the_request_was_too_late(
    index: DelayIndex,
) -> None:
    index.apply([DELAY, REQUEST, Done(DELAY.id, Outcome.FORWARDED)], 3, now_ms=9)

    assert _decision(index) is Outcome.TOO_LATE


def test_a_cancelled_delay_of_which_only_the_tombstone_is_left_was_cancelled(index: DelayIndex) -> None:
    index.apply([REQUEST, Done(DELAY.id, Outcome.CANCELLED)], 3, now_ms=9)

    assert _decision(index) is Outcome.CANCELLED


def test_a_decision_is_told_only_when_its_tombstones_are_in_kafka(index: DelayIndex) -> None:
    index.apply([DELAY, REQUEST], 2, now_ms=9)

    assert index.to_publish(10) == []
    index.note(Progress(tombstones=index.pending_tombstones(10)))
    assert _decision(index) is Outcome.CANCELLED


def test_a_decision_is_forgotten_some_day(index: DelayIndex) -> None:
    index.apply([REQUEST], 1, now_ms=100)
    index.note(Progress(published=index.to_publish(10)))

    assert index.to_forget(100, 10) == []
    assert index.to_forget(101, 10) == [REQUEST.id]
