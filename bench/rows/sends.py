"""Sends one message at a time and waits for the answer, as a web request does."""

from __future__ import annotations

from bench.ground import Ground
from bench.row import Measured, Metric, Row, Target, contestants, percentile
from bench.sizes import Sizes
from bench.systems import BY_KEY


class _Sends(Row):
    """One row of awaited sends.

    Parameters:
      threads: The number of threads of one process that send concurrently.
    """

    def __init__(self, threads: int, targets: list[Target]) -> None:
        super().__init__(
            f"send-{threads}",
            f"Awaited sends, {threads} thread{'s' if threads > 1 else ''}",
            contestants("kafka", "dramatiq-rabbitmq", "dramatiq-rabbitmq-unconfirmed", "dramatiq-redis"),
            [
                Metric("sends_per_s", "sends/s"),
                Metric("p50_ms", "p50 ms", better="less", digits=2),
                Metric("p99_ms", "p99 ms", better="less", digits=2),
            ],
            targets,
        )
        self._threads = threads

    def work(self, sizes: Sizes) -> str:
        return (
            f"{sizes.sends:,} messages, {self._threads} thread(s), each sent once the one before is answered"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        with ground.place(system) as place:
            sent = ground.send(system, place, sizes.sends, how="awaited", threads=self._threads)
        return {
            "sends_per_s": len(sent.latencies_s) / sent.seconds,
            "p50_ms": percentile(sent.latencies_s, 0.5) * 1000,
            "p99_ms": percentile(sent.latencies_s, 0.99) * 1000,
        }


SENDS = [
    _Sends(1, []),
    _Sends(16, [Target("sends_per_s", ("dramatiq-rabbitmq",), at_least=2)]),
]
