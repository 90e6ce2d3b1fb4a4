"""The metadata of a topic, according to a new request to Kafka.

An operator may raise the partition count of a topic at any time. The metadata that a client has is at most
``METADATA_MAX_AGE_MS`` old (see ``clients``).
"""

from __future__ import annotations

from .protocol import ConsumerClient


def partitions_now(kafka: ConsumerClient, topic: str, *, timeout_ms: float) -> set[int]:
    """The partitions of a topic, according to a new request to Kafka.

    Raises:
      KafkaError: When Kafka does not answer in time.
    """
    kafka.refresh_metadata(timeout_ms)
    return set(kafka.known_partitions(topic) or ())
