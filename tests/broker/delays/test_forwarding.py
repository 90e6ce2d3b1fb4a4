"""What becomes of a delayed message while all goes well, and while Kafka does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from kafka.structs import TopicPartition

from broker.produce.publisher import Publisher
from broker.produce.record import Record
from dev.server import Server
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import DEADLINE_S, QUEUE, Station, due_ms, message
from tests.waiting import wait_until

HOUR_MS = 3_600_000


def test_a_delayed_message_reaches_its_queue_and_never_before_its_time(station: Station) -> None:
    messages = [message() for _ in range(60)]
    records = [station.delays.record(m, 50 * number) for number, m in enumerate(messages)]
    due = {m.message_id: due_ms(record) for m, record in zip(messages, records, strict=True)}
    station.start()

    station.publish(*records)
    station.wait_for(list(due))

    arrived = {
        station_id: r.timestamp
        for station_id, r in zip(station.ids_in_queue(), station.in_queue(), strict=True)
    }
    assert {message_id for message_id in due if arrived[message_id] < due[message_id]} == set()


def test_a_long_delay_queued_first_does_not_hold_up_a_short_one(station: Station) -> None:
    station.delay(HOUR_MS, 30 * 24 * HOUR_MS)
    (short,) = station.delay(1_000)
    station.start()

    assert station.wait_for([short]) == [short]


def test_what_arrives_is_what_was_sent(station: Station) -> None:
    sent = message()
    station.publish(station.delays.record(sent, 50, headers=[("traceparent", b"00-ab")], key=b"k\xff"))
    station.start()

    station.wait_for([sent.message_id])

    (record,) = station.in_queue()
    assert (record.value, record.key, list(record.headers)) == (
        sent.encode(),
        b"k\xff",
        [("traceparent", b"00-ab")],
    )


def test_each_queue_gets_its_own_messages(station: Station) -> None:
    ours = station.delay(10, 20)
    theirs = station.delay(10, 20, queue="sms")
    station.start()

    assert set(station.wait_for(ours)) == set(ours)
    assert set(station.wait_for(theirs, queue="sms")) == set(theirs)


def test_everything_that_was_forwarded_gets_its_tombstone(station: Station) -> None:
    station.start()

    ids = station.delay(*range(0, 1000, 10))

    assert len(station.wait_for(ids)) == len(ids)
    station.wait_until_done()


def test_the_tombstone_of_one_delay_does_not_erase_the_next_delay_of_its_message(station: Station) -> None:
    again = message()
    station.start()
    for times in range(3):
        station.publish(station.delays.record(again, 0), station.delays.record(again, 300))
        wait_until(partial(_arrived, station, 2 * times + 2), deadline_s=60, what="both delays")

    assert len(station.in_queue()) == 6


def test_two_forwarders_share_the_work_and_forward_each_message_once(make_station: MakeStation) -> None:
    one, other = make_station(), make_station()
    one.start()
    ids = one.delay(*range(0, 8_000, 20))
    other.start()

    forwarded = one.wait_for(ids)
    one.wait_until_done()

    assert sorted(forwarded) == sorted(ids)
    assert len(one.ids_in_queue()) == len(ids)


def test_forwarders_that_come_and_go_in_good_order_neither_lose_nor_repeat(make_station: MakeStation) -> None:
    steady, guest = make_station(), make_station()
    steady.start()
    ids = steady.delay(*range(0, 12_000, 6))
    for _ in range(3):
        guest.start()
        more = len(steady.in_queue()) + 50
        wait_until(partial(_arrived, steady, more), deadline_s=60, what="more messages")
        guest.stop()

    steady.wait_for(ids)
    steady.wait_until_done()

    assert sorted(steady.ids_in_queue()) == sorted(ids)


def test_a_message_that_its_queue_refuses_does_not_hold_up_the_others(
    station: Station, caplog: pytest.LogCaptureFixture
) -> None:
    station.topics.ensure([station.topics.delayed])
    nowhere = message("no such queue name!")
    (other,) = station.delay(300)
    station.publish(station.delays.record(nowhere, 0))
    station.start()

    assert station.wait_for([other]) == [other]
    assert station.delays.count("no such queue name!") == 1


def test_a_record_that_is_none_of_ours_is_reported_and_left_alone(
    station: Station, caplog: pytest.LogCaptureFixture
) -> None:
    station.publish(Record(station.topics.delayed, b"?", key=b"foreign", partition=0))
    ids = station.delay(0, 0, 0, 0)
    station.start()

    assert sorted(station.wait_for(ids)) == sorted(ids)
    assert "foreign" in caplog.text
    assert b"foreign" in {record.key for record in station.in_delayed()}


class HoldablePublisher(Publisher):
    """Publishes as the real one does; while it holds, it keeps a forwarder's records to itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.held, self.let = threading.Event(), threading.Event()
        self.let.set()

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        if any(record.topic.endswith(QUEUE) for record in records):
            if not self.let.is_set():
                self.held.set()
            assert self.let.wait(DEADLINE_S)
        return super().publish(records)


@pytest.mark.real_kafka(reason="a restart empties it")
def test_an_outage_of_kafka_delays_messages_and_loses_none(
    kafka_server: Server,
    make_station: MakeStation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="broker.delays")
    monkeypatch.setattr(Station, "publisher_type", HoldablePublisher)
    station = make_station(bootstrap_servers=kafka_server.address)
    publisher = station.publisher
    assert isinstance(publisher, HoldablePublisher)
    station.start()
    (first,) = station.delay(0)
    station.wait_for([first])

    # A forwarder has something to say of an outage only when it is about to forward: one that has not read
    # what is due, has forwarded it or no longer knows whether its partitions are its own tries nothing.
    publisher.let.clear()
    during = station.delay(0, 500, 1_000)
    assert publisher.held.wait(DEADLINE_S)
    kafka_server.kill()
    publisher.let.set()
    wait_until(
        lambda: "cannot be forwarded at the moment" in caplog.text,
        deadline_s=DEADLINE_S,
        what="a word about it",
    )
    kafka_server.start()

    assert set(during) <= set(station.wait_for(during))
    wait_until(
        lambda: "Delayed messages are forwarded again." in caplog.text,
        deadline_s=DEADLINE_S,
        what="a word about its end",
    )


def test_a_forwarder_starts_before_kafka_forwards_when_it_comes_and_stops_when_it_is_gone(
    kafka_server: Server, make_station: MakeStation
) -> None:
    kafka_server.stop()
    station = make_station(bootstrap_servers=kafka_server.address)
    forwarder = station.start()
    kafka_server.start()

    ids = station.delay(0, 100)

    assert sorted(station.wait_for(ids)) == sorted(ids)
    kafka_server.kill()
    forwarder.stop(timeout_s=60)
    assert not forwarder.is_alive


def test_a_forwarder_that_was_never_started_can_be_stopped(station: Station) -> None:
    station.delays.forwarder().stop()


def test_the_partition_of_a_message_is_the_same_for_all_its_delays(station: Station) -> None:
    again = message()
    station.publish(*(station.delays.record(again, HOUR_MS) for _ in range(8)))

    assert len({TopicPartition(r.topic, r.partition) for r in station.in_delayed()}) == 1


def _arrived(station: Station, count: int) -> bool:
    return len(station.in_queue()) >= count
