"""The functions of the tasks. Every system runs the same ones."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import stages, tally
from bench.holding import hold, last


def noop() -> None:
    """Do nothing, and count the task."""
    tally.note()


def sleep(duration_ms: float) -> None:
    """Wait, as for a database or another service: the interpreter is free meanwhile."""
    tally.wait_for_gate()
    time.sleep(duration_ms / 1000)
    tally.note()


def spin(iterations: int) -> None:
    """Keep a core busy with pure Python."""
    tally.wait_for_gate()
    x = 0
    for i in range(iterations):
        x = (x * 31 + i) & 0xFFFF
    tally.note()


def stamp(due_s: float) -> None:
    """Store the delay of this task's begin after `due_s`, a time of the machine's monotonic clock."""
    stages.note(stages.Stage.ENTERED)
    tally.sample(time.monotonic() - due_s)


TASKS: dict[str, Callable[..., None]] = {
    task.__name__: task for task in (noop, sleep, spin, stamp, hold, last)
}


def iterations_for(duration_ms: float) -> int:
    """The number of iterations of `spin` that take a given time on an idle core of this machine."""
    probe = 200_000
    best_s = float("inf")
    for _ in range(5):
        began_s = time.thread_time()
        x = 0
        for i in range(probe):
            x = (x * 31 + i) & 0xFFFF
        best_s = min(best_s, time.thread_time() - began_s)
    return max(1, round(probe * duration_ms / 1000 / best_s))
