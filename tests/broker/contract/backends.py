"""What the contract suite needs to know of each broker: how one is made, and where its dead letters are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from dramatiq import Broker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware

from broker import KafkaBroker, default_middleware

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
        return [letter.message.message_id for letter in broker.dead_letters(queue_name) if letter.message]


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
