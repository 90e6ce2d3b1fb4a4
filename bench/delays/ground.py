"""A namespace on a Kafka of the bench: sends delayed messages, and reads the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from dramatiq.message import Message
from kafka.admin import ConfigResource, ConfigResourceType

from broker.delays import Delays, Outcome, delay_record
from broker.delays.record_format import tombstone
from broker.kafka.clients import Clients
from broker.kafka.topic_layout import TopicLayout
from broker.kafka.topics import Topics
from broker.kafka.types import ConsumedRecord, TopicPartition
from broker.produce.publisher import Publisher
from broker.produce.record import Record
from dev.apache_kafka import ApacheKafkaServer
from dev.waiting import wait_until

QUEUE = "bench"
PARTITIONS = 4
DAY_MS = 24 * 3600 * 1000
BATCH = 5_000
POLL_S = 0.5
DEADLINE_S = 3_600.0
#: The number of markers with which each partition gets one, except with a probability of one in 25,000.
MARKERS = 40
#: Settings with which Kafka compacts the delayed topic within seconds instead of an hour.
HASTY = {
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "1000",
}

Due = Callable[[int], int]


class Ground:
    """A namespace, without a worker.

    Parameters:
      home: The directory for the indexes of its workers.
    """

    def __init__(self, server: ApacheKafkaServer, namespace: str, home: Path) -> None:
        self.server = server
        self.namespace = namespace
        self.home = home
        self.index_dir = home / f"{namespace}index"
        self.clients = Clients(server.address)
        self.topics = Topics(self.clients, TopicLayout(PARTITIONS, 1, DAY_MS), namespace=namespace)
        self.publisher = Publisher(self.clients, self.topics, timeout_ms=60_000)
        self.delays = Delays(self.clients, self.topics, self.publisher, index_dir=self.index_dir)

    def send(self, count: int, due_ms: Due) -> None:
        """Delay messages number 0 to ``count`` - 1 until ``due_ms(number)``, in milliseconds since 1970."""
        for start in range(0, count, BATCH):
            now_ms = int(time.time() * 1000)
            self.publish(
                [
                    delay_record(
                        self.topics.delayed,
                        Message(QUEUE, "task", (number,), {}, {}),
                        max(0, due_ms(number) - now_ms),
                        now_ms=now_ms,
                    )
                    for number in range(start, min(count, start + BATCH))
                ]
            )

    def send_markers(self) -> None:
        """Send messages with negative numbers and a delay of 0: a partition that forwards them is ready."""
        now_ms = int(time.time() * 1000)
        self.publish(
            [
                delay_record(self.topics.delayed, Message(QUEUE, "task", (-1,), {}, {}), 0, now_ms=now_ms)
                for _ in range(MARKERS)
            ]
        )

    def publish(self, records: list[Record]) -> None:
        if failures := self.publisher.publish(records):
            first = next(iter(failures.values()))
            raise RuntimeError(f"Kafka did not take {len(failures)} records: {first!r}")

    def arrived(self) -> int:
        """The number of records in the queue."""
        topic = self.topics.queue(QUEUE)
        self.topics.ensure([topic])
        with closing(self.clients.consumer()) as kafka:
            return sum(kafka.end_offsets(_partitions(kafka, topic)).values())

    def wait_for(self, count: int) -> None:
        """Wait until the queue has ``count`` records. The requests are too rare to affect the measurement."""

        def has_them() -> bool:
            time.sleep(POLL_S)
            return self.arrived() >= count

        wait_until(has_them, deadline_s=DEADLINE_S, what=f"{count} records in the queue")

    def in_queue(self) -> Iterator[tuple[int, ConsumedRecord]]:
        """Every record of the queue with its message's number, markers left out."""
        topic = self.topics.queue(QUEUE)
        with closing(self.clients.consumer(auto_offset_reset="earliest")) as kafka:
            partitions = _partitions(kafka, topic)
            kafka.assign(partitions)
            ends = kafka.end_offsets(partitions)
            while any((kafka.position(partition) or 0) < end for partition, end in ends.items()):
                for records in kafka.poll(timeout_ms=500).values():
                    for record in records:
                        (number,) = Message.decode(record.value or b"").args
                        if number >= 0:
                            yield number, record

    def topic_mb(self) -> float:
        """The size of the delayed topic on Kafka's disk, in MB."""
        logs = (self.server.home / "log").glob(f"{self.topics.delayed}-*/*.log")
        return sum(file.stat().st_size for file in logs) / 1e6

    def index_mb(self) -> float:
        return sum(file.stat().st_size for file in self.index_dir.rglob("*.sqlite3*")) / 1e6

    def compact_hastily(self) -> None:
        hasty = ConfigResource(ConfigResourceType.TOPIC, self.topics.delayed, configs=HASTY)
        with self.clients.admin() as admin:
            cast(Any, admin).alter_configs([hasty])  # which the broker never does

    def roll(self) -> None:
        """Write a record without meaning to each partition: Kafka closes a segment with the next record."""
        nothing = f"nothing:{0:016x}"
        self.publish(
            [
                tombstone(self.topics.delayed, nothing, Outcome.FLUSHED, partition=number)
                for number in range(PARTITIONS)
            ]
        )

    def close(self) -> None:
        self.delays.close()
        self.publisher.close()


def _partitions(kafka: object, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in sorted(kafka.partitions_for_topic(topic))]  # type: ignore[attr-defined]


def say(what: str, figure: float) -> None:
    print(f"{what:<72} {figure:>12,.1f}", flush=True)
