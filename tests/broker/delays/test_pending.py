"""Any process can ask what waits, and have it dropped."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.errors import KafkaUnavailable
from broker.produce.record import Record
from dev.server import Server
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import QUEUE, Station, due_ms, message
from tests.broker.kafka_python import whole_admin
from tests.waiting import wait_until

MINUTE_MS = 60_000


def test_a_process_without_a_forwarder_sees_how_many_wait_and_when_the_next_is_due(station: Station) -> None:
    records = [station.delays.record(message(), MINUTE_MS * number) for number in range(1, 4)]
    station.publish(*records, station.delays.record(message("sms"), 1))

    pending = station.delays.pending(QUEUE)

    assert pending.count == 3
    assert pending.next_due == datetime.fromtimestamp(due_ms(records[0]) / 1000, tz=UTC)
    assert station.delays.count("sms") == 1
    assert station.delays.count("nothing") == 0


def test_what_waits_is_listed_by_due_time_with_its_message(station: Station) -> None:
    messages = [message() for _ in range(20)]
    for number, one in enumerate(messages):
        station.publish(station.delays.record(one, MINUTE_MS * (20 - number)))

    listed = station.delays.pending(QUEUE, limit=15).messages

    assert [one.message_id for one in listed] == [one.message_id for one in reversed(messages)][:15]
    assert listed[0].decode() == messages[-1]
    assert listed[0].queue_name == QUEUE


def test_nothing_waits_any_more_once_it_is_forwarded(station: Station) -> None:
    station.start()
    ids = station.delay(*range(0, 500, 10))
    station.wait_for(ids)

    wait_until(lambda: station.delays.count(QUEUE) == 0, deadline_s=60, what="the count to fall to nothing")
    assert station.delays.pending(QUEUE).next_due is None


def test_what_was_added_since_is_seen_the_next_time(station: Station) -> None:
    for total in range(1, 4):
        station.delay(MINUTE_MS)
        assert station.delays.count(QUEUE) == total


def test_the_position_is_the_same_only_while_nothing_happens(station: Station) -> None:
    station.delay(MINUTE_MS)
    before = station.delays.pending(QUEUE).log_ends

    assert station.delays.pending(QUEUE).log_ends == before
    station.delay(MINUTE_MS)
    assert station.delays.pending(QUEUE).log_ends != before


def test_a_flush_drops_what_waits_for_one_queue_and_nothing_else(station: Station) -> None:
    station.delay(*[MINUTE_MS] * 30)
    station.delay(1_500)
    (other,) = station.delay(1_500, queue="sms")

    station.delays.flush(QUEUE)

    assert station.delays.count(QUEUE) == 0
    assert station.delays.count("sms") == 1
    (after,) = station.delay(0)
    station.start()
    station.wait_for([other], queue="sms")
    assert station.wait_for([after]) == [after]
    station.wait_until_done()


def test_a_flush_reaches_a_forwarder_that_runs(station: Station) -> None:
    station.start()
    station.wait_for(station.delay(0))
    station.delay(*[MINUTE_MS] * 3_000)

    station.delays.flush(QUEUE)

    station.wait_until_done()
    assert len(station.in_queue()) == 1


def test_a_view_is_made_anew_when_its_topic_is(
    make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delays.view.LOOK_UP_INTERVAL_S", 0.5)
    station, other = make_station(), make_station()
    station.delay(*[MINUTE_MS] * 40)
    assert station.delays.count(QUEUE) == 40

    with whole_admin(station.clients) as admin:
        admin.delete_topics([station.topics.delayed])
    wait_until(
        lambda: not other.publisher.publish([_delayed(other)]), deadline_s=60, what="a recreated topic"
    )

    wait_until(lambda: _count(station) == 1, deadline_s=60, what="the new topic's one delay")


def _delayed(station: Station) -> Record:
    return station.delays.record(message(), MINUTE_MS)


def _count(station: Station) -> int | None:
    """None while the topic is on its way out, or in."""
    try:
        return station.delays.count(QUEUE)
    except KafkaUnavailable:
        return None


def test_without_kafka_the_question_fails(
    kafka_server: Server, make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delays.view.REQUEST_TIMEOUT_MS", 1_000)
    monkeypatch.setattr(Station, "client_options", {"bootstrap_timeout_ms": 1_000})
    station = make_station(bootstrap_servers=kafka_server.address)
    station.delay(MINUTE_MS)
    assert station.delays.count(QUEUE) == 1
    kafka_server.kill()

    with pytest.raises(KafkaUnavailable):
        station.delays.count(QUEUE)
