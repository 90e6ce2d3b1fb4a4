"""One message of a unique key runs, wherever its duplicates wait."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.results.backends import StubBackend

from broker import EventKind, KafkaBroker, Outcome
from broker.testing import Kit
from tests.broker.unique.conftest import QUEUE

MINUTE_MS = 60_000


def declare(kit: Kit, runs: list[Any], **options: Any) -> dramatiq.Actor[..., Any]:
    """An actor that notes its runs. ``during`` is called in each."""
    during = options.pop("during", lambda number: None)

    def work(key: str, number: int = 0) -> None:
        runs.append(number)
        during(number)

    options = {"unique_by": "key", "max_retries": 0} | options
    return dramatiq.actor(broker=kit.broker, queue_name=QUEUE, **options)(work)


def events(kit: Kit, kind: EventKind) -> list[str]:
    return [event.message_id for event in kit.broker.history(queue_name=QUEUE) if event.kind == kind]


def is_done(kit: Kit) -> bool:
    return kit.broker.count(QUEUE) == 0 and list(kit.broker.dead_letters(QUEUE)) == []


# Until done


@pytest.mark.parametrize("unique", ["until_started", "until_done", 60])
def test_a_hundred_messages_of_one_key_behind_a_backlog_run_once(kit: Kit, unique: Any) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique=unique)
    other = dramatiq.actor(lambda: None, broker=kit.broker, queue_name=QUEUE, actor_name="other")
    for _ in range(200):
        other.send()
    for number in range(100):
        work.send("a", number)
    work.send("b", 1_000)
    kit.drain()
    assert sorted(runs) == [0, 1_000]
    assert is_done(kit)


def test_a_message_sent_while_the_holder_runs_is_a_duplicate_until_done(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(
        kit, runs, unique="until_done", during=lambda number: number or [work.send("a", 1), work.send("a", 2)]
    )
    work.send("a", 0)
    kit.drain()
    assert runs == [0]
    work.send("a", 3)
    kit.drain()
    assert runs == [0, 3]
    assert is_done(kit)


def test_a_message_sent_while_the_holder_runs_is_the_next_holder_until_started(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(
        kit,
        runs,
        unique="until_started",
        during=lambda number: number or [work.send("a", 1), work.send("a", 2)],
    )
    work.send("a", 0)
    kit.drain()
    assert runs == [0, 1]
    assert is_done(kit)


def test_a_message_sent_within_the_span_after_the_end_is_a_duplicate(kit: Kit) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique=60)
    work.send("a", 0)
    kit.drain()
    kit.advance(seconds=59)
    work.send("a", 1)
    kit.drain()
    kit.advance(seconds=2)
    work.send("a", 2)
    kit.drain()
    assert runs == [0, 2]
    assert is_done(kit)


def test_a_duplicate_is_in_the_history_and_its_hooks_are_those_of_a_skipped_message(
    kit: Kit, results: StubBackend
) -> None:
    work = declare(kit, [], store_results=True)
    work.send("a", 0)
    duplicate = work.send("a", 1)
    kit.drain()
    assert duplicate.get_result(backend=results) is None
    assert is_done(kit)


# Crashes


@pytest.mark.parametrize("point", ["before", "after", "settled"])
@pytest.mark.parametrize("unique", ["until_started", "until_done", 60])
def test_a_killed_owner_leaves_no_key_locked_and_no_duplicate_that_runs(
    kit: Kit, unique: Any, point: str
) -> None:
    runs: list[int] = []
    work = declare(kit, runs, unique=unique)
    for number in range(50):
        work.send("a", number)
    with kit.crash_worker(point):
        kit.drain()
    kit.drain()
    assert set(runs) == {0}
    kit.advance(minutes=2)
    work.send("a", 100)
    kit.drain()
    assert set(runs) == {0, 100}
    assert is_done(kit)
