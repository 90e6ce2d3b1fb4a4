"""How many partitions a topic has now, which an operator may raise at any time.

What a client was told once is ``METADATA_MAX_AGE_MS`` old at most (see ``clients``).
"""

from __future__ import annotations

from threading import Event

from kafka import KafkaConsumer, KafkaProducer

from .leader_epochs import refresh_metadata


def partitions_now(kafka: KafkaConsumer, topic: str, *, timeout_ms: int) -> set[int]:
    """The partitions of a topic that ``kafka`` is assigned, asked of Kafka.

    Raises:
      KafkaError: When Kafka does not answer in time.
    """
    refresh_metadata(kafka, timeout_ms=timeout_ms)
    return set(kafka._cluster.partitions_for_topic(topic) or ())


def refresh_metadata_of(producer: KafkaProducer, *, timeout_s: float) -> None:
    """Ask Kafka about the topics of a producer. Without an answer in time it knows what it knew."""
    told = Event()
    producer._metadata.request_update().add_both(lambda _: told.set())
    producer._sender.wakeup()
    told.wait(timeout_s)
