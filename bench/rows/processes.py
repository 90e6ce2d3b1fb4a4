"""More worker processes on the same machine: the gain and the cost of a further one."""

from __future__ import annotations

from bench.ground import Ground
from bench.place import DEFAULT_PARTITIONS
from bench.row import Contestant, Measured, Metric, Row
from bench.sizes import Sizes
from bench.steady import Course, measure
from bench.systems import OURS

THREADS = 8
PARTITIONS = 16


class _Processes(Row):
    def __init__(self) -> None:
        super().__init__(
            "processes",
            "Processes",
            [
                Contestant("1", "1 process", OURS.server),
                Contestant("2", "2 processes", OURS.server),
                Contestant("4", "4 processes", OURS.server),
                Contestant("10", "10 processes", OURS.server),
            ],
            [
                Metric("tasks_per_s", "tasks/s"),
                Metric("cpu_s", "CPU s / 10,000 tasks", better="less", digits=2),
            ],
            ours="1",
        )

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.tasks:,} no-op tasks in {PARTITIONS} partitions, {THREADS} threads a process"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        # Four times the partitions, and so four times the read-ahead.
        ahead = OURS.read_ahead * PARTITIONS // DEFAULT_PARTITIONS
        course = Course(before=ahead, counted=sizes.tasks, after=ahead)
        with ground.place(OURS, partitions=PARTITIONS) as place:
            seen = measure(ground, OURS, place, course, processes=int(key), threads=THREADS)
        return {"tasks_per_s": seen.tasks_per_s, "cpu_s": seen.worker_cpu_s + seen.server_cpu_s}


PROCESSES = _Processes()
