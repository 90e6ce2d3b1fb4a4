"""Delayed messages: their lateness, and the cost of their wait."""

from __future__ import annotations

from dataclasses import replace

from bench.ground import Ground
from bench.row import Measured, Metric, Row, contestants, percentile
from bench.sizes import Sizes
from bench.systems import BY_KEY

PROCESSES, THREADS = 2, 8
#: Tasks that run first, so that the workers have booted.
READY = 50


class _Delayed(Row):
    def __init__(self) -> None:
        super().__init__(
            "delayed",
            "Delayed messages",
            contestants("kafka", "dramatiq-rabbitmq-unconfirmed", "dramatiq-redis"),
            [
                Metric("p50_ms", "late, p50 ms", better="less", digits=1),
                Metric("p99_ms", "late, p99 ms", better="less", digits=1),
                Metric("cpu_s", "CPU s / 10,000 messages", better="less", digits=2),
                Metric("rss_mb", "RSS MB of the workers", better="less"),
            ],
            most_rounds=1,
        )

    def work(self, sizes: Sizes) -> str:
        return (
            f"{sizes.delayed:,} messages due evenly within {sizes.delayed_window_s:g} s, as many due in an "
            f"hour, {PROCESSES} processes x {THREADS} threads"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system = BY_KEY[key]
        with (
            ground.place(system, task="stamp", window_s=int(sizes.delayed_window_s)) as place,
            ground.workers(system, place, processes=PROCESSES, threads=THREADS) as workers,
        ):
            workers.tally.open_gate()
            ground.send(system, replace(place, task="noop"), READY)
            workers.wait_for(READY)
            server_s, worker_s = ground.servers.cpu_s(system.server), workers.cpu_s()
            ground.send(system, place, sizes.delayed, how="delayed")
            workers.wait_for(READY + sizes.delayed)
            used_s = ground.servers.cpu_s(system.server) - server_s + workers.cpu_s() - worker_s
            memory = workers.rss_bytes() / 1e6
            late_s = workers.tally.samples()
        return {
            "p50_ms": percentile(late_s, 0.5) * 1000,
            "p99_ms": percentile(late_s, 0.99) * 1000,
            "cpu_s": used_s / (2 * sizes.delayed) * 10_000,
            "rss_mb": memory,
        }


DELAYED = _Delayed()
