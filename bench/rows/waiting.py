"""Tasks that wait, as most tasks do: no thread may ever lack a task."""

from __future__ import annotations

import json

from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants
from bench.sizes import Sizes
from bench.steady import course_of, measure
from bench.systems import BY_KEY

THREADS = 64
#: The rate that one process reaches with the shortest tasks; more tasks would only lengthen the row.
MOST_PER_S = 12_000


class _Waiting(Row):
    """One row of waiting tasks.

    Parameters:
      duration_ms: The time for which each task waits.
    """

    def __init__(self, duration_ms: int) -> None:
        super().__init__(
            f"wait-{duration_ms}",
            f"Tasks of {duration_ms} ms, {THREADS} threads",
            contestants("kafka", "stub", "bare-threads"),
            [Metric("tasks_per_s", "tasks/s")],
            [Target("tasks_per_s", ("stub",), at_least=0.95)],
        )
        self._duration_ms = duration_ms

    def _count(self, sizes: Sizes) -> int:
        return int(min(MOST_PER_S, THREADS / self._duration_ms * 1000) * sizes.waiting_s)

    def work(self, sizes: Sizes) -> str:
        return f"{self._count(sizes):,} tasks that sleep {self._duration_ms} ms, {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        course = course_of(system, self._count(sizes), read_ahead=self._duration_ms < 10)
        fields = {"task": "sleep", "args": json.dumps([self._duration_ms])}
        with ground.place(system, preload=0 if system.server else course.total, **fields) as place:
            seen = measure(ground, system, place, course, processes=1, threads=THREADS)
        return {"tasks_per_s": seen.tasks_per_s}


WAITING = [_Waiting(1), _Waiting(10), _Waiting(100)]
