"""Workers and interpreters on topics of their own, as a user starts them; and the actor in this process.

A test of what becomes of a message uses ``kafka_broker``, the worker's broker with its Kafka in memory.
A test that harms nothing shares ``worker`` with the others of this package, and uses ``run_python``,
``kafka`` and ``shared_database``. One that does harm uses ``start_worker`` with ``env``, ``own_kafka`` and
``own_database``: nobody else's relay or worker comes near its tasks.
"""

import gc
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import dramatiq.broker
import pytest
from sqlalchemy import Engine, make_url

from broker import KafkaBroker
from db.engine import make_engine
from dev.postgres import create_database, drop_database
from dev.stack import ROOT, Stack, migrate
from settings import get_settings
from tests.db.rows import load_sample_ads
from tests.emptying import empty
from tests.service import Worker
from tests.tasks.waits import wait_until_all_done


def environment(stack: Stack, namespace: str) -> dict[str, str]:
    """The environment of processes with topics of their own, which are quick to try again."""
    return {
        **stack.env(),
        "KAFKA_NAMESPACE": namespace,
        "KAFKA_GROUP_ID": f"{namespace}group",
        "RETRY_FIRST_WAIT_S": "0.1",
        "RELAY_INTERVAL_S": "0.2",
    }


@pytest.fixture(scope="package")
def _shared_database(stack: Stack) -> Iterator[Engine]:
    with new_database(stack) as engine:
        yield engine


@pytest.fixture
def shared_database(_shared_database: Engine) -> Engine:
    """The shared worker's database with nothing but the ads 1, 2 and 3; identities start at 1.

    It is not ``database``, whose rows the worker's relay would publish while a test looks at them.
    """
    empty(_shared_database)
    load_sample_ads(_shared_database, 3)
    return _shared_database


@pytest.fixture(scope="package")
def shared_env(stack: Stack, _shared_database: Engine, new_namespace: Callable[[], str]) -> dict[str, str]:
    return {**environment(stack, new_namespace()), "DATABASE_URL": url_of(_shared_database)}


@pytest.fixture(scope="package")
def shared_worker(shared_env: dict[str, str], server_home: Callable[[], Path]) -> Iterator[Worker]:
    worker = Worker(server_home(), shared_env, threads=8)
    worker.start()
    yield worker
    worker.child.stop()


@pytest.fixture
def worker(shared_worker: Worker, shared_database: Engine, kafka: KafkaBroker) -> Iterator[Worker]:
    """A running ``dramatiq tasks`` over ``shared_database``, which ends each message before the next test."""
    yield shared_worker
    wait_until_all_done(kafka)


@pytest.fixture
def run_python(shared_env: dict[str, str]) -> Callable[[str], str]:
    """Runs lines of Python in a bare interpreter beside the worker; returns what they print."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=shared_env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def kafka(shared_env: dict[str, str]) -> Iterator[KafkaBroker]:
    """A broker on the worker's topics, to send what a client could and to read the dead letters."""
    with closing(broker_in(shared_env)) as broker:
        yield broker


@pytest.fixture(scope="package")
def tasks(database_url: str) -> Iterator[ModuleType]:
    """The package ``tasks`` as a worker imports it, on the run's database, in this process."""
    with pytest.MonkeyPatch.context() as changed:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tasks"]:
            changed.delitem(sys.modules, name)
        changed.setenv("DATABASE_URL", database_url)
        changed.setenv("RELAY_INTERVAL_S", "3600")  # no relay sends beside the test
        changed.setattr(dramatiq.broker, "global_broker", None)
        get_settings.cache_clear()
        yield importlib.import_module("tasks")
    get_settings.cache_clear()
    gc.unfreeze()  # a worker freezes what it has loaded


@pytest.fixture
def application_broker(tasks: ModuleType) -> KafkaBroker:
    """The broker whose Kafka is in memory for a test with ``kafka_broker``."""
    broker: KafkaBroker = tasks.broker
    return broker


@pytest.fixture
def ads(database: Engine) -> None:
    """Nothing in the database but the ads 1, 2 and 3."""
    load_sample_ads(database, 3)


@pytest.fixture
def own_database(stack: Stack) -> Iterator[Engine]:
    """A database of the test's own, with the ads 1, 2 and 3."""
    with new_database(stack) as engine:
        load_sample_ads(engine, 3)
        yield engine


@pytest.fixture
def env(stack: Stack, namespace: str, own_database: Engine) -> dict[str, str]:
    """The environment of a test that starts processes of its own."""
    return {**environment(stack, namespace), "DATABASE_URL": url_of(own_database)}


@pytest.fixture
def start_worker(server_home: Callable[[], Path], env: dict[str, str]) -> Iterator[Callable[..., Worker]]:
    """Starts ``dramatiq tasks`` on the test's own database and topics; kills what still runs at the end."""
    workers = []

    def start(*, processes: int = 1, **changed: str) -> Worker:
        worker = Worker(server_home(), {**env, **changed}, processes=processes)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.child.kill()


@pytest.fixture
def own_kafka(env: dict[str, str]) -> Iterator[KafkaBroker]:
    """A broker on the topics of a test that starts processes of its own."""
    with closing(broker_in(env)) as broker:
        yield broker


@contextmanager
def new_database(stack: Stack) -> Iterator[Engine]:
    """A migrated database beside the run's, for the time of the block."""
    name = f"moderation_{uuid4().hex[:8]}"
    create_database(stack.database_url, name)
    url = make_url(stack.database_url).set(database=name).render_as_string(hide_password=False)
    migrate(url)
    engine = make_engine(url)
    yield engine
    engine.dispose()
    drop_database(stack.database_url, name)


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def broker_in(env: dict[str, str], *, group_id: str = "") -> KafkaBroker:
    broker = KafkaBroker(
        env["KAFKA_BOOTSTRAP_SERVERS"],
        namespace=env["KAFKA_NAMESPACE"],
        group_id=group_id or env["KAFKA_GROUP_ID"],
    )
    broker.declare_queue("moderation")
    return broker
