"""The stack that the tests run on, and the servers they may harm."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg2
import pytest
from hypothesis import settings
from sqlalchemy import Engine, make_url

from db.engine import make_engine
from dev.apache_kafka import ApacheKafkaCluster, ApacheKafkaServer, fetch_apache_kafka
from dev.embedded_kafka import EmbeddedKafkaServer
from dev.kafka_protocol import cluster_answers, delete_topics_of
from dev.ports import free_port
from dev.postgres import FOR_TESTS, PostgresServer, create_database, drop_database
from dev.server import Server
from dev.stack import ROOT, Stack, embedded_postgres, migrate, system_postgres
from tests.emptying import empty
from tests.examples import FAST, FULL
from tests.pgbouncer import PgBouncer

#: The fixtures of the test kit, which a wheel registers by its entry point.
pytest_plugins = ["broker.testing.plugin"]

KAFKA_JARS = Path(os.environ.get("DEV_DIR", ROOT / ".dev"))
SERVER_VARIABLES = ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")
RUN_ID = uuid.uuid4().hex[:8]

_given: dict[str, str] = {}


class MeasuredStack(Stack):
    """Under `make coverage`, the processes of the product are measured as well."""

    def env(self) -> dict[str, str]:
        passed_on = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        return {**passed_on, **super().env()}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=("embedded", "real"),
        default="embedded",
        help="embedded: PostgreSQL and Kafka's protocol out of wheels. real: Apache Kafka and this "
        "machine's PostgreSQL, or what KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL name (there in a database "
        "made for this run).",
    )
    parser.addoption(
        "--full-size",
        action="store_true",
        help="the tests that show how a cost grows, or how long something lasts, at full size: minutes each",
    )
    parser.addoption(
        "--package-index",
        action="store_true",
        help="also the tests that build the wheel and install it with its dependencies",
    )
    parser.addoption(
        "--without-servers", action="store_true", help="only the tests that need neither Kafka nor PostgreSQL"
    )
    parser.addoption(
        "--only-with-servers", action="store_true", help="only the tests that need Kafka or PostgreSQL"
    )
    parser.addoption(
        "--beyond-fast",
        action="store_true",
        help="only the tests that `--without-servers --fast` leaves out: with a server, or marked as slow",
    )
    parser.addoption(
        "--machine-examples",
        type=int,
        help="how many orders of events tests/broker/memory tries, each of up to 40 steps",
    )
    parser.addoption(
        "--browser", action="store_true", help="only the tests of the web console in the system's Chromium"
    )
    parser.addoption(
        "--fast",
        action="store_true",
        help="few examples of each property, and none of the tests that are marked as slow",
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(FAST if config.getoption("--fast") else FULL)
    # As Ctrl-C does: servers are stopped and their directories removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What the environment names is used only when asked for, and never by accident.
    for variable in SERVER_VARIABLES:
        if value := os.environ.pop(variable, None):
            _given[variable] = value
    if config.getoption("--stack") == "embedded":
        _given.clear()


def pytest_report_header(config: pytest.Config) -> str:
    given = f", given: {', '.join(_given)}" if _given else ""
    return f"stack: {config.getoption('--stack')}{given}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if changing := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"names that differ from process to process, give ids: {', '.join(changing)}")
    is_of_browser = config.getoption("--browser")
    _deselect(config, items, lambda item: (item.get_closest_marker("browser") is not None) != is_of_browser)
    if config.getoption("--without-servers"):
        _deselect(config, items, _needs_servers)
    if config.getoption("--only-with-servers"):
        _deselect(config, items, lambda item: not _needs_servers(item))
    if config.getoption("--fast"):
        _deselect(config, items, _is_slow)
    if config.getoption("--beyond-fast"):
        _deselect(config, items, lambda item: not (_needs_servers(item) or _is_slow(item)))
    if config.getoption("--stack") == "real":
        return
    for item in items:
        marker = item.get_closest_marker("real_kafka")
        if marker is not None and not _is_in_memory(item):
            reason = marker.kwargs.get("reason") or "".join(marker.args)
            item.add_marker(
                pytest.mark.skip(reason=f"the embedded Kafka cannot: {reason}; run with --stack=real")
            )


def _deselect(
    config: pytest.Config, items: list[pytest.Item], unwanted: Callable[[pytest.Item], bool]
) -> None:
    dropped = [item for item in items if unwanted(item)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in set(dropped)]


def _is_in_memory(item: pytest.Item) -> bool:
    """Whether the test's Kafka is in memory, by the parameter of its fixture: that one can do all of it."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "memory" in callspec.params.values()


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def _needs_servers(item: pytest.Item) -> bool:
    """Every server is started in a directory from `server_home`; a test that hides that is marked."""
    return (
        "server_home" in getattr(item, "fixturenames", ()) or item.get_closest_marker("servers") is not None
    )


