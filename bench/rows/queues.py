"""More queues in one worker: each has its own consumer, connection and group."""

from __future__ import annotations

import time

from bench.ground import Ground
from bench.place import DEFAULT_PARTITIONS, Place
from bench.row import Contestant, Measured, Metric, Row, Target
from bench.sizes import Sizes
from bench.steady import Course, measure
from bench.systems import OURS

THREADS = 8
#: The time for which an idle worker is measured, and the time before that in which it becomes idle.
IDLE_S, SETTLE_S = 5.0, 2.0


class _Queues(Row):
    def __init__(self) -> None:
        super().__init__(
            "queues",
            "Queues",
            [
                Contestant("1", "1 queue", OURS.server),
                Contestant("10", "10 queues", OURS.server),
            ],
            [
                Metric("tasks_per_s", "tasks/s"),
                Metric("cpu_s", "CPU s / 10,000 tasks", better="less", digits=2),
                Metric("idle_cores", "cores used by an idle worker", better="less", digits=3),
                Metric("rss_mb", "its RSS MB", better="less"),
            ],
            [Target("tasks_per_s", ("1",), at_least=0.9)],
            ours="10",
        )

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.tasks:,} no-op tasks in queues of 1 partition, 1 process x {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        # Each queue has one partition here, so its read-ahead is a share of that of four partitions.
        ahead = OURS.read_ahead // DEFAULT_PARTITIONS * int(key)
        course = Course(before=ahead, counted=sizes.tasks, after=ahead)
        with ground.place(OURS, partitions=1, queues=int(key)) as place:
            seen = measure(ground, OURS, place, course, processes=1, threads=THREADS)
        with ground.place(OURS, partitions=1, queues=int(key)) as place:
            idle = self._idle(ground, place)
        return {"tasks_per_s": seen.tasks_per_s, "cpu_s": seen.worker_cpu_s + seen.server_cpu_s, **idle}

    def _idle(self, ground: Ground, place: Place) -> Measured:
        """The cost of an idle worker after a task from each of its queues."""
        ground.send(OURS, place, place.queues)
        with ground.workers(OURS, place, processes=1, threads=THREADS) as workers:
            workers.tally.open_gate()
            workers.wait_for(place.queues)
            time.sleep(SETTLE_S)
            before_s = workers.cpu_s()
            time.sleep(IDLE_S)
            return {
                "idle_cores": (workers.cpu_s() - before_s) / IDLE_S,
                "rss_mb": workers.rss_bytes() / 1e6,
            }


QUEUES = _Queues()
