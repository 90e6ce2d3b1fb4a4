"""This broker, with its defaults."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any

from bench import stages
from bench.apps.dramatiq_tasks import DramatiqApp
from bench.apps.observing import observers
from bench.place import Place
from broker import KafkaBroker, default_middleware

_place = Place.from_env()
stages.watch_client()
stages.watch_worker()
broker = KafkaBroker(
    _place.address,
    namespace=f"{_place.queue}-",
    group_id=_place.queue,
    partitions=_place.partitions,
    reports=bool(_place.reports),
    middleware=[*observers(_place.observed), *default_middleware()],
)
_queues = ["work", *(f"work-{number}" for number in range(2, _place.queues + 1))]
_app = DramatiqApp(broker, queue_name=_queues[0])
send, send_delayed, send_due, close = _app.send, _app.send_delayed, _app.send_due, _app.close
for _queue in _queues:
    broker.declare_queue(_queue)


def send_many(task: str, many_args: Iterable[tuple[Any, ...]]) -> None:
    actor = _app.actors[task]
    broker.enqueue_many(
        actor.message(*args) if queue == actor.queue_name else actor.message(*args).copy(queue_name=queue)
        for args, queue in zip(many_args, cycle(_queues), strict=False)
    )
