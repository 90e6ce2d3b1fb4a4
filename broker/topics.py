"""Which topics a queue has, what they are created with, and what Kafka allows as a name."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Event

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError

from .attempts import SharedAttempts
from .clients import Clients
from .errors import InvalidQueueName, KafkaUnavailable

#: How long looking topics up and creating them may take.
ENSURE_TIMEOUT_S = 15.0
#: How long it may take to find Kafka for a question that can go without an answer.
LOOK_UP_TIMEOUT_S = 2.0
_MAX_MESSAGE_BYTES = "max.message.bytes"
#: Kafka's limit on a topic's name (org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH).
MAX_TOPIC_NAME_LENGTH = 249
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]+")

DEAD_LETTER_SUFFIX = "_dlq"
LANES_SUFFIX = "_lanes"
DELAYED = "delayed"

#: A dead letter holds its message (escaped or base64 when undecodable) and a traceback, so its topic takes
#: records of four times the size that a queue's topic takes by default (Kafka's message.max.bytes, 1,048,588
#: bytes).
MAX_DEAD_LETTER_BYTES = 4 * 1_048_588
DEAD_LETTER_RETENTION_MS = 30 * 24 * 3600 * 1000
#: Tombstones in the delayed topic must outlive the longest absence of a forwarder that remembers its offset.
DELAYED_TOMBSTONE_RETENTION_MS = 24 * 3600 * 1000
#: Kafka compacts whole segments, and never the one it writes to, by default up to 1 GiB and a week old.
DELAYED_SEGMENT_BYTES = 64 * 1024 * 1024
DELAYED_SEGMENT_MS = 3600 * 1000
#: Kafka deletes whole segments, once their last record has been kept for ``retention.ms``. With its default
#: of a week for a segment, done work would outlive by that the offsets that say it is done.
QUEUE_SEGMENT_MS = 24 * 3600 * 1000
#: A message that fits its queue's topic (message.max.bytes, 1,048,588 by default) fits here with its headers.
MAX_DELAYED_BYTES = 1_048_588 + 64 * 1024


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """What a topic that does not exist yet is created with."""

    partitions: int
    replication_factor: int
    retention_ms: int


class Topics:
    """Names the topics of a namespace and creates those that are missing; one that exists is left as it
    is.
    """

    def __init__(self, clients: Clients, layout: TopicLayout, *, namespace: str = "") -> None:
        if namespace and not _TOPIC_NAME.fullmatch(namespace):
            raise ValueError(
                f"namespace {namespace!r}: only letters, digits, '.', '_' and '-' can be in a topic's name"
            )
        self._clients = clients
        self._layout = layout
        self._namespace = namespace
        self._existing: set[str] = set()
        self._attempts = SharedAttempts()

    @property
    def delayed(self) -> str:
        """The one topic that every delayed message of this namespace waits in."""
        return self._namespace + DELAYED

    def queue(self, queue_name: str) -> str:
        return self._namespace + queue_name

    def dead_letters(self, queue_name: str) -> str:
        return self._namespace + queue_name + DEAD_LETTER_SUFFIX

    def lanes(self, queue_name: str) -> str:
        """Where messages of a key wait for those before them; made when the first one does."""
        return self._namespace + queue_name + LANES_SUFFIX

    def check_queue_name(self, queue_name: str, *, beside: Iterable[str] = ()) -> None:
        """Raise InvalidQueueName, naming the rule, when the queue's topics could not be created.

        Parameters:
          beside: The queues that there are already.
        """
        longest = max(self.dead_letters(queue_name), self.lanes(queue_name), key=len)
        if not _TOPIC_NAME.fullmatch(queue_name):
            rule = "only ASCII letters, digits, '.', '_' and '-' may be in it"
        elif len(longest) > MAX_TOPIC_NAME_LENGTH:
            rule = f"{longest!r} has {len(longest)} characters, Kafka allows {MAX_TOPIC_NAME_LENGTH}"
        elif self.queue(queue_name) in {".", ".."}:
            rule = "Kafka refuses '.' and '..'"
        elif queue_name == DELAYED:
            rule = f"the topic {self.delayed!r} holds the delayed messages"
        elif queue_name.endswith(DEAD_LETTER_SUFFIX):
            rule = f"names ending in {DEAD_LETTER_SUFFIX!r} are kept for dead letters"
        elif queue_name.endswith(LANES_SUFFIX):
            rule = f"names ending in {LANES_SUFFIX!r} are kept for messages with a partition_key"
        elif queue_name.endswith((".DQ", ".XQ")):
            rule = "Dramatiq keeps names ending in '.DQ' and '.XQ' for delay and dead-letter queues"
        elif twin := next((other for other in beside if _in_metrics(other) == _in_metrics(queue_name)), None):
            rule = f"in the names of its metrics it is {twin!r}, as '.' and '_' are one there"
        else:
            return
        raise InvalidQueueName(f"Kafka cannot hold a queue named {queue_name!r}: {rule}.")

    def ensure(
        self, topics: Iterable[str], *, deadline_s: float | None = None, unless: Event | None = None
    ) -> None:
        """Create those of ``topics`` that do not exist.

        Parameters:
          deadline_s: Of ``time.monotonic()``; by default ENSURE_TIMEOUT_S from now.
          unless: Once it is set, nothing is waited for.

        Raises:
          KafkaUnavailable: When Kafka does not answer until then, or refuses to create one.
        """
        wanted = set(topics)
        if wanted <= self._existing:
            return
        by_s = time.monotonic() + ENSURE_TIMEOUT_S if deadline_s is None else deadline_s
        self._attempts.run(
            lambda: self._create_missing(wanted - self._existing, by_s), deadline_s=by_s, unless=unless
        )

    def _create_missing(self, topics: set[str], deadline_s: float) -> None:
        if not topics:
            return
        left_s = max(0.1, deadline_s - time.monotonic())
        try:
            with self._clients.admin(within_s=left_s, request_timeout_ms=int(left_s * 1000)) as admin:
                present = {
                    topic["name"]
                    for topic in admin.describe_topics(sorted(topics))
                    if topic.get("error_code", 0) == 0
                }
                for topic in sorted(topics - present):
                    self._create(admin, topic)
        except KafkaError as e:
            raise KafkaUnavailable(
                f"The topics {sorted(topics)} could not be looked up or created: {e!r}"
            ) from e
        self._existing.update(topics)

    def max_message_bytes(self, topic: str) -> int | None:
        """The largest record, or batch of records, that a topic takes; None when Kafka does not say."""
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, {_MAX_MESSAGE_BYTES: None})
        try:
            with self._clients.admin(within_s=LOOK_UP_TIMEOUT_S) as admin:
                found = admin.describe_configs([wanted], config_filter="all")
        except (KafkaError, KafkaUnavailable):
            return None
        setting = found.get("topic", {}).get(topic, {}).get(_MAX_MESSAGE_BYTES)
        return None if setting is None else int(setting["value"])

    def forget(self, topics: Iterable[str]) -> None:
        """Look ``topics`` up again the next time: one of them may have been deleted."""
        self._existing.difference_update(topics)

    def _create(self, admin: object, topic: str) -> None:
        spec = {
            "num_partitions": self._layout.partitions,
            "replication_factor": self._layout.replication_factor,
            "configs": self._configs(topic),
        }
        try:
            admin.create_topics({topic: spec}, wait_for_metadata=True)  # type: ignore[attr-defined]
        except TopicAlreadyExistsError:
            # Another process created it between our look and our request; theirs is respected.
            return

    def _configs(self, topic: str) -> dict[str, str]:
        if topic == self.delayed or topic.endswith(LANES_SUFFIX):
            return {
                "cleanup.policy": "compact",
                "delete.retention.ms": str(DELAYED_TOMBSTONE_RETENTION_MS),
                "segment.bytes": str(DELAYED_SEGMENT_BYTES),
                "segment.ms": str(DELAYED_SEGMENT_MS),
                "max.compaction.lag.ms": str(DELAYED_SEGMENT_MS),
                _MAX_MESSAGE_BYTES: str(MAX_DELAYED_BYTES),
            }
        if topic.endswith(DEAD_LETTER_SUFFIX):
            return {
                "retention.ms": str(DEAD_LETTER_RETENTION_MS),
                _MAX_MESSAGE_BYTES: str(MAX_DEAD_LETTER_BYTES),
            }
        retention_ms = self._layout.retention_ms
        segment_ms = retention_ms if 0 < retention_ms < QUEUE_SEGMENT_MS else QUEUE_SEGMENT_MS
        return {"retention.ms": str(retention_ms), "segment.ms": str(segment_ms)}


def _in_metrics(name: str) -> str:
    """Two topics that are equal here cannot be on one cluster (Topic.unifyCollisionChars in Kafka)."""
    return name.replace(".", "_")
