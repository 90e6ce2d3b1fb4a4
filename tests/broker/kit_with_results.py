"""A worker process on a Kafka in memory, with results."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from broker import KafkaBroker, default_middleware
from broker.testing import Kit

QUEUE = "mail"


@pytest.fixture
def results() -> StubBackend:
    return StubBackend()


@pytest.fixture
def kit(results: StubBackend) -> Iterator[Kit]:
    """A worker process of a queue with one partition."""
    broker = KafkaBroker(partitions=1, middleware=[*default_middleware(), Results(backend=results)])
    with Kit(broker).use() as kit:
        yield kit
