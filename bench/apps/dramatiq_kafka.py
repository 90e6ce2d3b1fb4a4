"""This broker, with its defaults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.apps.dramatiq_tasks import DramatiqApp
from bench.place import Place
from broker import KafkaBroker

_place = Place.from_env()
broker = KafkaBroker(
    _place.address, namespace=f"{_place.queue}-", group_id=_place.queue, partitions=_place.partitions
)
_app = DramatiqApp(broker, queue_name="work")
send, send_delayed, close = _app.send, _app.send_delayed, _app.close


def send_many(task: str, many_args: Iterable[tuple[Any, ...]]) -> None:
    actor = _app.actors[task]
    broker.enqueue_many(actor.message(*args) for args in many_args)
