"""A stub broker with this package's middleware, and a worker on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker

from broker import default_middleware

StartStubWorker = Callable[[], Worker]


@pytest.fixture
def stub_broker() -> Iterator[StubBroker]:
    broker = StubBroker(middleware=default_middleware(), fail_fast_default=False)
    yield broker
    broker.close()


@pytest.fixture
def start_stub_worker(stub_broker: StubBroker) -> Iterator[StartStubWorker]:
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(stub_broker, worker_timeout=50, worker_threads=2))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()