@pytest.fixture(scope="session")
def server_home(request: pytest.FixtureRequest) -> Iterator[Callable[[], Path]]:
    """Makes a directory for one server, removed after the run.

    Not pytest's own: those are closed to the account that PostgreSQL runs as when we are root.
    """
    if request.config.getoption("--without-servers"):
        pytest.fail("this test starts a server, and pytest could not know: mark it with `servers`")
    with ExitStack() as homes:

        def make() -> Path:
            home = Path(tempfile.mkdtemp(prefix="moderation-test-"))
            home.chmod(0o755)
            homes.callback(shutil.rmtree, home, ignore_errors=True)  # a server's is gone with the server
            return home

        yield make


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest, server_home: Callable[[], Path]) -> Iterator[str]:
    """The URL of a database of our own, on the PostgreSQL of this run, with the migrations applied."""
    database = f"moderation_test_{RUN_ID}"
    with ExitStack() as servers:
        if given_url := _given.get("DATABASE_URL"):
            try:
                create_database(given_url, database)
            except psycopg2.Error as error:
                pytest.exit(
                    f"DATABASE_URL names a server that a database cannot be made on: {error}", returncode=2
                )
            servers.callback(drop_database, given_url, database)
            url = make_url(given_url).set(database=database).render_as_string(hide_password=False)
        else:
            postgres = _new_postgres(request.config.getoption("--stack"), server_home())
            _run(postgres, servers)
            url = postgres.ensure_database(database)
        migrate(url)
        yield url


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, server_home: Callable[[], Path], database_url: str
) -> Iterator[Stack]:
    """The servers of this run: the database, and a Kafka."""
    name = request.config.getoption("--stack")
    with ExitStack() as servers:
        if bootstrap_servers := _given.get("KAFKA_BOOTSTRAP_SERVERS", ""):
            if not cluster_answers(bootstrap_servers):
                pytest.exit(
                    f"KAFKA_BOOTSTRAP_SERVERS names {bootstrap_servers}, where no Kafka answers", returncode=2
                )
            servers.callback(delete_topics_of, bootstrap_servers, f"t{RUN_ID}-")
        else:
            kafka = _new_kafka(name, server_home())
            _run(kafka, servers)
            bootstrap_servers = kafka.address
        yield MeasuredStack(name, bootstrap_servers, database_url)


@pytest.fixture(scope="session")
def new_namespace() -> Callable[[], str]:
    """Makes prefixes for topics, and for consumer groups, that nobody else has."""
    numbers = itertools.count(1)
    return lambda: f"t{RUN_ID}-{next(numbers)}-"


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """A prefix for topics, and for consumer groups, that no other test has."""
    return new_namespace()


@pytest.fixture(scope="session")
def _engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def database(_engine: Engine) -> Engine:
    """The run's database without a row in it; identities start at 1. It starts no Kafka."""
    empty(_engine)
    return _engine


@pytest.fixture(scope="module")
def _harmed_kafka(request: pytest.FixtureRequest, server_home: Callable[[], Path]) -> Iterator[Server]:
    with ExitStack() as servers:
        yield _run(_new_kafka(request.config.getoption("--stack"), server_home()), servers)


@pytest.fixture
def kafka_server(_harmed_kafka: Server) -> Server:
    """A Kafka of the test module's own, for harm: kill, stop, start, pause, resume. On the embedded stack a
    restart empties it.
    """
    _harmed_kafka.resume()
    if not _harmed_kafka.is_running:
        _harmed_kafka.start()
    return _harmed_kafka


@pytest.fixture
def apache_kafka(server_home: Callable[[], Path]) -> Iterator[Callable[..., ApacheKafkaServer]]:
    """Starts Apache Kafkas with further listeners and properties, see `ApacheKafkaServer`."""
    with ExitStack() as servers:

        def start(
            listeners: Mapping[str, str] | None = None,
            properties: Mapping[str, str] | None = None,
            *,
            port: int | None = None,
        ) -> ApacheKafkaServer:
            libs = fetch_apache_kafka(KAFKA_JARS)
            server = ApacheKafkaServer(
                server_home(), libs=libs, port=port or free_port(), listeners=listeners, properties=properties
            )
            _run(server, servers)
            return server

        yield start


@pytest.fixture(scope="session")
def _harmed_cluster(server_home: Callable[[], Path]) -> Iterator[ApacheKafkaCluster]:
    with ExitStack() as homes:
        cluster = ApacheKafkaCluster(server_home, libs=fetch_apache_kafka(KAFKA_JARS))
        for server in cluster.nodes.values():
            homes.callback(shutil.rmtree, server.home, ignore_errors=True)
        homes.callback(cluster.kill)
        cluster.start()
        yield cluster


@pytest.fixture
def kafka_cluster(_harmed_cluster: ApacheKafkaCluster) -> ApacheKafkaCluster:
    """Three Apache Kafkas for harm, which tests share; all of them run when a test begins."""
    _harmed_cluster.start()
    return _harmed_cluster


@pytest.fixture
def postgres_server(
    request: pytest.FixtureRequest, server_home: Callable[[], Path]
) -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own, for harm; ``postgres_server.url("moderation")`` is migrated."""
    with ExitStack() as servers:
        server = _new_postgres(request.config.getoption("--stack"), server_home())
        _run(server, servers)
        migrate(server.ensure_database("moderation"))
        yield server


@pytest.fixture
def pgbouncer(server_home: Callable[[], Path], database_url: str) -> Iterator[Callable[..., PgBouncer]]:
    """Starts PgBouncers in front of the run's database, see `PgBouncer`."""
    with ExitStack() as servers:

        def start(pool_mode: str, **settings: str) -> PgBouncer:
            server = PgBouncer(
                server_home(), port=free_port(), database_url=database_url, pool_mode=pool_mode, **settings
            )
            _run(server, servers)
            return server

        yield start


def _new_postgres(stack_name: str, home: Path) -> PostgresServer:
    make = system_postgres if stack_name == "real" else embedded_postgres
    return make(home / "postgres", port=free_port(), options=FOR_TESTS)


def _new_kafka(stack_name: str, home: Path) -> Server:
    if stack_name == "real":
        return ApacheKafkaServer(home, libs=fetch_apache_kafka(KAFKA_JARS), port=free_port())
    return EmbeddedKafkaServer(home, port=free_port())


def _run(server: Server, servers: ExitStack) -> Server:
    servers.callback(shutil.rmtree, server.home, ignore_errors=True)
    servers.callback(server.kill)
    server.start()
    return server
