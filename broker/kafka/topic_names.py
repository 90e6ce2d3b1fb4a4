"""The names of a namespace's topics and consumer groups."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..errors import InvalidQueueName

#: Kafka's limit on a topic's name (org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH).
MAX_TOPIC_NAME_LENGTH = 249
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]+")

DEAD_LETTER_SUFFIX = "_dlq"
LANES_SUFFIX = "_lanes"
DELAYED = "delayed"
#: The prefix of the topics that a namespace has beside those of its queues. None of them ends in a suffix of
#: a queue's topics, so that a queue may be named "dramatiq".
RESERVED_PREFIX = "dramatiq_"
WORKERS = f"{RESERVED_PREFIX}workers"
HISTORY = f"{RESERVED_PREFIX}history"
CONTROL = f"{RESERVED_PREFIX}control"
SCHEDULES = f"{RESERVED_PREFIX}schedules"


class TopicNames:
    """Names the topics of a namespace.

    Raises:
      ValueError: When Kafka allows no topic with that namespace.
    """

    def __init__(self, namespace: str = "") -> None:
        if namespace and not _TOPIC_NAME.fullmatch(namespace):
            raise ValueError(
                f"namespace {namespace!r}: only letters, digits, '.', '_' and '-' can be in a topic's name"
            )
        self._namespace = namespace

    @property
    def delayed(self) -> str:
        """The topic of all delayed messages of this namespace."""
        return self._namespace + DELAYED

    @property
    def workers(self) -> str:
        """The topic of the workers' reports; created by the first worker."""
        return self._namespace + WORKERS

    @property
    def history(self) -> str:
        """The topic of the history of all runs; created by the first worker."""
        return self._namespace + HISTORY

    @property
    def control(self) -> str:
        """The topic of the operators' commands; created with the first of them."""
        return self._namespace + CONTROL

    @property
    def schedules(self) -> str:
        """The topic of the schedules; created with the first of them."""
        return self._namespace + SCHEDULES

    def of_namespace(self) -> tuple[str, ...]:
        """The topics that all queues share."""
        return self.delayed, self.workers, self.history, self.control, self.schedules

    def queue(self, queue_name: str) -> str:
        return self._namespace + queue_name

    def dead_letters(self, queue_name: str) -> str:
        return self._namespace + queue_name + DEAD_LETTER_SUFFIX

    def lanes(self, queue_name: str) -> str:
        """The topic in which messages of a key wait for earlier ones; created with the first such message."""
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
        elif queue_name.startswith(RESERVED_PREFIX):
            rule = f"names beginning with {RESERVED_PREFIX!r} are kept for topics of the broker"
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

    def of_worker(self, queue_name: str) -> list[str]:
        """The topics that a worker of a queue needs."""
        return [self.queue(queue_name), self.dead_letters(queue_name), self.delayed]

    def queues_among(self, topics: Iterable[str], *, declared: Collection[str] = ()) -> list[str]:
        """The queues to which some of ``topics`` belong, by name.

        Without a namespace, an application's own topics have no mark: a topic counts as a queue's when the
        queue is declared, or when its dead-letter or lanes topic exists, too.
        """
        topics = set(topics)
        found = set()
        for topic in topics:
            name = topic.removeprefix(self._namespace)
            if not topic.startswith(self._namespace) or not self._may_be_queue(name):
                continue
            beside = {self.dead_letters(name), self.lanes(name)}
            if self._namespace or name in declared or not topics.isdisjoint(beside):
                found.add(name)
        return sorted(found)

    def _may_be_queue(self, name: str) -> bool:
        try:
            self.check_queue_name(name)
        except InvalidQueueName:
            return False
        return True

    def group(self, group_id: str, queue_name: str) -> str:
        """The consumer group of a queue."""
        return f"{group_id}.{self.queue(queue_name)}"


def _in_metrics(name: str) -> str:
    """Two topics that are equal here cannot be on one cluster (Topic.unifyCollisionChars in Kafka)."""
    return name.replace(".", "_")
