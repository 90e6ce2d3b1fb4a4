"""Tasks that do nothing: a system's cost for each task, compared with a system without a server."""

from __future__ import annotations

from contextlib import AbstractContextManager

from bench.busy import kept_busy
from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants
from bench.sizes import Sizes
from bench.steady import course_of, measure
from bench.systems import BY_KEY

PROCESSES, THREADS = 2, 8


class _Noop(Row):
    def __init__(self) -> None:
        super().__init__(
            "noop",
            "No-op tasks",
            contestants(
                "kafka",
                "stub",
                "dramatiq-rabbitmq",
                "dramatiq-redis",
                "celery-rabbitmq",
                "celery-redis",
                "taskiq-kafka",
            ),
            [
                Metric("tasks_per_s", "tasks/s"),
                Metric("cpu_s", "CPU s / 10,000 tasks", better="less", digits=2),
                Metric("worker_cpu_s", "of it workers", better="less", digits=2),
                Metric("server_cpu_s", "of it server", better="less", digits=2),
                Metric("others_cores", "cores used by others", better="less", digits=2),
            ],
            [
                Target("tasks_per_s", ("dramatiq-rabbitmq", "dramatiq-redis"), at_least=4),
                Target("tasks_per_s", ("celery-rabbitmq", "celery-redis"), at_least=10),
                Target("tasks_per_s", ("stub",), at_least=0.85),
                Target(
                    "cpu_s",
                    (
                        "dramatiq-rabbitmq",
                        "dramatiq-redis",
                        "celery-rabbitmq",
                        "celery-redis",
                        "taskiq-kafka",
                    ),
                    at_least=1,
                ),
            ],
        )
        #: The share of a core that Kafka used for this broker in the last measurement: the ceiling is
        #: measured beside the same load.
        self._kafka_share = 0.0

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.tasks:,} tasks that do nothing, {PROCESSES} processes x {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        course = course_of(system, sizes.tasks)
        preload = 0 if system.server else course.total // PROCESSES + 1
        with ground.place(system, preload=preload) as place:
            seen = measure(
                ground,
                system,
                place,
                course,
                processes=PROCESSES,
                threads=THREADS,
                beside=self._busy_kafka(ground) if key == "stub" else None,
            )
        if key == "kafka":
            self._kafka_share = seen.server_share
        return {
            "tasks_per_s": seen.tasks_per_s,
            "cpu_s": seen.worker_cpu_s + seen.server_cpu_s,
            "worker_cpu_s": seen.worker_cpu_s,
            "server_cpu_s": seen.server_cpu_s,
            "others_cores": seen.others_cores,
        }

    def _busy_kafka(self, ground: Ground) -> AbstractContextManager[None] | None:
        kafka = ground.servers.running.get("kafka")
        return kept_busy(kafka, self._kafka_share, ground.home) if kafka and self._kafka_share else None


NOOP = _Noop()
