"""Workers that are thrown out of their group although they live."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.arena import SESSION_TIMEOUT_MS, Arena, Worker
from tests.waiting import wait_until

#: Longer than a session, and than the heartbeat that began it.
HOLD_S = 2 * SESSION_TIMEOUT_MS // 1000
#: So that nothing is committed between two tasks, and a loss of the partition costs all there is.
NEVER_MS = 3_600_000
THROWN_OUT = "was removed from the group"


def test_what_a_living_worker_finished_is_not_run_again_after_it_was_thrown_out(
    arena: Callable[..., Arena],
) -> None:
    # Given a worker that has done some tasks and still runs one, and committed neither
    play = arena(partitions=1, commit_interval_ms=NEVER_MS)
    gate = play.home / "gate"
    worker = play.start_worker(threads=4)
    play.wait_until_done(play.send("work", range(10)))
    play.wait_until_started(play.send("gated", [10], gate=str(gate)))

    # When a task keeps it from sending heartbeats for longer than a session, and succeeds
    play.wait_until_done(play.send("hold_python", [11], seconds=HOLD_S))
    wait_until(lambda: worker.log_lines(THROWN_OUT), deadline_s=30, what="the worker to be thrown out")

    # Then it goes on behind what it has done, and nothing runs twice
    play.wait_until_done(play.send("work", range(20, 30)))
    gate.touch()
    play.wait_until_done([10])
    worker.stop(timeout_s=30)
    play.balance("a task that holds Python's lock", repeats_at_most=0)


def test_a_task_that_outlives_the_session_again_and_again_is_never_taken_for_a_killer(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=1)
    worker = play.start_worker(threads=1)

    for losses in (1, 2, 3):  # a message is taken for a killer after as many
        play.send("hold_python", [losses], seconds=HOLD_S)
        wait_until(
            lambda losses=losses: len(worker.log_lines(THROWN_OUT)) >= losses,  # type: ignore[misc]
            deadline_s=40,
            what=f"the worker to be thrown out for the {losses}th time",
        )
        play.wait_until_done(play.send("work", [100 + losses]))

    play.balance("three such tasks", repeats_at_most=0)
    assert play.dead_letters() == {}


def test_what_another_worker_did_with_a_lost_partition_stands(arena: Callable[..., Arena]) -> None:
    # Given a worker that has lost its partition to another one in the middle of a task
    play = arena(partitions=1, commit_interval_ms=NEVER_MS)
    first = play.start_worker(threads=2)
    play.wait_until_done(play.send("work", range(5)))
    second = play.worker(threads=2)
    second.start()
    second.wait_until_ready()
    play.send("hold_python", [5], seconds=3 * HOLD_S)
    play.wait_until_started([5])
    # Whoever gets the partition runs the task as well, and loses it for as long.
    play.wait_until_done(play.send("work", range(10, 30)), deadline_s=120)

    # When both have gone, perhaps before the group had let one of them commit
    stop(first, second)
    left = play.waiting()
    if left:
        done = sum(play.ledger.read().done.values())
        third = play.start_worker(threads=2)
        wait_until(
            lambda: sum(play.ledger.read().done.values()) == done + left, deadline_s=60, what="what was left"
        )
        stop(third)

    # Then all is done, whoever did it, and none has run anything twice
    entries = play.balance("a partition that others took over", repeats_at_most=2 * len(play.sent))
    assert all(len(set(ran_in)) == len(ran_in) for ran_in in entries.processes.values())
    assert play.dead_letters() == {}


def stop(*workers: Worker) -> None:
    for worker in workers:
        worker.stop(timeout_s=60)
