"""The metadata of a topic, according to a new request to Kafka.

An operator may raise the partition count of a topic at any time. The metadata that a client has is at most
``METADATA_MAX_AGE_MS`` old (see ``clients``).
"""

from __future__ import annotations

from typing import Any

from kafka.protocol.metadata import MetadataRequest

from . import internals
from .errors import AuthorizationError, UnknownTopicOrPartitionError, for_code
from .protocol import ConsumerClient


def partitions_now(kafka: ConsumerClient, topic: str, *, timeout_ms: float) -> set[int]:
    """The partitions of a topic, according to a new request to Kafka.

    Raises:
      KafkaError: When Kafka does not answer in time.
    """
    kafka.refresh_metadata(timeout_ms)
    return set(kafka.known_partitions(topic) or ())


def topic_exists(kafka: Any, topic: str, timeout_ms: float) -> bool:
    """Ask over the connections of kafka-python's consumer ``kafka``; see ``protocol.ConsumerClient``."""
    asked = internals.start(kafka, _ask, topic, internals.coordinator_node(kafka))
    exists: bool = internals.wait(kafka, asked, timeout_ms)
    return exists


async def _ask(manager: Any, topic: str, node_id: object) -> bool:
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=topic)],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )
    (found,) = (await manager.send(request, node_id=node_id)).topics
    error = for_code(found.error_code)
    return not issubclass(error, UnknownTopicOrPartitionError | AuthorizationError)
