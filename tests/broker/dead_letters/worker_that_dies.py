"""A worker whose tasks all fail, and which kills itself with SIGKILL on the way.

    python -m ...worker_that_dies BOOTSTRAP_SERVERS NAMESPACE LEDGER WHEN WHAT

WHEN is ``before``, ``after`` or ``never``. WHAT is ``delayed`` (a retry is published), ``dlq`` (a dead
letter is), ``told`` (on_dead_letter is called) or ``commit`` (an offset is committed after one was told).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dramatiq
import tenacity
from dramatiq import Worker

from broker import DeadLetter, KafkaBroker, TemporaryError, default_middleware
from broker.kafka.consumer_client import Consumer
from broker.produce.publisher import Publisher
from broker.produce.record import Record

POLICY = tenacity.Retrying(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(0.2))
BOOTSTRAP_SERVERS, NAMESPACE, LEDGER, WHEN, WHAT = sys.argv[1:]


def die_if(when: str, what: str) -> None:
    if (when, what) == (WHEN, WHAT):
        os.kill(os.getpid(), signal.SIGKILL)


def told(dead_letter: DeadLetter) -> None:
    assert dead_letter.message is not None
    die_if("before", "told")
    with Path(LEDGER).open("a") as ledger:
        ledger.write(f"{dead_letter.message.message_id}\n")
    die_if("after", "told")


class DeadlyPublisher(Publisher):
    def __init__(self, publisher: Publisher) -> None:
        self._inner = publisher

    def refusals(self, records: Sequence[Record]) -> dict[int, BaseException]:
        return self._inner.refusals(records)

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        kinds = [
            kind for kind in ("delayed", "dlq") if any(record.topic.endswith(kind) for record in records)
        ]
        for kind in kinds:
            die_if("before", kind)
        failures = self._inner.publish(records)
        for kind in kinds:
            die_if("after", kind)
        return failures


class DeadlyConsumer(Consumer):
    def commit_async(self, *args: Any, **options: Any) -> Any:
        if Path(LEDGER).read_text():
            die_if("before", "commit")
        return super().commit_async(*args, **options)


if __name__ == "__main__":
    Path(LEDGER).touch()
    broker = KafkaBroker(
        BOOTSTRAP_SERVERS,
        namespace=NAMESPACE,
        group_id=f"{NAMESPACE}workers",
        session_timeout_ms=6_000,
        delay_index_dir=tempfile.mkdtemp(prefix=f"{NAMESPACE}index-"),
        middleware=default_middleware(retry=POLICY, on_dead_letter=told),
    )
    broker.parts.completer._publisher = DeadlyPublisher(broker.parts.completer._publisher)
    consumer = broker.parts.clients.consumer
    broker.parts.clients.consumer = lambda **settings: _deadly(consumer(**settings))  # type: ignore[method-assign]

    def _deadly(made: Any) -> Any:
        made.__class__ = DeadlyConsumer
        return made

    @dramatiq.actor(broker=broker)
    def task() -> None:
        raise TemporaryError("locked")

    Worker(broker, worker_timeout=100, worker_threads=4).start()
    while True:
        time.sleep(1)
