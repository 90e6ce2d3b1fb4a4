"""The lateness of delayed messages that are due after the SIGKILL of one of two workers."""

from __future__ import annotations

import os
import signal
import time

from bench.ground import Ground
from bench.holding import runs
from bench.kills import READY_TIMEOUT_S, SETTLE_S, THREADS
from bench.row import Measured, Metric, Row, contestants, percentile
from bench.sizes import Sizes
from bench.systems import BY_KEY, System
from dev.waiting import wait_until

#: The messages of a kill, one each STEP_S. The first is due AHEAD_S after the sender's start.
MESSAGES = 150
STEP_S = 0.02
AHEAD_S = 6.0
CUT_OFF_S = 30.0
#: The kills of one measurement, as a share of ``Sizes.kills``.
SHARE = 3


class _LateAfterKill(Row):
    def __init__(self) -> None:
        super().__init__(
            "recovery-delayed",
            "Recovery: delayed messages",
            contestants("kafka", "dramatiq-redis", "dramatiq-rabbitmq"),
            [
                Metric("p50_s", "late, p50 s", better="less", digits=2),
                Metric("p99_s", "late, p99 s", better="less", digits=2),
                Metric("max_s", "late, max s", better="less", digits=2),
                Metric("kills", "kills"),
            ],
            most_rounds=1,
        )

    def work(self, sizes: Sizes) -> str:
        return (
            f"{MESSAGES} messages due in the {MESSAGES * STEP_S:g} s after the SIGKILL of the worker process "
            f"of one of two commands; {CUT_OFF_S:.2f} s: not within {CUT_OFF_S:g} s"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        late_s: list[float] = []
        kills = max(1, sizes.kills // SHARE)
        for done in range(kills):
            late_s += _one_kill(ground, system)
            if percentile(late_s, 0.99) >= CUT_OFF_S:
                kills = done + 1
                break
        return {
            "p50_s": percentile(late_s, 0.5),
            "p99_s": percentile(late_s, 0.99),
            "max_s": max(late_s),
            "kills": kills,
        }


def _one_kill(ground: Ground, system: System) -> list[float]:
    with (
        ground.place(system, task="hold") as place,
        ground.commands(system, place, number=2, processes=1, threads=THREADS, supervised=False) as commands,
    ):
        ground.send(system, place, 4 * THREADS, how="numbered", args=[0, "ready"])

        def pids() -> list[int]:
            found = {run.pid for run in runs(commands.directory)}
            return sorted(found) if len(found) == 2 else []

        victim = wait_until(pids, deadline_s=READY_TIMEOUT_S, what="a task in both workers")[0]
        (commands.directory / "ready").touch()
        time.sleep(SETTLE_S)
        first_due_s = time.monotonic() + AHEAD_S
        ground.send(system, place, MESSAGES, how="due", args=[1_000, "ready", first_due_s, STEP_S])
        time.sleep(max(0.0, first_due_s - STEP_S - time.monotonic()))
        os.kill(victim, signal.SIGKILL)
        due_s = {1_000 + index: first_due_s + index * STEP_S for index in range(MESSAGES)}
        until_s = first_due_s + MESSAGES * STEP_S + CUT_OFF_S
        late_s: dict[int, float] = {}
        while len(late_s) < MESSAGES and time.monotonic() < until_s:
            time.sleep(0.05)
            for run in runs(commands.directory):
                if run.number in due_s:
                    late_s.setdefault(run.number, run.began_s - due_s[run.number])
        return [min(CUT_OFF_S, max(0.0, late_s.get(number, CUT_OFF_S))) for number in due_s]


LATE_AFTER_KILL = _LateAfterKill()
