"""One process's part in delayed messages, and a look at what comes of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from dramatiq.message import Message, generate_unique_id
from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from broker.delays import Delays, Forwarder
from broker.kafka.clients import Clients
from broker.kafka.topic_layout import TopicLayout
from broker.kafka.topics import Topics
from broker.produce.publisher import Publisher
from broker.produce.record import Record, partition_of
from tests.broker.kafka_python import whole_consumer
from tests.waiting import wait_until

#: The embedded broker answers a JoinGroup only after half of the session timeout.
SESSION_TIMEOUT_MS = 6_000
PARTITIONS = 2
QUEUE = "mail"
DEADLINE_S = 60.0


class Station:
    publisher_type = Publisher
    client_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, bootstrap_servers: str, namespace: str, index_dir: Path) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.namespace = namespace
        self.index_dir = index_dir
        self.clients = Clients(bootstrap_servers, self.client_options)
        self.topics = Topics(self.clients, TopicLayout(PARTITIONS, 1, 3_600_000), namespace=namespace)
        self.publisher = self.publisher_type(self.clients, self.topics, timeout_ms=10_000)
        self.delays = Delays(self.clients, self.topics, self.publisher, index_dir=index_dir)
        self.forwarder: Forwarder | None = None

    def start(self, session_timeout_ms: int = SESSION_TIMEOUT_MS) -> Forwarder:
        self.forwarder = self.delays.forwarder(
            {"session_timeout_ms": session_timeout_ms, "heartbeat_interval_ms": session_timeout_ms // 6}
        )
        self.forwarder.start()
        return self.forwarder

    def stop(self) -> None:
        if self.forwarder is not None:
            self.forwarder.stop()
            self.forwarder = None

    def close(self) -> None:
        self.stop()
        self.delays.close()
        self.publisher.close()

    def delay(self, *delays_ms: int, queue: str = QUEUE) -> list[str]:
        """Delay a message of its own by each of ``delays_ms``, and return their ids."""
        messages = [message(queue) for _ in delays_ms]
        self.publish(*(self.delays.record(m, ms) for m, ms in zip(messages, delays_ms, strict=True)))
        return [m.message_id for m in messages]

    def delay_in(self, partition: int) -> str:
        """Delay a message that waits in a partition and is due, and return its id."""
        due = next(
            m for m in iter(message, None) if partition_of(m.message_id.encode(), PARTITIONS) == partition
        )
        self.publish(self.delays.record(due, 0))
        return due.message_id

    def publish(self, *records: Record) -> None:
        assert not self.publisher.publish(records)

    def in_queue(self, queue: str = QUEUE) -> list[ConsumerRecord]:
        """Everything that was ever put into a queue's topic, by partition and offset."""
        return self.read(self.topics.queue(queue))

    def in_delayed(self) -> list[ConsumerRecord]:
        return self.read(self.topics.delayed)

    def read(self, topic: str) -> list[ConsumerRecord]:
        self.topics.ensure([topic])
        with whole_consumer(self.clients, auto_offset_reset="earliest") as kafka:
            partitions = [
                TopicPartition(topic, number) for number in sorted(kafka.partitions_for_topic(topic))
            ]
            kafka.assign(partitions)
            ends = kafka.end_offsets(partitions)
            records: list[ConsumerRecord] = []
            while any(_is_behind(kafka, partition, end) for partition, end in ends.items()):
                for batch in kafka.poll(timeout_ms=100).values():
                    records += batch
        return records

    def ids_in_queue(self, queue: str = QUEUE) -> list[str]:
        return [Message.decode(record.value).message_id for record in self.in_queue(queue)]

    def wait_for(self, ids: list[str], queue: str = QUEUE, deadline_s: float = DEADLINE_S) -> list[str]:
        """Wait until all of ``ids`` have been forwarded, and return the ids of everything that has."""
        wait_until(
            lambda: set(ids) <= set(self.ids_in_queue(queue)),
            deadline_s=deadline_s,
            what=f"{len(ids)} messages in {queue!r}",
        )
        return self.ids_in_queue(queue)

    def wait_until_done(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until nothing is left to do: everything delayed has its tombstone."""
        wait_until(
            lambda: all(value is None for value in self._last_values().values()),
            deadline_s=deadline_s,
            what="a tombstone for every delay",
        )

    def wait_until_done_of(self, ids: list[str], deadline_s: float = DEADLINE_S) -> None:
        """Wait until everything delayed of these messages has its tombstone."""
        wait_until(
            lambda: not [k for k, value in self._last_values().items() if value and _message_id(k) in ids],
            deadline_s=deadline_s,
            what=f"the tombstones of {len(ids)} messages",
        )

    def _last_values(self) -> dict[bytes, bytes | None]:
        return {r.key: r.value for r in self.in_delayed() if r.key.startswith(b"delay:")}

    def index_files(self) -> list[Path]:
        return sorted(self.index_dir.rglob("*.sqlite3"))


def _message_id(key: bytes) -> str:
    return key.decode().split(":")[1]


def message(queue: str = QUEUE, message_id: str | None = None) -> Message[None]:
    return Message(queue, "greet", (), {}, {}, message_id=message_id or generate_unique_id())


def due_ms(record: Record) -> int:
    return int(dict(record.headers)["delay-due-ms"])


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _is_behind(kafka: KafkaConsumer, partition: TopicPartition, end: int) -> bool:
    # The embedded broker names an end that lies within the last batch.
    position = kafka.position(partition)
    return position is None or position < max(end, kafka.highwater(partition) or 0)
