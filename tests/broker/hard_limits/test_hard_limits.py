"""Hard time limits: their declaration, workers that have no reaper, and takeovers after a kill."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dramatiq
import pytest

from broker import HardTimeLimitRefused, KafkaBroker
from broker.kafka.errors import KafkaTimeoutError
from broker.kafka.types import TopicPartition
from broker.produce.record import Record
from broker.reaper.kill_note import KillNote
from broker.testing import Kit
from broker.testing.memory.faults import Request

QUEUE = "mail"


@pytest.fixture
def kit() -> Iterator[Kit]:
    """A worker process of a queue with one partition."""
    with Kit(KafkaBroker(partitions=1)).use() as kit:
        yield kit


def declare(kit: Kit, runs: list[Any], **options: Any) -> dramatiq.Actor[..., Any]:
    def work(number: int) -> None:
        runs.append(number)

    return dramatiq.actor(broker=kit.broker, queue_name=QUEUE, **options)(work)


# The declaration


@pytest.mark.parametrize("limit", [5_000, 5_000.5, timedelta(seconds=5)], ids=str)
def test_a_task_within_its_hard_limit_runs_as_any_other(kit: Kit, limit: Any) -> None:
    runs: list[int] = []
    work = declare(kit, runs, hard_time_limit=limit, time_limit=1_000)
    for number in range(3):
        work.send(number)
    kit.drain()
    assert sorted(runs) == [0, 1, 2]


@pytest.mark.parametrize("limit", [0, -1, True, "5", math.inf, math.nan, timedelta(0)], ids=repr)
def test_a_limit_that_is_no_time_span_is_refused_where_it_is_declared(kit: Kit, limit: Any) -> None:
    with pytest.raises(HardTimeLimitRefused, match="positive"):
        declare(kit, [], hard_time_limit=limit)
    assert list(kit.broker.actors) == []


def test_a_limit_that_ends_a_task_before_its_soft_limit_is_refused(kit: Kit) -> None:
    with pytest.raises(HardTimeLimitRefused, match="would never be reached"):
        declare(kit, [], hard_time_limit=1_000, time_limit=1_000)
    declare(kit, [], hard_time_limit=1_000, time_limit=math.inf)


def test_a_limit_of_one_message_is_refused(kit: Kit) -> None:
    work = declare(kit, [])
    with pytest.raises(HardTimeLimitRefused, match="declare it on the actor"):
        work.send_with_options(args=(1,), hard_time_limit=1_000)
    assert kit.enqueued == []


def test_a_worker_without_a_reaper_says_at_its_boot_that_hard_limits_are_not_enforced(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    declare(kit, [], hard_time_limit=1_000)
    with caplog.at_level(logging.ERROR), kit.threads(worker_threads=1):
        pass
    (line,) = [r.getMessage() for r in caplog.records if "hard_time_limit= of ['work']" in r.getMessage()]
    assert "is not enforced in this worker: it was not started by the dramatiq command" in line


def test_a_worker_without_hard_limits_does_not_speak_of_them(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    declare(kit, [])
    with caplog.at_level(logging.ERROR), kit.threads(worker_threads=1):
        pass
    assert not [r for r in caplog.records if "hard_time_limit" in r.getMessage()]


# The takeover after a kill


@pytest.fixture
def reaper(kit: Kit) -> Iterator[KafkaBroker]:
    """The broker of a process on the same cluster that no test kills."""
    with Kit(KafkaBroker(partitions=1), kit.cluster, kit.clock).use() as other:
        other.broker.declare_queue(QUEUE)
        yield other.broker


def note_of(kit: Kit, offset: int, crashes: int) -> KillNote:
    partition = TopicPartition(kit.broker.parts.topics.queue(QUEUE), 0)
    return KillNote(
        worker_id=f"host:{crashes}:abc",
        at_ms=kit.clock.wall_ms(),
        group_id="dramatiq",
        culprit=partition,
        offset=offset,
        crashes=crashes,
        partitions=frozenset([partition]),
        message_id="a message",
        actor_name="work",
        limit_ms=1_000,
    )


def write(reaper: KafkaBroker, note: KillNote) -> None:
    record = Record(reaper.parts.topics.workers, note.encode(), key=note.key)
    assert reaper.parts.publisher.publish([record]) == {}


def crash(kit: Kit) -> None:
    """Kill the worker when it has taken all messages, and the first of them begins."""
    with kit.crash_worker("before"):
        kit.drain()


def suspects(reaper: KafkaBroker) -> dict[int, int]:
    """The crash counts of the last commit, by offset."""
    (partition,) = reaper.queues(QUEUE)[0].partitions
    return {record.offset: record.crashes for record in partition.suspects}


@pytest.fixture
def taken(kit: Kit) -> Kit:
    """A worker that was killed when it had taken three messages."""
    work = declare(kit, [])
    for number in range(3):
        work.send(number)
    crash(kit)
    return kit


def test_a_crash_without_a_note_lets_every_record_count_it(taken: Kit, reaper: KafkaBroker) -> None:
    crash(taken)
    crash(taken)
    assert suspects(reaper).keys() == {0, 1, 2}


def test_a_kill_counts_against_its_culprit_alone(taken: Kit, reaper: KafkaBroker) -> None:
    write(reaper, note_of(taken, offset=2, crashes=1))
    crash(taken)
    write(reaper, note_of(taken, offset=2, crashes=2))
    # The third owner takes the partition over, and its commit has the counts before anything runs.
    crash(taken)
    assert suspects(reaper) == {2: 2}


def test_the_culprit_of_three_kills_becomes_a_dead_letter_without_a_run(
    taken: Kit, reaper: KafkaBroker
) -> None:
    for crashes in (1, 2, 3):
        write(reaper, note_of(taken, offset=1, crashes=crashes))
        if crashes < 3:
            crash(taken)
    taken.drain()
    (dead,) = taken.dead()
    assert dead.message is not None
    assert (dead.error_type, dead.message.args) == ("PoisonMessage", (1,))


@pytest.mark.parametrize(
    "change",
    [{"group_id": "another"}, {"culprit": TopicPartition("another", 0), "partitions": frozenset()}],
    ids=["group", "queue"],
)
def test_a_note_about_another_worker_explains_nothing(
    taken: Kit, reaper: KafkaBroker, change: dict[str, Any]
) -> None:
    write(reaper, replace(note_of(taken, offset=2, crashes=1), **change))
    crash(taken)
    crash(taken)
    assert suspects(reaper).keys() == {0, 1, 2}


def test_an_old_note_explains_nothing(taken: Kit, reaper: KafkaBroker) -> None:
    write(reaper, note_of(taken, offset=2, crashes=1))
    taken.advance(minutes=6)
    crash(taken)
    crash(taken)
    assert suspects(reaper).keys() == {0, 1, 2}


def test_a_takeover_does_not_depend_on_the_notes(taken: Kit, reaper: KafkaBroker) -> None:
    write(reaper, note_of(taken, offset=2, crashes=1))
    taken.cluster.refuse(
        Request.LIST_OFFSETS, KafkaTimeoutError, topic=reaper.parts.topics.workers, times=None
    )
    crash(taken)
    crash(taken)
    assert suspects(reaper).keys() == {0, 1, 2}


def test_a_kill_for_a_record_of_another_partition_lets_no_record_count_it(
    taken: Kit, reaper: KafkaBroker
) -> None:
    note = note_of(taken, offset=7, crashes=1)
    write(reaper, replace(note, culprit=TopicPartition("another", 0)))
    crash(taken)
    assert suspects(reaper) == {}
