"""A task that exceeds its hard time limit and holds Python's lock; its worker is started again each time."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from broker import WorkerState
from tests.chaos.arena import START_DEADLINE_S, Arena
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd"),
    pytest.mark.timeout(600),
]

CULPRIT = 1_000
#: A command is started four times, which takes half a minute each on a machine that does much else.
DEADLINE_S = 180


def suspects(play: Arena) -> dict[tuple[str, int], int]:
    """The crash counts in the commits, by queue and offset."""
    return {
        (state.name, record.offset): record.crashes
        for state in play.broker.queues(*play.queues)
        for partition in state.partitions
        for record in partition.suspects
    }


def run_again(play: Arena, bystanders: set[int]) -> bool:
    """Whether a bystander runs in a worker that has not run the culprit.

    That worker may hold the other bystanders back, to run the culprit alone.
    """
    processes = play.ledger.read().processes
    return bool({processes[number][-1] for number in bystanders} - set(processes[CULPRIT]))


def test_the_culprit_is_dead_lettered_at_its_third_kill_and_what_ran_beside_it_is_no_suspect(
    arena: Callable[..., Arena],
) -> None:
    # Given long tasks of two queues, and beside them one that never ends and holds Python's lock
    play = arena(queues=("work", "mail"), partitions=1, session_timeout_ms=30_000)
    gate = play.home / "gate"
    bystanders = play.send("gated", range(3), gate=str(gate))
    bystanders |= play.send("gated", [10], queue="mail", gate=str(gate))
    supervisor = play.supervise(threads=8)
    play.wait_until_started(bystanders)
    wait_until(play.broker.workers, deadline_s=START_DEADLINE_S, what="the topic of reports and notes")
    play.send("search_for_ever", [CULPRIT])

    # When its worker was killed for it twice
    wait_until(lambda: supervisor.deaths >= 2, deadline_s=DEADLINE_S, what="the second kill")

    # Then it alone is a suspect, from the first crash on
    wait_until(lambda: run_again(play, bystanders), deadline_s=DEADLINE_S, what="a bystander to run again")
    wait_until(
        lambda: suspects(play) == {("work", 3): 2}, deadline_s=DEADLINE_S, what="its count in a commit"
    )
    killed = [worker for worker in play.broker.workers() if worker.state is WorkerState.GONE]
    assert sum("hard time limit of 1500 ms" in worker.reason for worker in killed) >= 2

    # And it is dead-lettered after the third kill, before which nothing ran beside it
    gate.touch()
    play.wait_until_done(bystanders, deadline_s=DEADLINE_S)
    play.balance(
        "a task that exceeds its hard limit", repeats_at_most=2 * len(bystanders) + 2, deadline_s=DEADLINE_S
    )
    dead = play.dead_letters()
    assert dead.keys() == {CULPRIT}
    assert dead[CULPRIT].error_type == "PoisonMessage"
    assert supervisor.deaths == 3
