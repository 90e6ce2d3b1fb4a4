"""Kafka brokers with a namespace of their own, and workers on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dramatiq import Worker

from broker import KafkaBroker
from dev.stack import Stack

#: The embedded broker answers a JoinGroup only after half of it.
SESSION_TIMEOUT_MS = 6_000

MakeBroker = Callable[..., KafkaBroker]
StartWorker = Callable[..., Worker]


@pytest.fixture(scope="module")
def make_broker(
    stack: Stack, new_namespace: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeBroker]:
    """Makes brokers that share nothing unless they are given the same namespace."""
    with ExitStack() as closing:

        def make(**options: Any) -> KafkaBroker:
            namespace = options.pop("namespace", None) or new_namespace()
            index_dir: Path = tmp_path_factory.mktemp("delay-index")
            settings = {
                "bootstrap_servers": stack.bootstrap_servers,
                "namespace": namespace,
                "group_id": f"{namespace}workers",
                "session_timeout_ms": SESSION_TIMEOUT_MS,
                "delay_index_dir": str(index_dir),
                **options,
            }
            broker = KafkaBroker(**settings)
            closing.callback(broker.close)
            return broker

        yield make


@pytest.fixture(scope="module")
def start_worker() -> Iterator[StartWorker]:
    """Starts workers, which are stopped at the end."""
    with ExitStack() as stopping:

        def start(broker: KafkaBroker, **options: Any) -> Worker:
            worker = Worker(broker, **{"worker_timeout": 100, "worker_threads": 4, **options})
            worker.start()
            stopping.callback(stop, worker)
            return worker

        yield start


def stop(worker: Worker) -> None:
    if any(thread.is_alive() for thread in worker.workers):  # unless the test has stopped it
        worker.stop()
