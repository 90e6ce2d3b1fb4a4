"""Tasks that can be aborted, as dramatiq-abort's documentation has them."""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq_abort import Abort, Abortable, backends

from broker import KafkaBroker
from tests.ecosystem.journal import note

broker = KafkaBroker(url=os.environ["KAFKA_URL"])
broker.add_middleware(Abortable(backend=backends.RedisBackend.from_url(os.environ["REDIS_URL"])))
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=0)
def long_task(name: str) -> None:
    note("began", name=name)
    try:
        while True:
            time.sleep(0.01)
    except Abort:
        note("aborted", name=name)
        raise


@dramatiq.actor
def short_task(name: str) -> None:
    note("done", name=name)
