"""A hand-written loop without a broker: poll, decode, call. `python -m bench.apps.plain_loop 1`.

It sends the messages of the Dramatiq brokers, so that the bytes are the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from bench.place import Place
from bench.work import TASKS

_place = Place.from_env()
_topic = f"{_place.queue}-work"


def main() -> None:
    consumer = KafkaConsumer(
        _topic, bootstrap_servers=_place.address, group_id=_place.queue, auto_offset_reset="earliest"
    )
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
    main()
