"""The broker of an application, with the middleware that Dramatiq has beside its default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq.broker
import pytest
from dramatiq.middleware import AsyncIO, CurrentMessage
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from broker import KafkaBroker, default_middleware

#: A list to which tasks append.
Runs = list[Any]


@pytest.fixture
def application_broker(monkeypatch: pytest.MonkeyPatch) -> KafkaBroker:
    middleware = [*default_middleware(), CurrentMessage(), AsyncIO(), Results(backend=StubBackend())]
    broker = KafkaBroker(middleware=middleware)
    monkeypatch.setattr(dramatiq.broker, "global_broker", broker)
    return broker


@pytest.fixture
def runs() -> Runs:
    return []


@pytest.fixture
def failing(kafka_broker: KafkaBroker) -> Callable[..., dramatiq.Actor[..., Any]]:
    """Declares an actor ``fail`` that raises an error."""

    def declare(error: BaseException, **options: Any) -> dramatiq.Actor[..., Any]:
        def fail() -> None:
            raise error

        return dramatiq.actor(**options)(fail)

    return declare


@pytest.fixture(autouse=True)
def _kafka_in_memory(kafka_broker: KafkaBroker) -> None:
    """Every test of this package has its Kafka in memory."""
