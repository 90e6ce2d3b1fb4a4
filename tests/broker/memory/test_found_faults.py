"""Faults that the state machine has found, each as the few steps that show it."""

from __future__ import annotations

from collections.abc import Iterator

import dramatiq
import pytest

from broker import KafkaBroker
from broker.kafka.types import TopicPartition
from broker.testing import Kit

QUEUE = "work"


def declare(broker: KafkaBroker) -> dramatiq.Actor[[], None]:
    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def task() -> None: ...

    return task


@pytest.fixture
def worker() -> Iterator[Kit]:
    with Kit(KafkaBroker(partitions=1)).use() as kit:
        yield kit


@pytest.fixture
def sender(worker: Kit) -> Iterator[Kit]:
    """Another process on the same cluster."""
    with Kit(KafkaBroker(partitions=1), worker.cluster, worker.clock).use() as kit:
        yield kit


def test_nothing_is_left_when_records_of_a_new_leader_were_flushed_before_the_next_worker_read_them(
    worker: Kit, sender: Kit
) -> None:
    declare(worker.broker).send()
    worker.drain()
    worker.cluster.elect(TopicPartition(QUEUE, 0))
    worker.worker.kill()
    task = declare(sender.broker)
    task.send()
    sender.broker.flush(QUEUE)
    worker.drain()
    assert sender.broker.count(QUEUE) == 0
