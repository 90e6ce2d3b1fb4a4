"""The time from the start of the workers' command until tasks run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.ground import Ground
from bench.place import Place
from bench.row import Measured, Metric, Row, contestants
from bench.sizes import Sizes
from bench.systems import BY_KEY, System
from dev.stack import ROOT

THREADS = 8
PROCESSES = 2
#: The messages that wait for the first task of every thread.
WAITING = 200
DECLARING_TIMEOUT_S = 120.0
#: The programs that declare a task on a new queue while their workers run.
DECLARING = {
    "kafka": "bench.apps.declaring",
    "dramatiq-rabbitmq": "bench.apps.declaring",
    "dramatiq-redis": "bench.apps.declaring",
    "celery-rabbitmq": "bench.apps.declaring_celery",
    "celery-redis": "bench.apps.declaring_celery",
}


class _Start(Row):
    """All times include neither the start of the interpreter nor the import of the system's library."""

    def __init__(self) -> None:
        super().__init__(
            "start",
            "Start",
            contestants("kafka", "dramatiq-rabbitmq", "dramatiq-redis", "celery-rabbitmq", "celery-redis"),
            [
                Metric("first_s", "s to the first task", better="less", digits=2),
                Metric("all_s", f"s until {PROCESSES} processes run tasks", better="less", digits=2),
                Metric("cold_s", "s for all tasks from a cold start", better="less", digits=2),
                Metric(
                    "new_queue_s", "s from a new queue's declaration to its task", better="less", digits=2
                ),
                Metric("interpreter_s", "s of the interpreter, left out", better="less", digits=2),
            ],
        )

    def work(self, sizes: Sizes) -> str:
        return (
            f"the command with 1 process, then with {PROCESSES}, then with {PROCESSES} and {sizes.cold:,} "
            f"waiting no-op tasks; {THREADS} threads a process; the queue exists"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        interpreter_s = _interpreter_s(system)
        # A new cluster creates its own topics for the first worker.
        _until_running(ground, system, processes=1, threads=1)
        return {
            "first_s": _until_running(ground, system, processes=1, threads=1) - interpreter_s,
            "all_s": _until_running(ground, system, processes=PROCESSES, threads=THREADS) - interpreter_s,
            "cold_s": _until_done(ground, system, sizes.cold) - interpreter_s,
            "new_queue_s": _until_declared_runs(ground, system),
            "interpreter_s": interpreter_s,
        }


def _interpreter_s(system: System) -> float:
    """The time in which Python starts and imports the library of a system, the best of three."""
    return min(_duration_s([sys.executable, "-c", f"import {system.library}"]) for _ in range(3))


def _duration_s(command: list[str]) -> float:
    began_s = time.monotonic()
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True)
    return time.monotonic() - began_s


def _until_running(ground: Ground, system: System, *, processes: int, threads: int) -> float:
    """The time until each thread of each process has begun a task; no task ends before."""
    with ground.place(system) as place:
        # A process of Celery takes all that it may read ahead; Kafka's partitions divide the messages.
        read_ahead = 0 if system.server.startswith("kafka") else system.read_ahead
        ground.send(system, place, WAITING + read_ahead)
        with ground.workers(system, place, processes=processes, threads=threads) as workers:
            began_s = workers.started_s
            workers.wait_until_all_hold_a_task()
            return time.monotonic() - began_s


def _until_done(ground: Ground, system: System, count: int) -> float:
    with ground.place(system) as place:
        ground.send(system, place, count)
        with ground.workers(system, place, processes=PROCESSES, threads=THREADS) as workers:
            workers.tally.open_gate()
            return workers.wait_for(count).last_s - workers.started_s


def _until_declared_runs(ground: Ground, system: System) -> float:
    """The time from a declaration in a running worker to the first run on the new queue."""
    with ground.place(system) as place:
        program = [sys.executable, "-m", DECLARING[system.key], system.module]
        return float(_output(program, place))


def _output(command: list[str], place: Place) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **place.env(), "BENCH_TALLY": "", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DECLARING_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise TimeoutError(f"{command[2]} failed:\n{done.stderr[-4000:]}")
    return done.stdout.splitlines()[-1]


START = _Start()
