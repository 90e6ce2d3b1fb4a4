"""A long backlog, as after a night without workers: neither the rate nor the memory may depend on it."""

from __future__ import annotations

from bench.ground import Ground
from bench.row import Measured, Metric, Row, contestants
from bench.sizes import Sizes
from bench.steady import Clocks, between
from bench.systems import BY_KEY

PROCESSES, THREADS = 2, 8
#: The points, in shares of the backlog, at which the clocks are read: its beginning, without the tasks that
#: were read before the start, and its end, while tasks are left to read.
FIRST, LAST = (0.05, 0.25), (0.75, 0.95)


class _Backlog(Row):
    def __init__(self) -> None:
        super().__init__(
            "backlog",
            "Long backlog",
            contestants("kafka"),
            [
                Metric("early_per_s", f"tasks/s from {FIRST[0]:.0%} to {FIRST[1]:.0%}"),
                Metric("late_per_s", f"tasks/s from {LAST[0]:.0%} to {LAST[1]:.0%}"),
                Metric("early_cpu_s", "CPU s / 10,000 tasks, first", better="less", digits=2),
                Metric("late_cpu_s", "CPU s / 10,000 tasks, last", better="less", digits=2),
                Metric("early_rss_mb", "RSS MB, first", better="less"),
                Metric("late_rss_mb", "RSS MB, last", better="less"),
            ],
            most_rounds=1,
        )

    def work(self, sizes: Sizes) -> str:
        return f"{sizes.backlog:,} no-op tasks waiting, {PROCESSES} processes x {THREADS} threads"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        system, seen = BY_KEY[key], {}
        with ground.place(system) as place:
            ground.send(system, place, sizes.backlog)
            with ground.workers(system, place, processes=PROCESSES, threads=THREADS) as workers:
                workers.wait_until_all_hold_a_task()
                workers.tally.open_gate()
                for when, shares in (("early", FIRST), ("late", LAST)):
                    begin, end = (
                        Clocks.read(ground, system, workers, int(sizes.backlog * share)) for share in shares
                    )
                    steady = between(begin, end)
                    seen[f"{when}_per_s"] = steady.tasks_per_s
                    seen[f"{when}_cpu_s"] = steady.worker_cpu_s + steady.server_cpu_s
                    seen[f"{when}_rss_mb"] = workers.rss_bytes() / 1e6
        return seen


BACKLOG = _Backlog()
