"""Worker processes on one Kafka in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker import KafkaBroker
from broker.testing import Kit

QUEUE = "mail"


@pytest.fixture
def kit() -> Iterator[Kit]:
    """A worker process of a queue with one partition."""
    with Kit(KafkaBroker(partitions=1)).use() as kit:
        yield kit


@pytest.fixture
def operator(kit: Kit) -> Iterator[KafkaBroker]:
    """The broker of another process on the same cluster, which is no worker."""
    with Kit(KafkaBroker(partitions=1), kit.cluster, kit.clock).use() as other:
        other.broker.declare_queue(QUEUE)
        yield other.broker
