"""The background reading, and the cache that it fills."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dramatiq
import pytest

from broker import DeadLetter, EventKind, HistoryEvent
from broker.console.web.collector import INTERVAL_S, QUEUES_AT_ONCE, Collector
from broker.console.web.looks import Console
from broker.console.web.store import StateCache
from broker.produce.record import Record
from broker.reports.counters import ActorCounters
from broker.reports.histogram import Histogram
from broker.reports.history_format import encode_batch
from broker.testing import Kit, advance, drain
from broker.testing.memory.faults import Request
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.reports.samples import report

__all__ = ["tell"]


@pytest.fixture
def failed(kit: Kit) -> str:
    @dramatiq.actor(queue_name="mail", max_retries=0)
    def task() -> None:
        raise ValueError("no")

    message = task.send()
    drain(raise_errors=False)
    return message.message_id


def dead_of(store: StateCache) -> list[str]:
    return [row["message_id"] for row in store.query("SELECT message_id FROM dead_letter")]


def test_a_redriven_dead_letter_leaves_the_cache_with_the_next_round(
    kit: Kit, console: Console, failed: str
) -> None:
    console.collector.read_once()
    assert dead_of(console.store) == [failed]
    kit.broker.discard("mail", dry_run=False, reason="a test")
    console.collector.read_once()
    assert dead_of(console.store) == []
    (done,) = console.store.get("resolutions")
    assert (done["action"], done["state"], done["reason"]) == ("discard", "done", "a test")


def test_a_dead_letter_that_replaces_another_is_seen_though_the_number_stays(
    kit: Kit, console: Console, failed: str
) -> None:
    console.collector.read_once()
    kit.broker.discard("mail", dry_run=False, reason="a test")
    other = kit.broker.actors["task"].send()
    drain(raise_errors=False)
    advance(seconds=30)
    console.collector.read_once()
    assert dead_of(console.store) == [other.message_id]


def test_rates_follow_the_counters_between_two_rounds_and_not_a_new_worker_alone(
    kit: Kit, console: Console, tell: Tell
) -> None:
    def counted(worker: str, succeeded: int) -> None:
        times = Histogram(0, (succeeded,), float(succeeded))
        counters = ActorCounters(started=succeeded, succeeded=succeeded, run_time=times, queue_time=times)
        tell(report(worker_id=worker, actors={"pay": counters}, at_ms=kit.clock.wall_ms()))

    counted("h:1:a", 1_000)
    console.collector.read_once()
    advance(seconds=10)
    counted("h:1:a", 1_050)
    counted("h:2:b", 10)
    console.collector.read_once()
    ((_, rate),) = console.store.points("total:succeeded_per_s", 0)
    assert rate == pytest.approx(6.0)
    ((_, p95),) = console.store.points("actor:pay:run_p95_s", 0)
    assert 1 <= p95 <= 2**0.5


def test_samples_older_than_an_hour_are_deleted(kit: Kit, console: Console, failed: str) -> None:
    for _ in range(3):
        console.collector.read_once()
        advance(minutes=40)
        vars(console.collector)["_round"] = 0
    points = console.store.points("queue:mail:dead", 0)
    assert len(points) == 2


def test_the_cache_outlives_a_restart_and_is_filled_again_when_it_is_deleted_or_damaged(
    kit: Kit, tmp_path: Path, failed: str
) -> None:
    path = tmp_path / "other" / "cache.sqlite"
    store = StateCache(path)
    Collector(kit.broker, store).read_once()
    store.close()
    store = StateCache(path)
    assert dead_of(store) == [failed]
    assert Collector(kit.broker, store).condition.read_ms is not None
    store.close()
    path.write_bytes(b"no database" * 1_000)
    store = StateCache(path)
    assert dead_of(store) == []
    Collector(kit.broker, store).read_once()
    assert dead_of(store) == [failed]
    store.close()


def test_a_defect_of_one_round_is_told_and_the_next_round_reads(
    kit: Kit, console: Console, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(kit.broker, "workers", lambda: 1 / 0)
        console.collector.read_once()
    assert "ZeroDivisionError" in console.collector.condition.error
    console.collector.read_once()
    assert console.collector.condition.error == ""


def test_pages_show_the_first_queues_while_the_first_reading_is_under_way(
    kit: Kit, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"queue-{number}" for number in range(2 * QUEUES_AT_ONCE + 2)]
    for name in names:
        kit.broker.declare_queue(name)
        kit.broker.enqueue(dramatiq.Message(name, "task", (), {}, {}))
    put, shown = console.store.put, []

    def note(at_ms: int, documents: Mapping[str, Any]) -> None:
        if "queues" in documents:
            shown.append(len(documents["queues"]))
        put(at_ms, documents)

    monkeypatch.setattr(console.store, "put", note)
    console.collector.read_once()
    assert shown == [QUEUES_AT_ONCE, 2 * QUEUES_AT_ONCE, len(names)]
    assert [row["queue"] for row in console.store.get("queues")] == sorted(names)
    console.collector.read_once()
    assert shown[3:] == [len(names)]


def test_dead_letters_are_read_again_only_when_their_log_has_changed(
    kit: Kit, console: Console, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    queue = type(kit.broker.dead_letter_queue)
    dead_letters = queue.read

    def note(self: Any, name: str) -> Iterator[DeadLetter]:
        read.append(name)
        return dead_letters(self, name)

    monkeypatch.setattr(queue, "read", note)
    kit.broker.declare_queue("empty")
    kit.broker.enqueue(dramatiq.Message("empty", "task", (), {}, {}))
    console.collector.read_once()
    assert read == ["mail"]
    advance(seconds=30)
    console.collector.read_once()
    assert read == ["mail"]
    kit.broker.discard("mail", dry_run=False, reason="a test")
    console.collector.read_once()
    assert read == ["mail", "mail"]
    assert dead_of(console.store) == []


def test_a_round_takes_no_more_requests_for_many_queues_than_for_few(
    kit: Kit, console: Console, failed: str
) -> None:
    def requests_of_a_first_round() -> dict[Request, int]:
        before = kit.cluster.requests.copy()
        collector = Collector(kit.broker, StateCache(console.store.path.with_name("another.sqlite")))
        collector.read_once()
        assert collector.condition.error == ""
        found = {kind: count - before[kind] for kind, count in kit.cluster.requests.items()}
        del found[Request.FETCH]  # one returns a single record in memory, and as many as fit from Kafka
        return found

    # Given what the process reads once, and one queue
    console.collector.read_once()
    one = requests_of_a_first_round()

    # When there are more queues, with messages
    for number in range(12):
        kit.broker.declare_queue(f"queue-{number}")
        kit.broker.enqueue(dramatiq.Message(f"queue-{number}", "task", (), {}, {}))
    console.collector.read_once()
    many = requests_of_a_first_round()

    # Then a first round with them asks as often
    assert many == one


def test_the_pause_after_a_round_is_as_long_as_the_round_but_not_after_the_first(
    kit: Kit, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = kit.broker.queue_names

    def slowly() -> list[str]:
        advance(seconds=100)
        return names()

    monkeypatch.setattr(kit.broker, "queue_names", slowly)
    console.collector.read_once()
    assert console.collector.pause_s == INTERVAL_S
    console.collector.read_once()
    assert console.collector.pause_s >= 100


def test_pages_name_the_events_that_an_earlier_round_has_left_out(
    kit: Kit, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.console.web.collector.EVENTS_PER_ROUND", 2)
    at_ms = kit.clock.wall_ms()
    events = [
        HistoryEvent(EventKind.SUCCEEDED, f"m-{n}", "task", "mail", 1, at_ms + n, "a:1:x") for n in range(5)
    ]
    value = encode_batch("a:1:x", events, unrecorded={}, dropped=0)
    kit.broker.parts.publisher.publish([Record(kit.broker.parts.topics.history, value)])
    advance(seconds=30)

    def told() -> list[str]:
        return [text for text in console.store.get("history")["missing"] if text.startswith("up to")]

    for _ in range(2):  # the next round reads what is new alone
        console.collector.read_once()
        assert console.collector.condition.error == ""
        (sentence,) = told()
        assert sentence.startswith("up to 3 events between ")
        advance(seconds=30)
    # Nothing is said when the events would be forgotten anyway
    advance(days=1)
    console.collector.read_once()
    assert told() == []
