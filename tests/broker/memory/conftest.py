"""Two processes on one Kafka in memory, and no log: thousands of steps log tens of thousands of lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from broker import KafkaBroker
from broker.testing import Kit


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def worker() -> Iterator[Kit]:
    with Kit(KafkaBroker(partitions=1)).use() as kit:
        yield kit


@pytest.fixture
def other_process(worker: Kit) -> Iterator[Kit]:
    """Another process on the same cluster."""
    with Kit(KafkaBroker(partitions=1), worker.cluster, worker.clock).use() as kit:
        yield kit
