"""Asks Kafka whether topics exist, without following them.

A client of kafka-python follows each topic that it was ever asked about: while one of them does not exist, it
requests metadata ten times a second, and logs an error each time (ClusterMetadata.update_metadata,
cluster.py:536-625 of 3.0.12).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kafka.protocol.metadata import MetadataRequest

from . import internals
from .errors import (
    KafkaConnectionError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)


def existing_topics(kafka: Any, topics: Collection[str], *, timeout_ms: float) -> set[str]:
    """Those of ``topics`` that exist, according to a new request to one node.

    Raises:
      TopicAuthorizationFailedError: When this client may not see one of them.
      KafkaError: When there is no answer in time.
    """
    # The connection of the coordinator has no fetch in flight, behind which the request would wait.
    asked = internals.start(kafka, _ask, sorted(topics), internals.coordinator_node(kafka))
    found: set[str] = internals.wait(kafka, asked, timeout_ms)
    return found


async def _ask(manager: Any, topics: list[str], coordinator: object) -> set[str]:
    node = manager.least_loaded_node() if coordinator is None else coordinator
    if node is None:
        raise KafkaConnectionError("no node is connected")
    request = MetadataRequest(
        topics=[MetadataRequest.MetadataRequestTopic(name=topic) for topic in topics],
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )
    response = await manager.send(request, node)
    errors = {found.name: for_code(found.error_code) for found in response.topics if found.error_code}
    denied = {topic for topic, error in errors.items() if error is TopicAuthorizationFailedError}
    if denied:
        raise TopicAuthorizationFailedError(denied)
    # After any other error, such as a missing leader, the topic exists.
    return {topic for topic in topics if errors.get(topic) is not UnknownTopicOrPartitionError}
