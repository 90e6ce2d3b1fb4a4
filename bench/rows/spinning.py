"""Tasks that need the processor: the share that the broker takes from them."""

from __future__ import annotations

import json

from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants
from bench.sizes import Sizes
from bench.steady import course_of, measure
from bench.systems import BY_KEY
from bench.work import iterations_for

PROCESSES, THREADS = 2, 8
DURATION_MS = 2.0


class _Spinning(Row):
    def __init__(self) -> None:
        super().__init__(
            "spin",
            "CPU-bound tasks",
            contestants("kafka", "plain-loop", "stub"),
            [Metric("tasks_per_s", "tasks/s")],
            [Target("tasks_per_s", ("plain-loop",), at_least=0.9)],
        )
        self._iterations = 0

    def work(self, sizes: Sizes) -> str:
        tasks = f"{sizes.spins:,} tasks of {DURATION_MS:g} ms of pure Python"
        return f"{tasks}, {PROCESSES} processes x {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        self._iterations = self._iterations or iterations_for(DURATION_MS)
        system = BY_KEY[key]
        course = course_of(system, sizes.spins, read_ahead=False)
        preload = 0 if system.server else course.total // PROCESSES + 1
        fields = {"task": "spin", "args": json.dumps([self._iterations])}
        threads = 1 if key == "plain-loop" else THREADS
        with ground.place(system, preload=preload, **fields) as place:
            seen = measure(ground, system, place, course, processes=PROCESSES, threads=threads)
        return {"tasks_per_s": seen.tasks_per_s}


SPINNING = _Spinning()
