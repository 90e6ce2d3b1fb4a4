"""The cost of traces and of a log line for each change of state: the same work with and without them."""

from __future__ import annotations

from bench.ground import Ground
from bench.row import Contestant, Measured, Metric, Row
from bench.sizes import Sizes
from bench.steady import course_of, measure
from bench.systems import OURS

PROCESSES, THREADS = 2, 8
WITHOUT = "without"


class _Observing(Row):
    def __init__(self) -> None:
        super().__init__(
            "observing",
            "Traces and logs",
            [
                Contestant(WITHOUT, "without, as by default", OURS.server),
                Contestant("traces", "OpenTelemetry without an SDK", OURS.server),
                Contestant("recorded", "OpenTelemetry, each span recorded and thrown away", OURS.server),
                Contestant("logs", "a JSON line for each state, thrown away", OURS.server),
            ],
            [
                Metric("tasks_per_s", "tasks/s"),
                Metric("cpu_s", "CPU s / 10,000 tasks", better="less", digits=2),
                Metric("worker_cpu_s", "of it workers", better="less", digits=2),
                Metric("others_cores", "cores used by others", better="less", digits=2),
            ],
            ours=WITHOUT,
        )

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.tasks:,} tasks that do nothing, {PROCESSES} processes x {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        course = course_of(OURS, sizes.tasks)
        with ground.place(OURS, observed="" if key == WITHOUT else key) as place:
            seen = measure(ground, OURS, place, course, processes=PROCESSES, threads=THREADS)
        return {
            "tasks_per_s": seen.tasks_per_s,
            "cpu_s": seen.worker_cpu_s + seen.server_cpu_s,
            "worker_cpu_s": seen.worker_cpu_s,
            "others_cores": seen.others_cores,
        }


OBSERVING = _Observing()
