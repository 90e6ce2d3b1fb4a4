"""broker.history(): which runs become events, which are only counted, and what the answer says is missing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import SkipMessage

from broker import HistoryEvent, KafkaBroker, RunHistory
from broker.errors import Abort
from broker.kafka.errors import TopicAuthorizationFailedError
from broker.kafka.types import TopicPartition
from broker.reports import runs as runs_module
from broker.reports.history_format import encode_batch
from broker.testing import Kit
from broker.testing.memory.faults import Request
from tests.waiting import wait_until

DEADLINE_S = 30.0
JOIN_MS = int(DEADLINE_S * 1000)


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit(KafkaBroker(namespace="shop-")).use() as kit:
        yield kit


def kinds(history: RunHistory) -> list[str]:
    return [event.kind for event in history]


def test_each_run_of_a_message_is_an_event_with_its_error_and_the_time_of_its_retry(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker, max_retries=1, min_backoff=1000, max_backoff=1000)
    def pay(amount: int, secret: str) -> None:
        raise OSError(f"the bank is closed\nfor {secret}")

    with kit.threads():
        sent = pay.send(7, "hunter2")
        pay.send(8, "hunter3")
        kit.broker.join("default", timeout=JOIN_MS)
    found = list(kit.broker.history(message_id=sent.message_id))
    assert [(event.kind, event.attempt) for event in found] == [("retried", 1), ("dead_lettered", 2)]
    retried, dead = found
    assert (retried.actor_name, retried.queue_name) == ("pay", "default")
    assert (retried.error_type, retried.error) == ("OSError", "the bank is closed")
    assert retried.retry_at_ms is not None
    assert dead.at_ms >= retried.retry_at_ms >= retried.at_ms
    assert dead.retry_at_ms is None
    assert retried.worker_id == kit.broker.parts.identity.worker_id
    assert retried.run_s is not None
    assert retried.queue_s is not None
    topic = kit.cluster.topics["shop-dramatiq_history"]
    assert not any(b"hunter" in (record.value or b"") for log in topic.logs for record in log.records)


def test_the_conditions_of_a_question_select_events(kit: Kit) -> None:
    @dramatiq.actor(broker=kit.broker, max_retries=0)
    def task(what: str) -> None:
        if what == "skip":
            raise SkipMessage("asked to")
        if what != "work":
            raise {"value": ValueError, "key": KeyError}[what]("asked to")

    @dramatiq.actor(broker=kit.broker)
    def other() -> None: ...

    with kit.threads():
        for what in ("work", "skip", "value", "key"):
            task.send(what)
        other.send()
        kit.broker.join("default", timeout=JOIN_MS)
    history = kit.broker.history
    assert sorted(kinds(history(actor="task"))) == ["dead_lettered", "dead_lettered", "skipped", "succeeded"]
    assert [event.error_type for event in history(error_type="KeyError")] == ["KeyError"]
    assert kinds(history(actor="other")) == ["succeeded"]
    assert kinds(history(actor="other", error_type="KeyError")) == []
    everything = history()
    assert everything.is_complete
    assert everything.missing == ()
    times = [event.at for event in everything]
    assert times == sorted(times)
    assert len(times) == 5
    assert kinds(history(since=times[-1] + timedelta(seconds=1))) == []


def test_a_run_that_lasts_is_an_event_before_it_ends(kit: Kit) -> None:
    go_on = threading.Event()

    @dramatiq.actor(broker=kit.broker)
    def long() -> None:
        go_on.wait(DEADLINE_S)

    @dramatiq.actor(broker=kit.broker)
    def short() -> None: ...

    with kit.threads():
        sent = long.send()
        wait_until(
            lambda: kinds(kit.broker.history(message_id=sent.message_id)) == ["started"],
            deadline_s=DEADLINE_S,
            what="the event",
        )
        short.send()
        go_on.set()
        kit.broker.join("default", timeout=JOIN_MS)
    assert kinds(kit.broker.history(message_id=sent.message_id)) == ["started", "succeeded"]
    assert kinds(kit.broker.history(actor="short")) == ["succeeded"]


def test_the_event_of_an_aborted_run_has_the_time_of_its_end(kit: Kit) -> None:
    began_ms: list[int] = []

    @dramatiq.actor(broker=kit.broker)
    def task() -> None:
        began_ms.append(kit.clock.wall_ms())
        kit.clock.tick(3.0)
        raise Abort

    with kit.threads():
        task.send()
        kit.broker.join("default", timeout=JOIN_MS)
    event = list(kit.broker.history())[-1]
    assert (event.kind, event.run_s) == ("aborted", None)
    assert event.at_ms >= began_ms[0] + 3_000


def test_successes_beyond_the_rate_are_counted_and_failures_are_recorded_always() -> None:
    with Kit(KafkaBroker(history_per_s=0)).use() as kit:

        @dramatiq.actor(broker=kit.broker, max_retries=0)
        def task(fail: bool) -> None:
            if fail:
                raise ValueError("asked to")

        with kit.threads():
            for number in range(20):
                task.send(number % 4 == 0)
            kit.broker.join("default", timeout=JOIN_MS)
        history = kit.broker.history(actor="task")
        assert kinds(history) == ["dead_lettered"] * 5
        assert (history.unrecorded, history.dropped, history.is_complete) == ({"task": 15}, 0, False)
        assert history.missing == ("15 successful runs were not recorded; the workers' reports count them",)
        assert kit.broker.history(error_type="ValueError").is_complete
        assert kit.broker.history(actor="another").is_complete
        (worker,) = kit.broker.workers()
        assert worker.report is not None
        assert (worker.report.history.recorded, worker.report.history.unrecorded) == (5, 15)


def test_a_broker_without_history_has_no_topic_and_says_so() -> None:
    with Kit(KafkaBroker(history_per_s=-1)).use() as kit:

        @dramatiq.actor(broker=kit.broker)
        def task() -> None: ...

        with kit.threads():
            task.send()
            kit.broker.join("default", timeout=JOIN_MS)
        assert "dramatiq_history" not in kit.cluster.topics
        assert kit.broker.history().missing == ("no worker has written a history",)
        (worker,) = kit.broker.workers()
        assert worker.report is not None
        assert worker.report.actors["task"].succeeded == 1


def test_the_events_of_an_outage_are_written_after_it(kit: Kit) -> None:
    go_on = threading.Event()

    @dramatiq.actor(broker=kit.broker)
    def task(number: int) -> None:
        go_on.wait(DEADLINE_S)

    with kit.threads(worker_threads=4):
        sent = [task.send(number) for number in range(4)]
        runs = kit.broker.parts.runs
        wait_until(lambda: len(runs.running()) == 4, deadline_s=DEADLINE_S, what="four tasks that run")
        with kit.cluster.away():
            go_on.set()
            wait_until(lambda: not runs.running(), deadline_s=DEADLINE_S, what="the end of the tasks")
        kit.broker.join("default", timeout=JOIN_MS)
    for message in sent:
        assert kinds(kit.broker.history(message_id=message.message_id))[-1] == "succeeded"


def test_events_beyond_the_buffer_are_dropped_and_counted(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "MAX_EVENTS", 5)
    go_on = threading.Event()

    @dramatiq.actor(broker=kit.broker)
    def task(wait: bool) -> None:
        if wait:
            go_on.wait(DEADLINE_S)

    runs = kit.broker.parts.runs
    # All before the worker's first read: it has them all when Kafka goes away.
    kit.broker.enqueue_many([task.message(True), *(task.message(False) for _ in range(10))])
    with kit.threads(worker_threads=1):
        wait_until(runs.running, deadline_s=DEADLINE_S, what="the first task")
        with kit.cluster.away():
            go_on.set()
            wait_until(lambda: runs.dropped > 0, deadline_s=DEADLINE_S, what="an event without room")
        kit.broker.join("default", timeout=JOIN_MS)
    history = kit.broker.history()
    assert history.dropped == runs.dropped
    assert f"{history.dropped:,} events were lost, because Kafka did not take them in time" in history.missing


def test_a_worker_that_may_not_write_the_history_reports_says_so_once_and_keeps_no_events(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[None] = []

    def denied() -> TopicAuthorizationFailedError:
        tries.append(None)
        return TopicAuthorizationFailedError({"shop-dramatiq_history"})

    @dramatiq.actor(broker=kit.broker)
    def task() -> None: ...

    kit.cluster.refuse(Request.PRODUCE, denied, topic="shop-dramatiq_history", times=None)
    runs = kit.broker.parts.runs
    with caplog.at_level(logging.ERROR), kit.threads():
        for number in (1, 2):
            task.send()
            kit.broker.join("default", timeout=JOIN_MS)
            wait_until(lambda: len(tries) >= number, deadline_s=DEADLINE_S, what="a try")  # noqa: B023
        wait_until(lambda: not runs.events, deadline_s=DEADLINE_S, what="an empty buffer")
        wait_until(lambda: reported_drops(kit) == 2, deadline_s=DEADLINE_S, what="a report of the drops")
    lines = [record.getMessage() for record in caplog.records if "dramatiq_history" in record.getMessage()]
    assert len(lines) == 1
    assert "WRITE on the topic 'shop-dramatiq_history'" in lines[0]


def reported_drops(kit: Kit) -> int:
    return sum(worker.report.history.dropped for worker in kit.broker.workers() if worker.report)


# Reading what others have written


def event(number: int, **fields: Any) -> HistoryEvent:
    defaults = {"kind": "succeeded", "message_id": f"m{number}", "at_ms": 10_000_000 + number}
    return HistoryEvent(
        **{"actor_name": "a", "queue_name": "q", "attempt": 1, "worker_id": "w", **defaults, **fields}
    )


def write(kit: Kit, events: list[HistoryEvent], partition: int = 0, **counts: Any) -> None:
    if "shop-dramatiq_history" not in kit.cluster.topics:
        kit.cluster.create_topic("shop-dramatiq_history", 2)
    value = encode_batch("w", events, **{"unrecorded": {}, "dropped": 0, **counts})
    kit.cluster.append(TopicPartition("shop-dramatiq_history", partition), None, value)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_the_latest_events_within_the_limit_are_returned_by_time(kit: Kit) -> None:
    for number in range(30):
        write(kit, [event(number)], partition=number % 2)
    history = kit.broker.history(since=EPOCH, limit=5)
    assert [found.message_id for found in history] == ["m25", "m26", "m27", "m28", "m29"]
    assert history.scanned == 30
    assert history.missing == ("25 earlier events are left out; limit=5",)


def test_a_search_ends_at_its_limit_and_says_so(kit: Kit) -> None:
    for number in range(30):
        write(kit, [event(number)])
    history = kit.broker.history(since=EPOCH, scan_limit=10)
    assert len(list(history)) == history.scanned == 10
    assert history.missing == ("the search ended after 10 events; a later since= reads fewer",)


def test_an_event_that_was_written_twice_is_returned_once(kit: Kit) -> None:
    write(kit, [event(1)])
    write(kit, [event(1), event(2)], partition=1)
    assert [found.message_id for found in kit.broker.history(since=EPOCH)] == ["m1", "m2"]


def test_a_history_that_begins_later_than_asked_and_foreign_records_are_named(kit: Kit) -> None:
    write(kit, [event(1)])
    kit.cluster.append(TopicPartition("shop-dramatiq_history", 0), None, b"noise")
    kit.cluster.log(TopicPartition("shop-dramatiq_history", 0)).delete_below(1)
    missing = kit.broker.history(since=EPOCH).missing
    assert len(missing) == 2
    assert missing[0].startswith("the history begins at ")
    assert missing[1] == "1 records could not be read by this version"


def test_a_history_whose_records_were_all_deleted_is_not_complete(kit: Kit) -> None:
    write(kit, [event(1)])
    write(kit, [event(2)], partition=1)
    for partition in (0, 1):
        kit.cluster.log(TopicPartition("shop-dramatiq_history", partition)).delete_below(1)
    history = kit.broker.history()
    assert list(history) == []
    assert not history.is_complete
    assert history.missing == ("Kafka has deleted all records of 2 partitions, of unknown times",)


def test_only_the_records_since_the_given_time_are_read(kit: Kit) -> None:
    write(kit, [event(1)])
    kit.clock.advance(timedelta(hours=2))
    now_ms = kit.clock.wall_ms()
    write(kit, [event(2, at_ms=now_ms)])
    history = kit.broker.history()
    assert ([found.message_id for found in history], history.scanned) == (["m2"], 1)
    assert kit.broker.history(since=EPOCH).scanned == 2


def test_a_time_without_a_zone_and_a_limit_of_none_are_refused(kit: Kit) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        kit.broker.history(since=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="at least 1"):
        kit.broker.history(limit=0)
    with pytest.raises(ValueError, match="at least 1"):
        kit.broker.history(scan_limit=0)


def test_a_history_since_before_1970_is_all_of_it(kit: Kit) -> None:
    write(kit, [event(1)])
    history = kit.broker.history(since=datetime(1960, 1, 1, tzinfo=UTC))
    assert [found.message_id for found in history] == ["m1"]
