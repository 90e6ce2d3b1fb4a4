"""A message that waits can be cancelled, and what came of that can be read afterwards by anyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.delays import CancelUndecided, Outcome
from broker.delays.index import DelayIndex, Progress
from broker.delays.record_format import CancelRequest, Delay, Done
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
    assert api.delays.cancel(waiting) is Outcome.CANCELLED
    assert report.delays.outcome(waiting) is Outcome.CANCELLED


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
