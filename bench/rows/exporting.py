"""The cost of the Prometheus exporter: a read of the state, and a scrape."""

from __future__ import annotations

import time

from bench.ground import Ground
from bench.row import Contestant, Measured, Metric, Row
from bench.sizes import Sizes
from bench.systems import OURS
from broker import KafkaBroker
from broker.metrics.exporter import Exporter

THREADS = 8
READS = 10
#: The time after the tasks in which the reports of the worker arrive.
SETTLE_S = 3.0


class _Exporting(Row):
    def __init__(self) -> None:
        super().__init__(
            "metrics",
            "Metrics exporter",
            [
                Contestant("1", "1 queue", OURS.server),
                Contestant("10", "10 queues", OURS.server),
            ],
            [
                Metric("first_read_ms", "first read ms", better="less"),
                Metric("read_ms", "read ms", better="less"),
                Metric("read_cpu_ms", "its CPU ms", better="less"),
                Metric("scrape_ms", "scrape ms", better="less", digits=1),
                Metric("series", "time series", better="less"),
            ],
            ours="1",
        )

    def work(self, sizes: Sizes) -> str:
        return f"{READS} reads of the state of queues of 4 partitions and one worker, and as many scrapes"

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        count = 10 * int(key)
        with ground.place(OURS, queues=int(key)) as place:
            ground.send(OURS, place, count)
            with ground.workers(OURS, place, processes=1, threads=THREADS) as workers:
                workers.tally.open_gate()
                workers.wait_for(count)
                time.sleep(SETTLE_S)
                broker = KafkaBroker(place.address, namespace=f"{place.queue}-", group_id=place.queue)
                try:
                    return _measured(Exporter(broker))
                finally:
                    broker.close()


def _measured(exporter: Exporter) -> Measured:
    began_s = time.monotonic()
    exporter.refresh()
    first_s = time.monotonic() - began_s
    began_s, cpu_began_s = time.monotonic(), time.process_time()
    for _ in range(READS):
        exporter.refresh()
    read_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_began_s
    if not exporter.is_up:
        raise RuntimeError("the exporter could not read Kafka")
    began_s = time.monotonic()
    texts = [exporter.text() for _ in range(READS)]
    scrape_s = time.monotonic() - began_s
    return {
        "first_read_ms": first_s * 1000,
        "read_ms": read_s / READS * 1000,
        "read_cpu_ms": cpu_s / READS * 1000,
        "scrape_ms": scrape_s / READS * 1000,
        "series": sum(bool(line) and not line.startswith("#") for line in texts[-1].splitlines()),
    }


EXPORTING = _Exporting()
