"""The number of partitions does not limit the number of concurrent tasks."""

from __future__ import annotations

import json

from bench.ground import Ground
from bench.row import Contestant, Measured, Metric, Row, Target
from bench.sizes import Sizes
from bench.steady import course_of, measure
from bench.systems import OURS

THREADS = 64
DURATION_MS = 10


class _Partitions(Row):
    def __init__(self) -> None:
        super().__init__(
            "partitions",
            "Partitions",
            [
                Contestant("1", "1 partition", OURS.server),
                Contestant("4", "4 partitions", OURS.server),
                Contestant("16", "16 partitions", OURS.server),
                Contestant("100", "100 partitions", OURS.server),
            ],
            [
                Metric("tasks_per_s", "tasks/s"),
                Metric("ready_s", "s until all threads have a task", better="less", digits=1),
            ],
            [Target("tasks_per_s", ("16",), at_least=0.95)],
            ours="1",
        )

    def work(self, sizes: Sizes) -> str:
        return f"{self._count(sizes):,} tasks of {DURATION_MS} ms, 1 process x {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        fields = {"task": "sleep", "args": json.dumps([DURATION_MS])}
        course = course_of(OURS, self._count(sizes), read_ahead=False)
        with ground.place(OURS, partitions=int(key), **fields) as place:
            seen = measure(ground, OURS, place, course, processes=1, threads=THREADS)
        return {"tasks_per_s": seen.tasks_per_s, "ready_s": seen.ready_s}

    def _count(self, sizes: Sizes) -> int:
        return int(THREADS / DURATION_MS * 1000 * sizes.waiting_s)


PARTITIONS = _Partitions()
