"""dkb metrics: in this process once, and as a process that a signal ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import dramatiq
import pytest

from broker import KafkaBroker
from broker.testing import Kit
from dev.ports import free_port
from dev.stack import ROOT, Stack
from tests.broker.console.conftest import Dkb
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.metrics.conftest import series
from tests.broker.reports.samples import report
from tests.waiting import wait_until

__all__ = ["tell"]

DEADLINE_S = 60.0


def test_metrics_once_prints_the_exposition(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name="mail")
    def task() -> None: ...

    task.send()
    ran = dkb("metrics", "--once")
    assert (ran.code, ran.err) == (0, "")
    found = series(ran.out)
    assert found["dramatiq_kafka_waiting_messages", frozenset({("queue_name", "mail")})] == 1


def test_metrics_of_a_namespace_without_a_queue_say_so(dkb: Dkb, caplog: pytest.LogCaptureFixture) -> None:
    ran = dkb("metrics", "--once")
    assert ran.code == 0
    assert "The namespace has no queue" in caplog.text


def test_metrics_name_the_group_of_workers_when_it_is_another(
    kit: Kit, dkb: Dkb, tell: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    tell(report(queues=("mail",), members={"shopw.shop-mail": "m-1"}, at_ms=kit.clock.wall_ms()))
    assert dkb("metrics", "--once").code == 0
    assert "another group_id than the exporter (mail: shopw)" in caplog.text


def test_metrics_once_of_an_unreachable_kafka_says_so_in_a_metric_and_the_exit_code(
    kit: Kit, dkb: Dkb
) -> None:
    with kit.kafka_away():
        ran = dkb("metrics", "--once")
    assert ran.code == 3
    assert series(ran.out)["dramatiq_kafka_up", frozenset({("source", "queues")})] == 0
    assert "Traceback" not in ran.err


def test_metrics_are_no_json_document(dkb: Dkb) -> None:
    ran = dkb("metrics", "--once", "--json")
    assert (ran.code, ran.out) == (2, "")


def test_a_port_in_use_is_one_sentence(dkb: Dkb) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = dkb("metrics", "--host", "127.0.0.1", "--port", str(taken.getsockname()[1]))
    assert (ran.code, ran.out) == (2, "")
    assert "cannot be opened" in ran.err


def test_without_prometheus_client_it_names_the_extra(dkb: Dkb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "broker.metrics.exporter", None)
    real = sys.modules["prometheus_client"]

    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "broker.metrics.exporter":
                raise ModuleNotFoundError(name="prometheus_client")

    monkeypatch.delitem(sys.modules, "broker.metrics.exporter")
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    ran = dkb("metrics", "--once")
    assert real is sys.modules["prometheus_client"]
    assert ran.code == 2
    assert "pip install 'dramatiq-kafka-broker[metrics]'" in ran.err


def scraped(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return series(answer.read().decode())


def test_the_exporter_serves_a_namespace_until_sigterm(stack: Stack, namespace: str) -> None:
    broker = KafkaBroker(stack.bootstrap_servers, namespace=namespace)

    @dramatiq.actor(broker=broker, queue_name="mail")
    def task() -> None: ...

    task.send()
    broker.close()
    port = free_port()
    command = [sys.executable, "-m", "broker.console", "--bootstrap", stack.bootstrap_servers]
    command += ["--namespace", namespace, "metrics", "--host", "127.0.0.1"]
    exporter = subprocess.Popen(
        [*command, "--port", str(port), "--interval", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:

        def waiting() -> float | None:
            assert exporter.poll() is None
            try:
                found = scraped(port)
            except OSError:  # it does not listen yet
                return None
            return found.get(("dramatiq_kafka_waiting_messages", frozenset({("queue_name", "mail")})))

        assert wait_until(waiting, deadline_s=DEADLINE_S, what="the queue in the metrics") == 1
        exporter.send_signal(signal.SIGTERM)
        _, said = exporter.communicate(timeout=DEADLINE_S)
        assert exporter.returncode == 0, said
        assert "Traceback" not in said
    finally:
        exporter.kill()
        exporter.wait()


def test_sigterm_ends_the_exporter_although_a_read_waits_for_kafka(tmp_path: Path) -> None:
    # Given a server that takes connections and answers nothing, as a frozen one
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [sys.executable, "-m", "broker.console", "--bootstrap"]
        command += [f"127.0.0.1:{silent.getsockname()[1]}", "metrics", "--host", "127.0.0.1", "--port", "0"]
        log = tmp_path / "stderr"
        with log.open("w") as stderr:
            exporter = subprocess.Popen(command, cwd=ROOT, stderr=stderr)
        try:
            silent.settimeout(DEADLINE_S)
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(1)  # the read has begun
                exporter.send_signal(signal.SIGTERM)
                assert exporter.wait(DEADLINE_S) == 0
            # The read was not over: it would have logged its failure.
            assert "cannot be read" not in log.read_text()
            assert "Traceback" not in log.read_text()
        finally:
            exporter.kill()
            exporter.wait()


def test_the_exporter_starts_serves_and_logs_the_reason_while_kafka_does_not_answer(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "broker.console", "--bootstrap", f"127.0.0.1:{free_port()}", "metrics"]
    log = tmp_path / "stderr"
    with log.open("w") as stderr:
        exporter = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], cwd=ROOT, stderr=stderr
        )
    try:

        def is_up() -> float | None:
            assert exporter.poll() is None
            try:
                return 1 + scraped(port)["dramatiq_kafka_up", frozenset({("source", "queues")})]
            except OSError:
                return None

        assert wait_until(is_up, deadline_s=DEADLINE_S, what="a scrape") == 1
        said = wait_until(
            lambda: re.search("The queues cannot be read, .*: No Kafka server answered", log.read_text()),
            deadline_s=DEADLINE_S,
            what="the reason in the log",
        )
        assert said
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(DEADLINE_S) == 0
        assert "Traceback" not in log.read_text()
    finally:
        exporter.kill()
        exporter.wait()
