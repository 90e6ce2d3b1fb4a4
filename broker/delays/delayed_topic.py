"""The present delayed topic of the cluster. Its settings may differ from those with which this broker creates
it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Event

from ..errors import TopicMisconfigured
from ..kafka.clients import Clients
from ..kafka.errors import KafkaError, for_code
from ..kafka.protocol import AdminClient
from ..kafka.rights import Rights
from ..kafka.topics import Topics
from ..process import clock
from .index_files import Identity

logger = logging.getLogger(__name__)

#: Kafka's default for delete.retention.ms, assumed where the topic's settings may not be read.
DEFAULT_TOMBSTONE_RETENTION_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class DelayedTopic:
    """The present delayed topic.

    Attributes:
      tombstone_retention_ms: The minimum time for which Kafka keeps a tombstone.
    """

    name: str
    cluster_id: str
    topic_id: str
    partition_count: int
    tombstone_retention_ms: int

    def identity(self, partition: int) -> Identity:
        return Identity(self.cluster_id, self.name, self.topic_id, partition)


def look_up(
    clients: Clients, topics: Topics, *, within_s: float | None = None, unless: Event | None = None
) -> DelayedTopic:
    """Ask the cluster about the delayed topic. A missing topic is created.

    Parameters:
      within_s: The timeout; ``clients.ASK_TIMEOUT_S`` by default.
      unless: Once this event is set, a failed request is not repeated.

    Raises:
      KafkaUnavailable: When Kafka does not answer.
      NotAuthorized: When this client may not describe the topic.
    """
    return clients.ask(
        lambda: _look_up(clients, topics),
        f"The topic {topics.delayed!r} could not be looked up",
        deadline_s=None if within_s is None else clock.monotonic_s() + within_s,
        patient=False,
        unless=unless,
        rights=Rights((topics.delayed,), on_topic="DESCRIBE"),
    )


def _look_up(clients: Clients, topics: Topics) -> DelayedTopic:
    name = topics.delayed
    topics.ensure([name], for_reading=True)
    with clients.admin() as admin:
        cluster_id = admin.cluster_id()
        (found,) = admin.describe_topics([name])
        if found["error_code"] != 0:
            topics.forget([name])
            raise for_code(found["error_code"])(f"the topic {name!r} is not there")
        settings = _settings(admin, name)
    if "compact" not in settings.get("cleanup.policy", "compact"):  # changed since the check at first use
        topics.log_refusal(
            TopicMisconfigured(
                name,
                f"The topic {name!r} has cleanup.policy={settings['cleanup.policy']}: Kafka deletes delayed "
                "messages that are older than its retention. Set cleanup.policy=compact on it.",
            )
        )
    retention_ms = int(settings.get("delete.retention.ms", DEFAULT_TOMBSTONE_RETENTION_MS))
    return DelayedTopic(name, cluster_id, str(found["topic_id"]), len(found["partitions"]), retention_ms)


def _settings(admin: AdminClient, topic: str) -> dict[str, str]:
    try:
        described = admin.topic_settings([topic]).get(topic, {})
    except KafkaError as e:
        logger.info("The settings of the topic %r cannot be read; Kafka's defaults are assumed: %r", topic, e)
        return {}
    return {name: value for name, value in described.items() if value is not None}
