"""How many partitions a topic has now, which an operator may raise at any time."""

from __future__ import annotations

from kafka import KafkaConsumer


def partitions_now(kafka: KafkaConsumer, topic: str, *, timeout_ms: int) -> set[int]:
    """The partitions of a topic that ``kafka`` is assigned, asked of Kafka.

    What a client has been told once is ``METADATA_MAX_AGE_MS`` old at most (see ``clients``).

    Raises:
      KafkaError: When Kafka does not answer in time.
    """
    # What topics() does, for this client's topics alone.
    future = kafka._cluster.request_update()
    kafka._net.run(kafka._manager.wait_for, future, timeout_ms)
    return set(kafka._cluster.partitions_for_topic(topic) or ())
