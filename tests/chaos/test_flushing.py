"""A flush reaches what other processes have read already."""

from collections.abc import Callable
from functools import partial

import pytest
from dramatiq.errors import QueueJoinTimeout
from kafka.structs import TopicPartition

from tests.chaos.arena import Arena
from tests.waiting import wait_until

TASKS = range(3_000)


def have_shared(play: Arena, workers: int) -> bool:
    return [bool(partitions) for partitions in play.owners().values()] == [True] * workers


def test_of_what_waits_nothing_begins_after_a_flush_and_join_waits_for_what_runs(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=4)
    workers = [play.start_worker() for _ in range(2)]
    # A task that runs while its partition moves runs a second time.
    wait_until(partial(have_shared, play, 2), deadline_s=60, what="the workers to share the partitions")
    gate = play.home / "gate"
    # Each worker is stuck with all its threads, a prefetch behind them, and a buffer behind that.
    for partition in range(4):
        play.send("gated", TASKS[partition::4], partition=partition, gate=str(gate))
    play.wait_until_started_any(8)

    play.broker.flush("work")

    begun = set(play.ledger.read().started)
    with pytest.raises(QueueJoinTimeout, match=r"^8 message"):
        play.broker.join("work", timeout=1_000)
    play.sent &= begun
    gate.touch()
    play.broker.join("work", timeout=30_000)
    assert play.ledger.read().done.keys() == begun
    play.wait_until_done(play.send("work", range(10_000, 10_100)))
    entries = play.balance("flushed while 8 ran", repeats_at_most=0)
    assert len(entries.started) == 108
    for worker in workers:
        assert worker.log_lines("was flushed up to offset")
        assert not worker.log_lines("[ERROR]")


def test_a_flush_reaches_workers_that_are_busy_all_the_time(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=2)
    for _ in range(2):
        play.start_worker()
    wait_until(partial(have_shared, play, 2), deadline_s=60, what="the workers to share the partitions")
    for partition in range(2):
        play.send("work", TASKS[partition::2], partition=partition, seconds=0.05)
    play.wait_until_started_any(50)

    play.broker.flush("work")

    # Eight threads may be between their first step and the line that they write.
    begun = len(play.ledger.read().started)
    play.broker.join("work", timeout=30_000)
    entries = play.ledger.read()
    assert len(entries.started) <= begun + 8
    assert entries.started.keys() == entries.done.keys()
    play.sent &= entries.started.keys()
    play.wait_until_done(play.send("work", range(10_000, 10_100)))
    play.balance("flushed under load", repeats_at_most=0)


def test_what_retention_removes_after_it_was_read_is_still_run(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=1)
    worker = play.start_worker()
    gate = play.home / "gate"
    play.send("gated", range(100), gate=str(gate))
    play.wait_until_started_any(4)
    with play.admin() as admin:
        admin.delete_records({TopicPartition(play.topic(), 0): 100})

    wait_until(lambda: worker.log_lines("by retention"), deadline_s=30, what="the worker to notice")
    assert play.waiting() == 100, "join would not wait for what the worker holds"
    gate.touch()

    play.wait_until_done(range(100))
    play.balance("retention overtook 100 records that were read", repeats_at_most=0)


def test_nobody_waits_for_what_died_with_its_worker_after_a_flush(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=1)
    worker = play.start_worker()
    play.send("gated", range(20), gate=str(play.home / "gate"))
    play.wait_until_started_any(4)
    play.broker.flush("work")

    worker.kill()

    play.broker.join("work", timeout=30_000)
    play.start_worker()
    play.sent.clear()
    play.wait_until_done(play.send("work", range(100, 110)))
    play.balance("flushed, then killed", repeats_at_most=0)
