"""The pause that a graceful restart of one of two workers causes on the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from bench.commands import Commands
from bench.ground import Ground
from bench.holding import Run, runs
from bench.kills import READY_TIMEOUT_S, SETTLE_S, THREADS
from bench.row import Contestant, Measured, Metric, Row, percentile
from bench.sizes import Sizes
from bench.systems import BY_KEY, System
from bench.workers import Stalled
from dev.waiting import wait_until

TASK_MS = 10.0
#: Enough for both workers from their start to their end.
MESSAGES = 24_000
#: Restarts with fresh workers and messages, as a share of ``Sizes.kills``.
SHARE = 3
#: The time after the first task of the restarted command, in which its partitions have moved.
AFTER_S = 3.0
STOP_TIMEOUT_S = 30.0


class _Restarting(Row):
    def __init__(self) -> None:
        super().__init__(
            "restart",
            "A graceful restart of one of two commands",
            [
                Contestant("kafka", "this broker, Kafka", "kafka"),
                Contestant("kafka-3000", "the same, group.initial.rebalance.delay.ms of 3,000", "kafka-3000"),
            ],
            [
                Metric("p50_s", "longest pause of the other worker, p50 s", better="less", digits=2),
                Metric("max_s", "max s", better="less", digits=2),
                Metric("before_s", "longest pause of it before, p50 s", better="less", digits=2),
                Metric("stopped_s", "the stop, p50 s", better="less", digits=2),
                Metric("joined_s", "from the start to the first task again, p50 s", better="less", digits=2),
                Metric("restarts", "restarts"),
            ],
            most_rounds=1,
        )

    def work(self, sizes: Sizes) -> str:
        return (
            f"tasks of {TASK_MS:g} ms, {THREADS} threads a command; one of two commands gets a SIGTERM and "
            "is started again; the longest time between the beginnings of two tasks on the other"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        found = [_one_restart(ground, BY_KEY[key]) for _ in range(max(1, sizes.kills // SHARE))]
        pauses_s, before_s, stopped_s, joined_s = zip(*found, strict=True)
        return {
            "p50_s": percentile(pauses_s, 0.5),
            "max_s": max(pauses_s),
            "before_s": percentile(before_s, 0.5),
            "stopped_s": percentile(stopped_s, 0.5),
            "joined_s": percentile(joined_s, 0.5),
            "restarts": len(found),
        }


def _one_restart(ground: Ground, system: System) -> tuple[float, float, float, float]:
    with (
        ground.place(system, task="last") as place,
        ground.commands(system, place, number=2, processes=1, threads=THREADS, supervised=False) as commands,
    ):
        ground.send(system, place, MESSAGES, how="bulk", args=[0, TASK_MS])
        victim, other = _wait_for_processes(system, commands, set(), 2)
        time.sleep(SETTLE_S)
        child = commands.command_of(victim)
        asked_s = time.monotonic()
        child.stop(STOP_TIMEOUT_S)
        stopped_s = time.monotonic()
        child.start()
        (successor,) = _wait_for_processes(system, commands, {victim, other}, 1)
        time.sleep(AFTER_S)
        ended_s = time.monotonic()
        found = runs(commands.directory)
    first_s = min(run.began_s for run in found if run.pid == successor)
    return (
        _longest_pause(found, other, asked_s, ended_s),
        _longest_pause(found, other, asked_s - SETTLE_S, asked_s),
        stopped_s - asked_s,
        first_s - stopped_s,
    )


def _wait_for_processes(system: System, commands: Commands, known: set[int], count: int) -> Sequence[int]:
    """Wait until further processes run tasks, and return their ids."""

    def running() -> list[int]:
        found = sorted({run.pid for run in runs(commands.directory)} - known)
        return found if len(found) >= count else []

    try:
        return wait_until(running, deadline_s=READY_TIMEOUT_S, what="a task in each command")
    except TimeoutError as error:
        raise Stalled(f"{system.title}: {error}\n{commands.tails()}") from error


def _longest_pause(found: Sequence[Run], pid: int, from_s: float, until_s: float) -> float:
    """The longest time between two tasks of a process, its bounds included."""
    times_s = sorted(run.began_s for run in found if run.pid == pid and from_s <= run.began_s <= until_s)
    return max(later - earlier for earlier, later in pairwise([from_s, *times_s, until_s]))


RESTART = _Restarting()
