"""The site of one measurement: its database, its topics and its processes."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import Engine, text

from bench.servers import Servers, cpu_s_of
from broker import KafkaBroker
from broker.produce.record import Record
from db import items
from db.engine import make_engine, transaction
from db.outbox import Unpublished
from dev.child import Child
from dev.kafka_protocol import delete_topics_of
from dev.ports import free_port
from dev.postgres import PostgresServer, create_database, drop_database
from dev.stack import ROOT, migrate
from dev.waiting import wait_until
from settings import Settings
from submissions.database import Database
from submissions.keys import ApiKeys
from submissions.message import QUEUE, message_of
from training.sample_ads import sample_ads

ADS = 1_000
START_TIMEOUT_S = 60.0
STALL_TIMEOUT_S = 60.0
POLL_S = 0.2

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cost:
    """The use so far: statements that PostgreSQL executed, bytes that PostgreSQL and Kafka wrote."""

    statements: float
    wal_bytes: float
    kafka_bytes: float

    def since(self, before: Cost, count: int) -> Cost:
        """The cost of each of ``count`` tasks."""
        return Cost(
            (self.statements - before.statements) / count,
            (self.wal_bytes - before.wal_bytes) / count,
            (self.kafka_bytes - before.kafka_bytes) / count,
        )


class Site:
    """A database with ads, and topics. :func:`site` creates it."""

    def __init__(self, servers: Servers, home: Path, engine: Engine, env: dict[str, str]) -> None:
        self.home = home
        self.engine = engine
        self.env = env
        self._servers = servers
        self._kafka_home = servers.running["kafka"].home
        self._stack = ExitStack()

    def fill(self, count: int, *, by_hand: bool) -> None:
        """``count`` pending submissions whose messages are in Kafka, in the service's form or the other's."""
        with transaction(self.engine) as connection:
            rows = connection.execute(
                text(
                    "INSERT INTO moderation_results (item_id, publish_after)"
                    " SELECT 1 + n % :ads, NULL FROM generate_series(1, :count) AS n"
                    " RETURNING id, item_id, message_id"
                ),
                {"ads": ADS, "count": count},
            ).all()
        broker = KafkaBroker(self.env["KAFKA_BOOTSTRAP_SERVERS"], namespace=self.env["KAFKA_NAMESPACE"])
        broker.declare_queue(QUEUE)
        if by_hand:
            topic = broker.parts.topics.queue(QUEUE)
            broker.parts.topics.ensure([topic])
            values = [json.dumps({"task_id": row.id, "item_id": row.item_id}).encode() for row in rows]
            assert not broker.parts.publisher.publish([Record(topic, value) for value in values])
        else:
            broker.enqueue_many(message_of(Unpublished(row.message_id, 0, row.item_id)) for row in rows)
        broker.close()

    def make_topics(self) -> None:
        """Create the topics, so that no first send waits for them."""
        broker = KafkaBroker(self.env["KAFKA_BOOTSTRAP_SERVERS"], namespace=self.env["KAFKA_NAMESPACE"])
        broker.parts.topics.ensure(broker.parts.topics.of_worker(QUEUE))
        broker.close()

    def api(self, command: Callable[[int], list[str]]) -> tuple[str, Child]:
        """Start an API; return its URL, and the process, once it answers."""
        port = free_port()
        child = self.start("the API", command(port), API_PORT=str(port))

        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            child.check()
            try:
                httpx.get(url, timeout=5)  # it may listen before it serves
            except httpx.TransportError:
                return False
            return True

        wait_until(answers, deadline_s=START_TIMEOUT_S, what="the API to answer")
        return url, child

    def new_key(self) -> str:
        """Create an API key that may submit."""
        database = Database(Settings(database_url=self.env["DATABASE_URL"]))
        return ApiKeys(database).create("bench", scopes=["submit"], by="bench")[0]

    def servers_cpu_s(self) -> tuple[float, float]:
        """Processor seconds of PostgreSQL and of Kafka."""
        postgres, kafka = (self._servers.running[name].child for name in ("postgresql", "kafka"))
        return cpu_s_of(postgres.pid), cpu_s_of(kafka.pid)

    def start(self, name: str, command: list[str], **env: str) -> Child:
        log = self.home / f"{name.replace(' ', '-')}.log"
        child = Child(name, command, log=log, env={**self.env, **env}, cwd=ROOT)
        self._stack.callback(child.kill)
        child.start()
        return child

    def wait_for_verdicts(self, count: int, child: Child) -> None:
        """Return when ``count`` submissions have a verdict."""
        done, progressed_at_s = 0, time.monotonic()
        while done < count:
            time.sleep(POLL_S)
            child.check()
            before, done = done, int(self.ask("count(*) FILTER (WHERE status <> 'pending')"))
            if done > before:
                progressed_at_s = time.monotonic()
            elif time.monotonic() - progressed_at_s > STALL_TIMEOUT_S:
                raise TimeoutError(f"{done} verdicts, then none for {STALL_TIMEOUT_S:g} s: {child.tail()}")

    def verdicts_per_s(self, *, after: float = 0.2) -> float:
        """The rate at which verdicts were committed, without the first share of them, which contains the
        boot.
        """
        with transaction(self.engine) as connection:
            rows = connection.execute(
                text(
                    "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM moderation_results"
                    " WHERE status = 'completed' ORDER BY 1"
                )
            )
            times = [float(value) for value in rows.scalars()]
        first = int(len(times) * after)
        return (len(times) - 1 - first) / (times[-1] - times[first])

    def latencies_s(self, *, after: int) -> list[float]:
        """The times from the begin of a submission's transaction to its verdict's commit, without the first
        few.
        """
        with transaction(self.engine) as connection:
            rows = connection.execute(
                text(
                    "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - created_at)"
                    " FROM moderation_results WHERE status = 'completed' ORDER BY id OFFSET :after"
                ),
                {"after": after},
            )
            return [float(value) for value in rows.scalars()]

    def ask(self, expression: str) -> float:
        """The result of a query that returns one number about the submissions."""
        with transaction(self.engine) as connection:
            return float(
                connection.execute(text(f"SELECT {expression} FROM moderation_results")).scalar_one()
            )

    def cost(self) -> Cost:
        with transaction(self.engine) as connection:
            statements = connection.execute(
                text(
                    "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements"
                    " WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            ).scalar_one()
            wal = connection.execute(text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")).scalar_one()
        logs = self._kafka_home / "log"
        files = [
            *logs.glob(f"{self.env['KAFKA_NAMESPACE']}*/*.log"),
            *logs.glob("__consumer_offsets-*/*.log"),
        ]
        kafka = sum(file.stat().st_size for file in files)
        return Cost(float(statements), float(wal), float(kafka))

    def cpu_s(self, child: Child) -> float:
        return cpu_s_of(child.pid)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def site(servers: Servers, home: Path, *, model: Path) -> Iterator[Site]:
    """A fresh site. At the end its processes, its database and its topics are removed.

    Parameters:
      model: The model that both sides load.
    """
    number = next(_numbers)
    postgres = servers.running["postgresql"]
    assert isinstance(postgres, PostgresServer)
    name, namespace = f"bench{number}", f"bench{number}-"
    admin_url = postgres.url("postgres")
    create_database(admin_url, name)
    url = postgres.url(name)
    migrate(url)
    engine = make_engine(url, statement_timeout_s=60)
    with transaction(engine) as connection:
        items.load_ads(connection, sample_ads(ADS, seed=1))
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
    address = servers.running["kafka"].address
    env = {
        **os.environ,
        "DATABASE_URL": url,
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_NAMESPACE": namespace,
        "KAFKA_GROUP_ID": f"{namespace}group",
        "MODEL_PATH": str(model),
        "PYTHONPATH": str(ROOT),
    }
    place = home / f"site{number}"
    place.mkdir()
    here = Site(servers, place, engine, env)
    try:
        yield here
    finally:
        here.close()
        engine.dispose()
        drop_database(admin_url, name)
        delete_topics_of(address, namespace)


def service_api(_: int) -> list[str]:
    return [sys.executable, "main.py"]


def handwritten_api(port: int) -> list[str]:
    return [sys.executable, "-m", "bench.handwritten.api", str(port)]


def service_worker(processes: int) -> list[str]:
    program = str(Path(sys.executable).with_name("dramatiq"))
    return [program, "tasks", "--processes", str(processes), "--threads", "64"]


def handwritten_worker(commit_per: str) -> list[str]:
    return [sys.executable, "-m", "bench.handwritten.worker", commit_per]
