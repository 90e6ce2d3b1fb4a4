"""Faults that the state machine has found, each as the few steps that show it."""

from __future__ import annotations

import dramatiq

from broker import KafkaBroker
from broker.kafka.types import TopicPartition
from broker.testing import Kit

QUEUE = "work"


def declare(broker: KafkaBroker) -> dramatiq.Actor[[], None]:
    @dramatiq.actor(broker=broker, queue_name=QUEUE)
    def task() -> None: ...

    return task


def test_nothing_is_left_when_records_of_a_new_leader_were_flushed_before_the_next_worker_read_them(
    worker: Kit, other_process: Kit
) -> None:
    declare(worker.broker).send()
    worker.drain()
    worker.cluster.elect(TopicPartition(QUEUE, 0))
    worker.worker.kill()
    task = declare(other_process.broker)
    task.send()
    other_process.broker.flush(QUEUE)
    worker.drain()
    assert other_process.broker.count(QUEUE) == 0
