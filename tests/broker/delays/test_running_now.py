"""A delayed message can be asked to run now, by anyone, and a worker forwards it."""

from __future__ import annotations

from broker.delays import Outcome
from broker.delays.index import DelayIndex
from broker.delays.record_format import Delay, Done, DueNow, Flush, due_now, read
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import QUEUE, Station, message

HOUR_MS = 3_600_000


def test_a_message_that_is_asked_for_is_forwarded_at_once_and_the_others_wait(
    make_station: MakeStation,
) -> None:
    worker, operator = make_station(), make_station()
    worker.start()
    wanted, kept, also = operator.delay(HOUR_MS, HOUR_MS, HOUR_MS)

    outcomes = operator.delays.run_now([wanted, also, "never-seen"])

    assert outcomes == {
        wanted: Outcome.FORWARDED,
        also: Outcome.FORWARDED,
        "never-seen": Outcome.UNKNOWN,
    }
    assert sorted(worker.ids_in_queue()) == sorted([wanted, also])
    assert [m.message_id for m in operator.delays.pending(QUEUE).messages] == [kept]
    assert operator.delays.run_now([wanted]) == {wanted: Outcome.TOO_LATE}
    worker.wait_until_done_of([wanted, also])


def test_a_request_without_a_worker_is_undecided_and_stands_until_there_is_one(station: Station) -> None:
    (waiting,) = station.delay(HOUR_MS)

    assert station.delays.run_now([waiting], timeout_s=0.5) == {waiting: None}

    station.start()
    assert station.wait_for([waiting]) == [waiting]


def test_a_message_that_is_delayed_again_after_the_request_waits_for_its_time(station: Station) -> None:
    station.start()
    twice = message()
    station.publish(station.delays.record(twice, HOUR_MS))
    assert station.delays.run_now([twice.message_id]) == {twice.message_id: Outcome.FORWARDED}
    station.publish(station.delays.record(twice, HOUR_MS))
    (after,) = station.delay(0)
    station.wait_for([after])
    assert sorted(station.ids_in_queue()) == sorted([twice.message_id, after])
    assert station.delays.count(QUEUE) == 1


def index_of(*entries: Delay | Done | DueNow | Flush) -> DelayIndex:
    index = DelayIndex()
    index.reset("p", 0)
    index.apply(entries, len(entries), now_ms=1_000)
    return index


def delay(name: str, due_ms: int = HOUR_MS) -> Delay:
    return Delay(f"{name}:{1:016x}", QUEUE, due_ms, name.encode())


def test_only_the_waiting_delays_of_a_request_become_due_and_their_checksums_hold() -> None:
    a, b, c = delay("a"), delay("b"), delay("c", due_ms=10)
    index = index_of(a, b, c, DueNow((a.id, c.id, "unknown")))
    due = index.due(1_000, limit=10, limit_bytes=10_000)
    assert [(row.delay.id, row.delay.due_ms) for row in due] == [(c.id, 10), (a.id, 1_000)]
    assert index.next_due_ms(QUEUE) == 10
    index.close()


def test_a_request_wakes_neither_a_flushed_delay_nor_one_that_is_done() -> None:
    a, b = delay("a"), delay("b")
    index = index_of(a, b, Done(a.id, Outcome.FORWARDED), Flush(QUEUE), DueNow((a.id, b.id)))
    assert index.due(HOUR_MS, limit=10, limit_bytes=10_000) == []
    assert index.delays_of("a") == index.delays_of("b") == []
    assert (index.was_forwarded("a"), index.was_forwarded("b")) == (True, False)
    index.close()


def test_the_request_is_read_as_it_was_written() -> None:
    record = due_now("delayed", ["a:1", "b:2"], partition=3)
    assert read(record.key, record.value, record.headers) == DueNow(("a:1", "b:2"))
    assert record.partition == 3
