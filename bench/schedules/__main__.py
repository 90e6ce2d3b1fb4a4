"""Measures schedules on Apache Kafka. Prints one figure a line.

    python -m bench.schedules [late] [once] [--schedules 1000] [--rounds 20] [--minutes 10] [--workers 3]

``late``: that many schedules are due in the same second, repeatedly; the lateness of an occurrence is the
time between its due time and Kafka's timestamp of its message. ``once``: that many schedules for that many
minutes, while workers are killed or stopped, and replaced; every occurrence has to be on the queue once.
Kafka and the workers run on this machine, each in a separate process.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from itertools import takewhile
from pathlib import Path

from bench.machine import load
from broker import Every, KafkaBroker
from broker.schedules.record_format import Definition, record
from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.child import Child
from dev.ports import free_port
from dev.stack import ROOT
from dev.waiting import wait_until

QUEUE = "scheduled"
DEADLINE_S = 120.0
#: The interval of the schedules of ``late``: all of them are due in the same millisecond.
ROUND_S = 5
#: The time between two harms of ``once``.
PEACE_S = 12.0


class Ground:
    """A namespace on a server, its schedules and its workers."""

    def __init__(self, server: ApacheKafkaServer, namespace: str, home: Path) -> None:
        self.broker = KafkaBroker(server.address, namespace=namespace)
        self.broker.declare_queue(QUEUE)
        self.workers: list[Child] = []
        self._command = [sys.executable, "-m", "bench.schedules.worker", server.address, namespace]
        self._home = home

    def put(self, timings: dict[str, Every]) -> int:
        """Write schedules, and return the time since which they have occurrences, in ms."""
        since_ms = time.time_ns() // 1_000_000
        definitions = [
            Definition(name, "task", QUEUE, timing, since_ms=since_ms) for name, timing in timings.items()
        ]
        topic = self.broker.parts.topics.schedules
        failures = self.broker.parts.publisher.publish([record(topic, made) for made in definitions])
        if failures:
            raise RuntimeError(f"the schedules were not written: {failures}")
        return since_ms

    def start_worker(self) -> None:
        worker = Child("scheduler", self._command, log=self._home / "workers.log", cwd=ROOT)
        worker.start()
        self.workers.append(worker)

    def count(self) -> int:
        """The number of messages on the queue."""
        time.sleep(0.5)
        return self.broker.count(QUEUE)

    def enqueued(self) -> list[tuple[str, int, int]]:
        """The name, the time and Kafka's timestamp of each occurrence on the queue."""
        found = self.broker.find(QUEUE, completed=True, limit=10_000_000, scan_limit=10_000_000)
        return [
            (one.message.options["schedule"], one.message.options["occurrence_ms"], one.written_ms)
            for one in found.records
        ]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.broker.close()


def measure_lateness(ground: Ground, schedules: int, rounds: int) -> None:
    timing = Every(seconds=ROUND_S)
    timings = {f"schedule {number}": timing for number in range(schedules)}
    since_ms = ground.put(timings)
    ground.start_worker()
    wait_until(lambda: ground.count() >= schedules, deadline_s=DEADLINE_S, what="the first occurrences")
    wait_until(
        lambda: ground.count() >= schedules * (rounds + 1),
        deadline_s=DEADLINE_S + ROUND_S * rounds,
        what="the occurrences",
    )
    per_round: dict[int, list[int]] = {}
    for _, occurrence_ms, kafka_ms in ground.enqueued():
        per_round.setdefault(occurrence_ms, []).append(kafka_ms - occurrence_ms)
    # The first one is the takeover's.
    late_ms = sorted(ms for occurrence_ms in sorted(per_round)[1:] for ms in per_round[occurrence_ms])
    print(f"{schedules} schedules due in the same second, {len(per_round) - 1} times, since {since_ms}")
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        print(f"late {name}: {late_ms[min(len(late_ms) - 1, int(share * len(late_ms)))]} ms")


def check_once(ground: Ground, schedules: int, minutes: float, workers: int, seed: int) -> bool:
    dice = random.Random(seed)
    timings = {
        f"schedule {n}": Every(seconds=dice.choice((5, 10, 20, 60)), missed="all", max_missed=100)
        for n in range(schedules)
    }
    since_ms = ground.put(timings)
    for _ in range(workers):
        ground.start_worker()
    until_s = time.monotonic() + 60 * minutes
    harms: Counter[str] = Counter()
    while time.monotonic() < until_s:
        time.sleep(PEACE_S)
        victim = ground.workers.pop(dice.randrange(len(ground.workers)))
        harm = dice.choice(("killed", "stopped"))
        harms[harm] += 1
        victim.kill() if harm == "killed" else victim.stop()
        ground.start_worker()
    until_ms = time.time_ns() // 1_000_000
    expected = {
        (name, time_ms)
        for name, timing in timings.items()
        for time_ms in takewhile(lambda ms: ms <= until_ms, timing.after(since_ms))
    }

    def missing() -> set[tuple[str, int]]:
        return expected - {(name, time_ms) for name, time_ms, _ in ground.enqueued()}

    wait_until(lambda: not missing(), deadline_s=DEADLINE_S, what="the last occurrences")
    count = Counter((name, time_ms) for name, time_ms, _ in ground.enqueued())
    twice = {occurrence: times for occurrence, times in count.items() if times > 1}
    print(f"{schedules} schedules, {minutes:g} minutes, seed {seed}: {len(expected)} occurrences")
    print(f"workers killed: {harms['killed']}, stopped: {harms['stopped']}")
    print(f"missing: {len(missing())}, enqueued more than once: {len(twice)}")
    return not twice


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help="what to measure; by default all of it")
    parser.add_argument("--schedules", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=20, help="late: so many times")
    parser.add_argument("--minutes", type=float, default=10.0, help="once: for so long")
    parser.add_argument("--workers", type=int, default=3, help="once: with so many of them")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="once: of the harms")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-schedules-"))
    libs = fetch_apache_kafka(Path(os.environ.get("DEV_DIR", ROOT / ".dev")))
    server = ApacheKafkaServer(home, libs=libs, port=free_port())
    is_right = True
    try:
        server.start()
        for what in given.what or ("late", "once"):
            print(f"-- {what}, load average {load():.1f}, {time.strftime('%H:%M:%S')}", flush=True)
            ground = Ground(server, f"{what}-", home)
            if what == "late":
                measure_lateness(ground, given.schedules, given.rounds)
            else:
                is_right = check_once(ground, given.schedules, given.minutes, given.workers, given.seed)
            ground.close()
    finally:
        server.kill()
        shutil.rmtree(home)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
