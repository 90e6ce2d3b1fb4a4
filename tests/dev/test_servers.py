"""The servers behind the tests: what a test may rely on when it harms them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg2
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from sqlalchemy import Engine, text

from dev.account import Account, reachable
from dev.apache_kafka import ApacheKafkaServer
from dev.child import Child, ChildDied
from dev.kafka_protocol import cluster_answers
from dev.postgres import PostgresServer, embedded_programs
from dev.server import Server
from dev.stack import Stack, migrate
from tests.waiting import wait_until


def topics(bootstrap_servers: str) -> set[str]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        return set(admin.list_topics())
    finally:
        admin.close()


def create_topic(bootstrap_servers: str, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        admin.close()


def rows(url: str) -> int:
    connection = psycopg2.connect(url, connect_timeout=2)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM users")
            (count,) = cursor.fetchone() or (0,)
            return int(count)
    finally:
        connection.close()


def test_the_database_of_a_test_is_migrated_and_empty(database: Engine) -> None:
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM moderation_results")).scalar() == 0
        connection.execute(text("INSERT INTO users DEFAULT VALUES"))


def test_the_rows_of_another_test_are_gone_and_identities_start_at_one(database: Engine) -> None:
    with database.begin() as connection:
        assert connection.execute(text("INSERT INTO users DEFAULT VALUES RETURNING id")).scalar() == 1


def test_the_migrations_can_be_applied_again(database_url: str) -> None:
    migrate(database_url)


def test_namespaces_differ_between_uses_of_kafka(stack: Stack, namespace: str) -> None:
    create_topic(stack.bootstrap_servers, f"{namespace}moderation")
    assert f"{namespace}moderation" in topics(stack.bootstrap_servers)


def test_a_killed_kafka_is_away_and_comes_back_on_its_address(kafka_server: Server) -> None:
    kafka_server.kill()
    assert not cluster_answers(kafka_server.address)
    kafka_server.start()
    assert cluster_answers(kafka_server.address)


def test_a_paused_kafka_answers_nobody_until_it_is_resumed(kafka_server: Server) -> None:
    kafka_server.pause()
    assert not cluster_answers(kafka_server.address)
    kafka_server.resume()
    assert cluster_answers(kafka_server.address)


@pytest.mark.real_kafka(reason="a restart empties it")
def test_a_killed_kafka_keeps_its_topics(kafka_server: Server) -> None:
    create_topic(kafka_server.address, "kept")
    kafka_server.kill()
    kafka_server.start()
    assert "kept" in topics(kafka_server.address)


def test_a_killed_postgresql_keeps_its_rows(postgres_server: PostgresServer) -> None:
    url = postgres_server.url("moderation")
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO users DEFAULT VALUES")
    postgres_server.kill()
    with pytest.raises(psycopg2.OperationalError):
        rows(url)
    postgres_server.start()
    assert rows(url) == 1


def test_a_paused_postgresql_answers_nobody_until_it_is_resumed(postgres_server: PostgresServer) -> None:
    url = postgres_server.url("moderation")
    postgres_server.pause()
    with pytest.raises(psycopg2.OperationalError):
        rows(url)
    postgres_server.resume()
    assert rows(url) == 0


SASL = {
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.sasl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
    'required user_worker="open-sesame";',
}


@pytest.mark.real_kafka(reason="it has no SASL listener")
def test_a_sasl_listener_lets_in_whoever_has_the_password(
    apache_kafka: Callable[..., ApacheKafkaServer],
) -> None:
    server = apache_kafka(listeners={"SASL": "SASL_PLAINTEXT"}, properties=SASL)
    options = {
        "bootstrap_servers": server.address_of("SASL"),
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "worker",
        "bootstrap_timeout_ms": 3_000,
    }
    admin = KafkaAdminClient(**options, sasl_plain_password="open-sesame")
    assert admin.list_topics() == []
    admin.close()
    with pytest.raises(KafkaError):
        KafkaAdminClient(**options, sasl_plain_password="wrong").list_topics()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_child_that_ends_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    child = Child("worker", python("print('the disk is full'); raise SystemExit(3)"), log=tmp_path / "log")
    child.start()
    assert child.wait(60) == 3
    with pytest.raises(ChildDied, match=r"worker ended with exit code 3(.|\n)*the disk is full"):
        child.check()


FAMILY = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", flush=True)
signal.pause()
"""


def test_stopping_a_child_that_does_not_listen_leaves_none_of_its_family(tmp_path: Path) -> None:
    child = Child("worker", python(FAMILY), log=tmp_path / "log")
    child.start()
    wait_until(lambda: "ready" in child.tail(), deadline_s=60, what="the child's own child")
    child.stop(timeout_s=0.2)
    assert processes_of_session(child.pid) == []


IGNORER = """
import pathlib, signal, sys
from dev.child import Child
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
ask = "import signal; print(signal.getsignal(signal.SIGCHLD).name)"
child = Child("asked", [sys.executable, "-c", ask], log=pathlib.Path(sys.argv[1]))
child.start()
child.wait(60)
"""


def test_a_child_learns_how_its_own_children_end_although_its_parent_does_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", IGNORER, str(log)], check=True)
    assert log.read_text(encoding="ascii") == "SIG_DFL\n"


PARENT = """
import pathlib, signal, sys
from dev.child import Child
from dev.waiting import wait_until
sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
orphan_signal = signal.SIGKILL if "paused" in sys.argv else None
child = Child("sleeper", sleep, log=pathlib.Path(sys.argv[1]), orphan_signal=orphan_signal)
child.start()
wait_until(lambda: "up" in child.tail(), deadline_s=60, what="the child")
if "paused" in sys.argv:
    child.pause()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_child_ends_when_its_parent_is_killed(state: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), state]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child_pid = int(parent.stdout.readline())
        assert processes_of_session(child_pid)
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not processes_of_session(child_pid), deadline_s=60, what="the child's end")


def processes_of_session(session_id: int) -> list[str]:
    """The living processes of one session."""
    commands = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == session_id and process.status() != psutil.STATUS_ZOMBIE:
                commands.append(" ".join(process.cmdline()))
    return commands


def test_a_directory_closed_to_postgresqls_account_is_left_closed_and_another_is_used(tmp_path: Path) -> None:
    closed, fallback = tmp_path / "closed", tmp_path / "fallback"
    closed.mkdir(mode=0o700)
    stranger = Account("stranger", uid=os.geteuid() + 54321, gid=54321)
    assert reachable(closed / "cluster", stranger, fallback=fallback) == fallback
    assert closed.stat().st_mode & 0o777 == 0o700


class Excluded(Account):
    """An account that can go nowhere."""

    def can_reach(self, path: Path) -> bool:
        return False


def test_programs_out_of_postgresqls_accounts_reach_are_copied_and_work(tmp_path: Path) -> None:
    programs = embedded_programs(Excluded("excluded", uid=54321, gid=54321), copies=tmp_path)
    assert programs.is_relative_to(tmp_path)
    subprocess.run([programs / "initdb", "--version"], check=True)
    subprocess.run([programs / "postgres", "--version"], check=True)


def test_a_directory_open_to_postgresqls_account_is_used(tmp_path: Path) -> None:
    ourselves = Account("ourselves", uid=os.geteuid(), gid=os.getegid())
    assert reachable(tmp_path / "cluster", ourselves, fallback=tmp_path / "other") == tmp_path / "cluster"
