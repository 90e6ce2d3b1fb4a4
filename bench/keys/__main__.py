"""Measures unique messages and the limits of keys on Apache Kafka. Prints one figure a line.

    python -m bench.keys [unique] [rate] [fair] [--big 100000] [--seconds 30]

``unique``: messages of a thousand keys, one after another of each: what a second runs, beside messages with a
partition key. ``rate``: a key with a rate of 10,000 a minute and enough messages: the share of the rate that
is reached, which is to be 95 % or more. ``fair``: nine tenants send 100 messages each, with
``key_concurrency=2``, behind one that has sent ``--big``: the 99th percentile of the time for which the nine
wait, which is to be twice that without the big one at most. Kafka and the worker run on this machine, each in
a separate process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.keys.worker import declare
from bench.machine import load
from broker import KafkaBroker
from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.child import Child
from dev.ports import free_port
from dev.stack import ROOT
from dev.waiting import wait_until

DEADLINE_S = 900.0
RATE_PER_MINUTE = 10_000
TENANTS, OF_A_TENANT = 9, 100
TASK_MS = 1.0
KEYS, OF_A_KEY = 1_000, 5


class Ground:
    """A namespace on a server, and its worker."""

    def __init__(self, server: ApacheKafkaServer, namespace: str, home: Path) -> None:
        self.broker = KafkaBroker(server.address, namespace=namespace)
        self.task = declare(self.broker)
        self.path = home / f"{namespace}runs"
        command = [sys.executable, "-m", "bench.keys.worker", server.address, namespace, str(self.path)]
        self.worker = Child("worker", command, log=home / "workers.log", cwd=ROOT)

    def send(self, count: int, label: str, sleep_ms: float = 0.0, **options: Any) -> None:
        for first in range(0, count, 1_000):
            self.broker.enqueue_many(
                self.task.message_with_options(args=(label, sleep_ms), **options)
                for _ in range(min(1_000, count - first))
            )

    def start_worker(self) -> None:
        self.worker.start()

    def runs(self) -> list[tuple[str, float, float]]:
        """The label, the beginning and the queue time of each run so far, in ms."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="ascii").splitlines()
        parts = [line.split(" ") for line in lines]
        return [(label, float(began), float(queued)) for label, began, queued in parts]

    def wait_until_ran(self, label: str, count: int) -> None:
        def have_run() -> bool:
            time.sleep(0.3)
            return sum(each[0] == label for each in self.runs()) >= count

        wait_until(have_run, deadline_s=DEADLINE_S, what=f"{count} runs of {label!r}")

    def close(self) -> None:
        self.worker.kill()
        self.broker.close()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure_unique(make: Any) -> bool:
    for name, options in (
        ("a partition key", lambda key: {"partition_key": key}),
        ("until_done", lambda key: {"unique_key": key, "unique": "until_done"}),
        ("until_started", lambda key: {"unique_key": key, "unique": "until_started"}),
    ):
        ground = make(f"unique-{name.replace(' ', '-')}-")
        for round_number in range(OF_A_KEY):
            for number in range(KEYS):
                # Of each key one message in a round: keys of their own, so that none is a duplicate.
                ground.send(1, "x", **options(f"{round_number} {number}"))
        ground.start_worker()
        ground.wait_until_ran("x", KEYS * OF_A_KEY)
        began = [began for _, began, _ in ground.runs()]
        print(f"{name}: {KEYS * OF_A_KEY / (max(began) - min(began)) * 1000:.0f} a second", flush=True)
        ground.close()
    return True


def measure_rate(make: Any, seconds: float) -> bool:
    ground = make("rate-")
    count = int(RATE_PER_MINUTE / 60 * seconds)
    ground.send(count, "x", partition_key="one", key_rate=f"{RATE_PER_MINUTE}/m", key_concurrency=4)
    ground.start_worker()
    ground.wait_until_ran("x", count)
    began = sorted(began for _, began, _ in ground.runs())
    reached = (count - 1) / (began[-1] - began[0]) * 60_000
    print(f"of {RATE_PER_MINUTE} a minute: {reached:.0f}, {reached / RATE_PER_MINUTE:.1%}", flush=True)
    ground.close()
    return reached >= 0.95 * RATE_PER_MINUTE


def measure_fairness(make: Any, big: int) -> bool:
    p99: dict[int, float] = {}
    for count in (0, big):
        ground = make(f"fair-{count}-")
        ground.start_worker()
        ground.send(100, "warm", partition_key="warm")
        ground.wait_until_ran("warm", 100)
        ground.send(count, "big", TASK_MS, partition_key="big", key_concurrency=2)
        for number in range(TENANTS):
            ground.send(OF_A_TENANT, "small", TASK_MS, partition_key=f"tenant {number}", key_concurrency=2)
        ground.wait_until_ran("small", TENANTS * OF_A_TENANT)
        waits = [queued for label, _, queued in ground.runs() if label == "small"]
        p99[count] = percentile(waits, 0.99)
        print(f"behind {count}: p50 {percentile(waits, 0.5):.0f} ms, p99 {p99[count]:.0f} ms", flush=True)
        ground.close()
    print(f"times as long: {p99[big] / p99[0]:.2f}", flush=True)
    return p99[big] <= 2 * p99[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help="what to measure; by default all of it")
    parser.add_argument("--big", type=int, default=100_000, help="fair: the messages of the big tenant")
    parser.add_argument("--seconds", type=float, default=30.0, help="rate: for so long")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-keys-"))
    libs = fetch_apache_kafka(Path(os.environ.get("DEV_DIR", ROOT / ".dev")))
    server = ApacheKafkaServer(home, libs=libs, port=free_port())
    reached: list[bool] = []
    try:
        server.start()
        for what in given.what or ("unique", "rate", "fair"):
            print(f"-- {what}, load average {load():.1f}, {time.strftime('%H:%M:%S')}", flush=True)

            def make(namespace: str) -> Ground:
                return Ground(server, namespace, home)

            if what == "unique":
                reached.append(measure_unique(make))
            elif what == "rate":
                reached.append(measure_rate(make, given.seconds))
            else:
                reached.append(measure_fairness(make, given.big))
    finally:
        server.kill()
        shutil.rmtree(home)
    sys.exit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
