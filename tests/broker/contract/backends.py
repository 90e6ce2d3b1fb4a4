"""What the contract suite needs to know of each broker: how one is made, and where its dead letters are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from dramatiq import Broker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from broker import KafkaBroker, default_middleware
from broker.testing import MemoryCluster
from broker.testing.memory import MemoryClients

#: The embedded broker answers a JoinGroup only after half of the session timeout.
SESSION_TIMEOUT_MS = 6_000


class Backend(Protocol):
    """One kind of broker.

    Attributes:
      name: For the tests' ids.
    """

    name: str

    def broker(self, *extra_middleware: Middleware) -> Broker:
        """A broker of its own, with the default middleware and then ``extra_middleware``."""

    def dead_letter_ids(self, broker: Broker, queue_name: str) -> Sequence[str]:
        """The message ids of a queue's dead letters."""


class KafkaBackend:
    name = "kafka"

    def __init__(
        self, bootstrap_servers: str, *, new_namespace: Callable[[], str], delay_index_dir: Path
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._new_namespace = new_namespace
        self._delay_index_dir = delay_index_dir

    def broker(self, *extra_middleware: Middleware, **settings: Any) -> KafkaBroker:
        defaults: dict[str, Any] = {
            "bootstrap_servers": self._bootstrap_servers,
            "namespace": self._new_namespace(),
            "middleware": [*default_middleware(), *extra_middleware],
            "session_timeout_ms": SESSION_TIMEOUT_MS,
            "delay_index_dir": str(self._delay_index_dir),
        }
        return KafkaBroker(**(defaults | settings))

    def dead_letter_ids(self, broker: Broker, queue_name: str) -> list[str]:
        assert isinstance(broker, KafkaBroker)
        return [
            dead_letter.message.message_id
            for dead_letter in broker.dead_letters(queue_name)
            if dead_letter.message
        ]

    def set_cleanup_policy(self, topic: str, policy: str) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap_servers)
        try:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": policy})])
        finally:
            admin.close()


class BrokerInMemory(KafkaBroker):
    """A broker on a Kafka in memory that goes by the system's clock, beside any other test of the process."""

    def __init__(self, cluster: MemoryCluster, **settings: Any) -> None:
        super().__init__(**settings)
        self._reassemble(MemoryClients(cluster), delay_index_dir=":memory:")


class MemoryBackend(KafkaBackend):
    """The same broker on a Kafka in memory: what passes here and not on Kafka is a fault of the memory."""

    name = "memory"

    def __init__(self, *, new_namespace: Callable[[], str]) -> None:
        self._new_namespace = new_namespace
        self._cluster = MemoryCluster()

    def broker(self, *extra_middleware: Middleware, **settings: Any) -> KafkaBroker:
        defaults: dict[str, Any] = {
            "namespace": self._new_namespace(),
            "middleware": [*default_middleware(), *extra_middleware],
        }
        return BrokerInMemory(self._cluster, **(defaults | settings))

    def set_cleanup_policy(self, topic: str, policy: str) -> None:
        self._cluster.configure(topic, cleanup_policy=policy)


class StubBackend:
    """Dramatiq's own broker for tests: what it does not pass is no test of a Dramatiq broker."""

    name = "stub"

    def broker(self, *extra_middleware: Middleware) -> StubBroker:
        broker = StubBroker(fail_fast_default=False)
        for middleware in extra_middleware:
            broker.add_middleware(middleware)
        return broker

    def dead_letter_ids(self, broker: Broker, queue_name: str) -> list[str]:
        assert isinstance(broker, StubBroker)
        return [message.message_id for message in broker.dead_letters_by_queue[queue_name]]
