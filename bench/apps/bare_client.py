"""A producer and a consumer without a broker. `python -m bench.apps.bare_client THREADS`: the consumer.

It runs each task on the thread that polls. Its messages are those of the Dramatiq brokers.
"""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import TopicAlreadyExistsError

from bench import stages
from bench.place import Place
from bench.stages import Stage
from bench.work import TASKS

TIMEOUT_S = 30.0

stages.watch_client()
_place = Place.from_env()
_topic = f"{_place.queue}-work"


def main() -> None:
    _create_topic()
    consumer = KafkaConsumer(bootstrap_servers=_place.address, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(_topic, number) for number in range(_place.partitions)])
    while True:
        for records in consumer.poll(timeout_ms=1_000).values():
            stages.note(Stage.POLLED)
            for record in records:
                message = json.loads(record.value)
                stages.note(Stage.DISPATCHED)
                stages.note(Stage.WOKEN)  # by nobody: it is the same thread
                TASKS[message["actor_name"]](*message["args"])


def send(task: str, args: tuple[Any, ...]) -> None:
    body = {"queue_name": "work", "actor_name": task, "args": args, "kwargs": {}, "options": {}}
    _producer().send(_topic, json.dumps(body).encode()).get(timeout=TIMEOUT_S)


def send_many(task: str, many_args: Any) -> None:
    for args in many_args:
        send(task, args)


def close() -> None:
    _producer().close()


@functools.cache
def _producer() -> KafkaProducer:
    _create_topic()
    return KafkaProducer(bootstrap_servers=_place.address, acks="all", enable_idempotence=True)


def _create_topic() -> None:
    admin = KafkaAdminClient(bootstrap_servers=_place.address)
    with contextlib.suppress(TopicAlreadyExistsError):  # by the other process
        admin.create_topics({_topic: {"num_partitions": _place.partitions, "replication_factor": 1}})
    admin.close()


if __name__ == "__main__":
    main()
