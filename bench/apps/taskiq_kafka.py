"""taskiq on Kafka. Its defaults lose messages when sending (acks=1) and give every worker process every
message (no group), and its client cannot call its default partitioner and assignor. So these are set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.partitioner import DefaultPartitioner
from kafka.admin import NewTopic
from taskiq_aio_kafka import AioKafkaBroker

from bench.place import Place
from bench.work import TASKS

_place = Place.from_env()
_topic = NewTopic(name=f"{_place.queue}-work", num_partitions=_place.partitions, replication_factor=1)
broker = AioKafkaBroker(_place.address, kafka_topic=_topic)
broker.configure_producer(acks="all", enable_idempotence=True, partitioner=DefaultPartitioner())
broker.configure_consumer(
    group_id=_place.queue,
    auto_offset_reset="earliest",
    partition_assignment_strategy=(RoundRobinPartitionAssignor,),
)
_tasks = {name: broker.task(name)(task) for name, task in TASKS.items()}
#: The number of concurrent sends; sends that are awaited one by one would never share a batch.
_MAX_CONCURRENCY = 1_000
#: taskiq's broker belongs to the event loop that started it, and cannot be started twice.
_runner = asyncio.Runner()


def send_many(task: str, many_args: Iterable[tuple[Any, ...]]) -> None:
    _runner.run(_send_many(task, list(many_args)))


async def _send_many(task: str, many_args: list[tuple[Any, ...]]) -> None:
    if not broker._is_producer_started:
        await broker.startup()
    for begin in range(0, len(many_args), _MAX_CONCURRENCY):
        await asyncio.gather(
            *(_tasks[task].kiq(*args) for args in many_args[begin : begin + _MAX_CONCURRENCY])
        )


def close() -> None:
    _runner.run(broker.shutdown())
    _runner.close()
