"""Partitions are added to the delayed topic while messages wait in it."""

from __future__ import annotations

import pytest

from broker.delays import Outcome
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import PARTITIONS, QUEUE, Station
from tests.broker.partitions import raise_partitions

pytestmark = pytest.mark.real_kafka("it cannot add partitions")

MINUTE_MS = 60_000
MORE = 3 * PARTITIONS


def add_partitions(station: Station) -> None:
    raise_partitions(station.bootstrap_servers, station.topics.delayed, MORE)


def test_a_message_that_was_delayed_before_partitions_were_added_can_be_cancelled(station: Station) -> None:
    station.start()
    waiting = station.delay(*[MINUTE_MS] * 12)  # some of them would be elsewhere by now
    (forwarded,) = station.delay(0)
    station.wait_for([forwarded])
    add_partitions(station)

    assert [station.delays.cancel(one, timeout_s=60) for one in waiting] == [Outcome.CANCELLED] * 12
    assert [station.delays.outcome(one) for one in waiting] == [Outcome.CANCELLED] * 12
    assert station.delays.cancel(forwarded, timeout_s=60) is Outcome.TOO_LATE
    assert station.delays.cancel("never-seen", timeout_s=60) is Outcome.UNKNOWN
    assert station.delays.count(QUEUE) == 0


def test_what_is_delayed_in_added_partitions_is_counted_at_once_and_flushed(
    station: Station, make_station: MakeStation
) -> None:
    # Given one that has counted, and a sender that has not sent yet
    station.delay(*[MINUTE_MS] * 4)
    assert station.delays.count(QUEUE) == 4
    add_partitions(station)
    make_station().delay(*[MINUTE_MS] * 20)

    assert station.delays.count(QUEUE) == 24

    station.delays.flush(QUEUE)
    assert station.delays.count(QUEUE) == 0
