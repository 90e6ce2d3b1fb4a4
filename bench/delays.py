"""Measures delayed messages on Apache Kafka: many in and out, an index rebuilt, lateness at a steady rate.

    python -m bench.delays [--count 200000] [--rate 1000] [--seconds 20]

The forwarder runs in this process, and Kafka on this machine. Prints one figure a line.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from dramatiq.message import Message
from kafka.structs import TopicPartition

from broker.clients import Clients
from broker.delays import Delays, delay_record
from broker.publisher import Publisher, Record
from broker.topics import TopicLayout, Topics
from dev.apache_kafka import ApacheKafkaServer, fetch_apache_kafka
from dev.ports import free_port
from dev.stack import ROOT
from dev.waiting import wait_until

QUEUE = "bench"
PARTITIONS = 4
BATCH = 5_000
FAR_MS = 24 * 3600 * 1000
DEADLINE_S = 3_600.0
SETTINGS = {"session_timeout_ms": 10_000, "heartbeat_interval_ms": 1_000}


class Ground:
    """A namespace on a Kafka, and one machine's indexes."""

    def __init__(self, server: ApacheKafkaServer, namespace: str, home: Path) -> None:
        self.clients = Clients(server.address)
        self.topics = Topics(self.clients, TopicLayout(PARTITIONS, 1, FAR_MS), namespace=namespace)
        self.publisher = Publisher(self.clients, self.topics, timeout_ms=60_000)
        self.index_dir = home / f"{namespace}index"
        self.delays = Delays(self.clients, self.topics, self.publisher, index_dir=self.index_dir)
        self._log = home / "log"

    def send(self, count: int, due: Callable[[int], int]) -> None:
        """Delay ``count`` messages until ``due(number)``, in milliseconds since 1970."""
        for start in range(0, count, BATCH):
            now_ms = int(time.time() * 1000)
            batch = [
                delay_record(
                    self.topics.delayed,
                    Message(QUEUE, "task", (number,), {}, {}),
                    max(0, due(number) - now_ms),
                    now_ms=now_ms,
                )
                for number in range(start, min(count, start + BATCH))
            ]
            self.publish(batch)

    def publish(self, records: list[Record]) -> None:
        if failures := self.publisher.publish(records):
            raise RuntimeError(
                f"Kafka did not take {len(failures)} records: {next(iter(failures.values()))!r}"
            )

    def arrived(self) -> int:
        return self._end(self.topics.queue(QUEUE))

    def _end(self, topic: str) -> int:
        self.topics.ensure([topic])
        with self.clients.consumer() as kafka:
            partitions = [TopicPartition(topic, number) for number in kafka.partitions_for_topic(topic)]
            return sum(kafka.end_offsets(partitions).values())

    def log_mb(self) -> float:
        directories = self._log.glob(f"{self.topics.delayed}-*")
        return sum(file.stat().st_size for path in directories for file in path.glob("*.log")) / 1e6

    def index_mb(self) -> float:
        return sum(file.stat().st_size for file in self.index_dir.rglob("*.sqlite3*")) / 1e6

    @contextmanager
    def forwarding(self) -> Iterator[None]:
        forwarder = self.delays.forwarder(SETTINGS)
        forwarder.start()
        try:
            yield
        finally:
            forwarder.stop(60)

    def close(self) -> None:
        self.delays.close()
        self.publisher.close()


