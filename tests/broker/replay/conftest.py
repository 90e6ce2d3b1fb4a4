"""A worker process on a Kafka in memory, and an operator's process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from broker import KafkaBroker
from broker.testing import Kit

QUEUE = "mail"


@pytest.fixture
def kit() -> Iterator[Kit]:
    """A worker process of a queue with two partitions."""
    with Kit(KafkaBroker(partitions=2)).use() as kit:
        yield kit


@pytest.fixture
def operator(kit: Kit) -> Iterator[KafkaBroker]:
    """The broker of another process on the same cluster, which is no worker and knows no actor."""
    with Kit(KafkaBroker(partitions=2), kit.cluster, kit.clock).use() as other:
        other.broker.declare_queue(QUEUE)
        yield other.broker


@pytest.fixture
def runs() -> list[Any]:
    """The arguments of the runs, in order."""
    return []


@pytest.fixture
def task(kit: Kit, runs: list[Any]) -> dramatiq.Actor[..., Any]:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def note(number: int) -> None:
        runs.append(number)

    return note
