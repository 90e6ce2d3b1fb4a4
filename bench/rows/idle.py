"""The time for which a message waits for an idle worker."""

from __future__ import annotations

from dataclasses import replace

from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants, percentile
from bench.sizes import Sizes
from bench.systems import BY_KEY

THREADS = 8
READY = 50


def idle_latencies_s(ground: Ground, sizes: Sizes, key: str, **fields: str) -> list[float]:
    """The times from the call of send to the task's start of messages to an idle worker, one at a time.

    Parameters:
      key: The system.
      fields: Of the place, beside its task.
    """
    system = BY_KEY[key]
    with (
        ground.place(system, task="stamp", **fields) as place,
        ground.workers(system, place, processes=1, threads=THREADS) as workers,
    ):
        workers.tally.open_gate()
        # A worker is ready when it has run a task.
        ground.send(system, replace(place, task="noop"), READY)
        workers.wait_for(READY)
        ground.send(system, place, sizes.idle, how="spaced")
        workers.wait_for(READY + 1 + sizes.idle)
        return workers.tally.samples()


class _Idle(Row):
    def __init__(self) -> None:
        super().__init__(
            "idle",
            "Idle latency",
            contestants("kafka", "dramatiq-rabbitmq", "dramatiq-redis", "celery-rabbitmq", "celery-redis"),
            [
                Metric("p50_ms", "p50 ms", better="less", digits=2),
                Metric("p99_ms", "p99 ms", better="less", digits=2),
            ],
            [Target("p50_ms", ("dramatiq-redis",), at_least=1)],
        )

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.idle} messages, one every 50 to 150 ms, from the call of send to the task's start"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        latencies_s = idle_latencies_s(ground, sizes, key)
        return {
            "p50_ms": percentile(latencies_s, 0.5) * 1000,
            "p99_ms": percentile(latencies_s, 0.99) * 1000,
        }


IDLE = _Idle()