class PeakMemory(threading.Thread):
    """The most memory that this process had while it ran."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before_mb = self.peak_mb = _rss_mb()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.peak_mb = max(self.peak_mb, _rss_mb())

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self.join()


def measure_many(ground: Ground, count: int) -> None:
    """All of them in, an index built from nothing, all of them due at once and out."""
    sent_s = time.monotonic()
    due_at_ms = int(time.time() * 1000) + FAR_MS
    ground.send(count, lambda number: due_at_ms)
    say("sent a second", count / (time.monotonic() - sent_s))
    say("topic with all of them, MB", ground.log_mb())

    built_s = time.monotonic()
    with PeakMemory() as memory, ground.forwarding():
        marker_s = time.monotonic()
        # A marker in every partition is served when its index is complete.
        ground.send(40, lambda number: 0)
        wait_until(lambda: ground.arrived() >= 40, deadline_s=DEADLINE_S, what="the indexes")
        say("until indexes were rebuilt and served, s", time.monotonic() - min(built_s, marker_s))
        say("index on disk, MB", ground.index_mb())
    say("memory before the rebuild, MB", memory.before_mb)
    say("memory at most in the rebuild, MB", memory.peak_mb)

    again_s = time.monotonic()
    with ground.forwarding():
        ground.send(40, lambda number: 0)
        wait_until(lambda: ground.arrived() >= 80, deadline_s=DEADLINE_S, what="the indexes again")
        say("until indexes on disk were taken up and served, s", time.monotonic() - again_s)


def measure_flood(ground: Ground, count: int) -> None:
    """All of them due while no forwarder runs: how fast they go, and what they leave."""
    ground.send(count, lambda number: 0)
    flood_s = time.monotonic()
    with PeakMemory() as memory, ground.forwarding():
        wait_until(lambda: ground.arrived() >= count, deadline_s=DEADLINE_S, what="the flood")
        say("forwarded a second, rebuild included", count / (time.monotonic() - flood_s))
        wait_until(lambda: ground.delays.count(QUEUE) == 0, deadline_s=DEADLINE_S, what="the tombstones")
        say("topic with all tombstones, before compaction, MB", ground.log_mb())
    say("memory at most in the flood (with the count's own index), MB", memory.peak_mb)
    say("forwarded more than once", ground.arrived() - count)


def measure_lateness(ground: Ground, rate: int, seconds: int) -> None:
    """A steady number of messages due each second, sent ten seconds ahead."""
    with ground.forwarding():
        ground.send(40, lambda number: 0)
        wait_until(lambda: ground.arrived() >= 40, deadline_s=DEADLINE_S, what="the forwarder")
        start_ms = int(time.time() * 1000) + 10_000 + 100 * seconds
        ground.send(rate * seconds, lambda number: start_ms + number * 1000 // rate)
        wait_until(lambda: ground.arrived() >= 40 + rate * seconds, deadline_s=DEADLINE_S, what="all of them")
    lateness_ms = sorted(_lateness_ms(ground, start_ms, rate))
    for share in (0.5, 0.99, 0.999, 1.0):
        say(
            f"lateness at {rate} a second, p{share * 100:g}, ms",
            lateness_ms[int(share * (len(lateness_ms) - 1))],
        )
    say("earliest, ms", lateness_ms[0])


def _lateness_ms(ground: Ground, start_ms: int, rate: int) -> Iterator[float]:
    topic = ground.topics.queue(QUEUE)
    with ground.clients.consumer(auto_offset_reset="earliest") as kafka:
        partitions = [TopicPartition(topic, number) for number in kafka.partitions_for_topic(topic)]
        kafka.assign(partitions)
        ends = kafka.end_offsets(partitions)
        while any(kafka.position(partition) < end for partition, end in ends.items()):
            for records in kafka.poll(timeout_ms=500).values():
                for record in records:
                    if record.timestamp >= start_ms:
                        (number,) = Message.decode(record.value).args
                        yield record.timestamp - (start_ms + number * 1000 // rate)


def say(what: str, figure: float) -> None:
    print(f"{what:<68} {figure:>12,.1f}", flush=True)


def _rss_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200_000, help="of the messages that come and go")
    parser.add_argument("--rate", type=int, default=1_000, help="of messages due each second")
    parser.add_argument("--seconds", type=int, default=20, help="for which that many are due")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-delays-"))
    server = ApacheKafkaServer(home, libs=fetch_apache_kafka(ROOT / ".dev"), port=free_port())
    try:
        server.start()
        for namespace, measure in (
            ("late-", lambda ground: measure_lateness(ground, given.rate, given.seconds)),
            ("many-", lambda ground: measure_many(ground, given.count)),
            ("flood-", lambda ground: measure_flood(ground, given.count)),
        ):
            ground = Ground(server, namespace, home)
            measure(ground)
            ground.close()
    finally:
        server.kill()
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
