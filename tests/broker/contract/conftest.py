"""A broker of each kind, and workers on it.

What tests share ends with this package: the clock of the memory would be that of all later tests, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from dramatiq import Broker, Worker
from dramatiq.middleware import CurrentMessage, Middleware

from dev.stack import Stack
from tests.broker.contract.backends import Backend, KafkaBackend, MemoryBackend, StubBackend

#: How long a worker waits for work before it looks whether it is to stop.
WORKER_TIMEOUT_MS = 100
WORKER_THREADS = 4

MakeBroker = Callable[..., Broker]
StartWorker = Callable[..., Worker]


ON_KAFKA = pytest.param("kafka", marks=pytest.mark.servers)


@pytest.fixture(scope="package", params=["memory", ON_KAFKA, "stub"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The kind of broker that a test runs on. The stub shows that the suite tests a *Dramatiq* broker."""
    if request.param == "stub":
        return StubBackend()
    return request.getfixturevalue(FIXTURES[request.param])


@pytest.fixture(scope="package", params=["memory", ON_KAFKA])
def kafka_backend(request: pytest.FixtureRequest) -> KafkaBackend:
    """This broker, on each kind of Kafka."""
    return request.getfixturevalue(FIXTURES[request.param])


FIXTURES = {"memory": "memory_backend", "kafka": "server_backend"}


@pytest.fixture(scope="package")
def memory_backend(new_namespace: Callable[[], str]) -> MemoryBackend:
    return MemoryBackend(new_namespace=new_namespace)


@pytest.fixture(scope="package")
def server_backend(
    stack: Stack, new_namespace: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> KafkaBackend:
    return KafkaBackend(
        stack.bootstrap_servers,
        new_namespace=new_namespace,
        delay_index_dir=tmp_path_factory.mktemp("delay-index"),
    )


@pytest.fixture
def make_broker(backend: Backend) -> Iterator[MakeBroker]:
    """Makes brokers that share nothing, with further middleware if wanted."""
    brokers: list[Broker] = []

    def make(*extra_middleware: Middleware) -> Broker:
        brokers.append(backend.broker(*extra_middleware))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(make_broker: MakeBroker) -> Broker:
    """A broker of the test's own that nothing runs on yet."""
    return make_broker()


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """Starts workers, which are stopped at the end."""
    workers: list[Worker] = []

    def start(broker: Broker, **options: object) -> Worker:
        settings = {"worker_timeout": WORKER_TIMEOUT_MS, "worker_threads": WORKER_THREADS, **options}
        workers.append(Worker(broker, **settings))  # type: ignore[arg-type]
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture(scope="package")
def working_broker(backend: Backend) -> Iterator[Broker]:
    """A broker with one worker on its queue "default", shared: joining a group takes seconds on one stack."""
    broker = backend.broker(CurrentMessage())
    broker.declare_queue("default")
    worker = Worker(broker, worker_timeout=WORKER_TIMEOUT_MS, worker_threads=WORKER_THREADS)
    worker.start()
    yield broker
    worker.stop()
    broker.close()


@pytest.fixture(scope="package")
def _actor_numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def actor_name(_actor_numbers: Iterator[int]) -> str:
    """A name that no other test has declared on the shared broker."""
    return f"task_{next(_actor_numbers)}"
