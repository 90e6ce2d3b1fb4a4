"""The cost of reports and history: the same work with and without them."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime

from bench.ground import Ground
from bench.place import Place
from bench.row import Contestant, Measured, Metric, Row, Target
from bench.sizes import Sizes
from bench.steady import course_of, measure
from bench.systems import OURS
from broker import KafkaBroker

PROCESSES, THREADS = 2, 8
#: The time for which an idle worker is measured, and the time before that in which it becomes idle.
IDLE_S, SETTLE_S = 10.0, 2.0
WITH, WITHOUT = "reported", "unreported"


class _Reports(Row):
    def __init__(self) -> None:
        super().__init__(
            "reports",
            "Reports and history",
            [
                Contestant(WITH, "with reports and history, as by default", OURS.server),
                Contestant(WITHOUT, "without", OURS.server),
            ],
            [
                Metric("tasks_per_s", "tasks/s"),
                Metric("cpu_s", "CPU s / 10,000 tasks", better="less", digits=2),
                Metric("worker_cpu_s", "of it workers", better="less", digits=2),
                Metric("recorded", "events in the history"),
                Metric("counted", "runs that it counts only", better="less"),
                Metric("dropped", "events that it dropped", better="less"),
                Metric("idle_cores", "cores used by an idle worker", better="less", digits=3),
                Metric("threads", "its threads", better="less"),
                Metric("others_cores", "cores used by others", better="less", digits=2),
            ],
            [Target("tasks_per_s", (WITHOUT,), at_least=0.95), Target("cpu_s", (WITHOUT,), at_least=0.95)],
            ours=WITH,
        )

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.tasks:,} tasks that do nothing, {PROCESSES} processes x {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        reports = int(key == WITH)
        course = course_of(OURS, sizes.tasks)
        began = datetime.now(UTC)
        with ground.place(OURS, reports=reports) as place:
            seen = measure(ground, OURS, place, course, processes=PROCESSES, threads=THREADS)
            history = _history(place, began)
        with ground.place(OURS, reports=reports) as place:
            idle = self._idle(ground, place)
        return {
            "tasks_per_s": seen.tasks_per_s,
            "cpu_s": seen.worker_cpu_s + seen.server_cpu_s,
            "worker_cpu_s": seen.worker_cpu_s,
            "others_cores": seen.others_cores,
            **history,
            **idle,
        }

    def _idle(self, ground: Ground, place: Place) -> Measured:
        """The cost of an idle worker after one task."""
        ground.send(OURS, place, 1)
        with ground.workers(OURS, place, processes=1, threads=THREADS) as workers:
            workers.tally.open_gate()
            workers.wait_for(1)
            time.sleep(SETTLE_S)
            before_s = workers.cpu_s()
            time.sleep(IDLE_S)
            return {
                "idle_cores": (workers.cpu_s() - before_s) / IDLE_S,
                "threads": workers.thread_count(),
            }


def _history(place: Place, since: datetime) -> Measured:
    """What the history says of the runs since then. The workers were killed, so it lacks the last moment."""
    with closing(KafkaBroker(place.address, namespace=f"{place.queue}-", middleware=[])) as broker:
        history = broker.history(since=since, limit=1)
        return {
            "recorded": history.scanned,
            "counted": sum(history.unrecorded.values()),
            "dropped": history.dropped,
        }


REPORTS = _Reports()
