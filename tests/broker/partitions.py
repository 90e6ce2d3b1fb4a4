"""What an operator does to the partitions of a topic."""

from __future__ import annotations

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from tests.waiting import wait_until


def raise_partitions(bootstrap_servers: str, topic: str, count: int) -> None:
    """Raise the number of a topic's partitions, and wait until Kafka says so."""
    servers = bootstrap_servers.split(",")
    admin = KafkaAdminClient(bootstrap_servers=servers)
    try:
        admin.create_partitions({topic: count})
    finally:
        admin.close()
    wait_until(lambda: len(partitions(servers, topic)) == count, deadline_s=30, what=f"{count} partitions")


def partitions(servers: list[str], topic: str) -> set[int]:
    with KafkaConsumer(bootstrap_servers=servers) as kafka:
        found: set[int] = kafka.partitions_for_topic(topic)
    return found


def records_of(bootstrap_servers: str, topic: str) -> list[ConsumerRecord]:
    """What a topic holds now, on Apache Kafka; nothing when there is no such topic."""
    found: list[ConsumerRecord] = []
    with KafkaConsumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest") as kafka:
        where = [TopicPartition(topic, number) for number in kafka.partitions_for_topic(topic)]
        if not where:
            return found
        kafka.assign(where)
        ends = kafka.end_offsets(where)
        while any(kafka.position(partition) < end for partition, end in ends.items()):
            for batch in kafka.poll(timeout_ms=100).values():
                found += batch
    return found
