"""How many partitions a topic has now, which an operator may raise at any time.

What a client was told once is ``METADATA_MAX_AGE_MS`` old at most (see ``clients``).
"""

from __future__ import annotations

from .protocol import ConsumerClient


def partitions_now(kafka: ConsumerClient, topic: str, *, timeout_ms: float) -> set[int]:
    """The partitions of a topic that ``kafka`` is assigned, asked of Kafka.

    Raises:
      KafkaError: When Kafka does not answer in time.
    """
    kafka.refresh_metadata(timeout_ms)
    return set(kafka.known_partitions(topic) or ())
