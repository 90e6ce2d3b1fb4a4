"""The tasks on Celery, acknowledged late, with its other settings in favour of speed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery

from bench.place import Place
from bench.work import TASKS


class CeleryApp:
    """The tasks on one broker.

    Parameters:
      scheme: The scheme of the broker's address.
      transport_options: Celery's setting of that name.
    """

    def __init__(self, scheme: str, *, login: str = "", transport_options: dict[str, Any]) -> None:
        place = Place.from_env()
        self.celery = Celery("bench", broker=f"{scheme}://{login}{place.address}//")
        self.celery.conf.update(
            task_acks_late=True,
            task_ignore_result=True,
            task_default_queue=place.queue,
            broker_transport_options=transport_options,
            worker_enable_remote_control=False,
        )
        self.tasks = {name: self.celery.task(task, name=name) for name, task in TASKS.items()}

    def send(self, task: str, args: tuple[Any, ...]) -> None:
        self.tasks[task].apply_async(args)

    def send_many(self, task: str, many_args: Iterable[tuple[Any, ...]]) -> None:
        with self.celery.producer_pool.acquire(block=True) as producer:
            for args in many_args:
                self.tasks[task].apply_async(args, producer=producer)
