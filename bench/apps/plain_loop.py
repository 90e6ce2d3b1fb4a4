"""A loop without a broker: poll, decode, call. `python -m bench.apps.plain_loop NUMBER PROCESSES`.

It sends the messages of the Dramatiq brokers, so that the bytes are the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from bench.place import Place
from bench.work import TASKS

_place = Place.from_env()
_topic = f"{_place.queue}-work"


def main(number: int, processes: int) -> None:
    """Run the tasks of every partition of this process.

    The partitions are divided here. A process that joins a group first gets all of them, and its first task
    waits for the other processes, which wait for its next poll.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=_place.address, group_id=_place.queue, auto_offset_reset="earliest"
    )
    consumer.assign([TopicPartition(_topic, p) for p in range(number, _place.partitions, processes)])
    for record in consumer:
        message = json.loads(record.value)
        TASKS[message["actor_name"]](*message["args"])


def send_many(task: str, many_args: Iterable[tuple[Any, ...]]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=_place.address)
    if _topic not in admin.list_topics():
        admin.create_topics({_topic: {"num_partitions": _place.partitions, "replication_factor": 1}})
    admin.close()
    producer = KafkaProducer(bootstrap_servers=_place.address)
    for number, args in enumerate(many_args):
        body = {"queue_name": "work", "actor_name": task, "args": args, "kwargs": {}, "options": {}}
        producer.send(_topic, json.dumps(body).encode(), partition=number % _place.partitions)
    producer.flush()
    producer.close()


def close() -> None:
    """Do nothing: `send_many` has closed its producer."""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
