"""The connection of a worker to the reaper of its command."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from broker.reaper import addresses
from broker.reaper.registrar import Registrar
from broker.reaper.wire import Introduction
from tests.broker.reaper.worker import limited
from tests.waiting import wait_until

DEADLINE_S = 10.0
LOG_LINE = "The reaper of this command has ended"


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[addresses.Listener]:
    """The place of a reaper, for a command that is this process."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(pid=os.getpid()))
    listener = addresses.listen(os.getpid())
    listener.socket.settimeout(DEADLINE_S)
    yield listener
    listener.close()


@pytest.fixture
def registrar() -> Iterator[Registrar]:
    registrar = Registrar(lambda: Introduction("host:1", ["kafka:9092"], {}, "notes", 10_000))
    yield registrar
    registrar.stop()


def registered(registrar: Registrar, listener: addresses.Listener) -> socket.socket:
    """The connection of a registrar that has registered."""
    registrar.start()
    connection, _ = listener.socket.accept()
    connection.settimeout(DEADLINE_S)
    assert connection.recv(1024)
    return connection


def test_the_end_of_a_reaper_is_logged_once(
    registrar: Registrar, listener: addresses.Listener, caplog: pytest.LogCaptureFixture
) -> None:
    with registered(registrar, listener):
        registrar.notice_end()
        assert LOG_LINE not in caplog.text

    def is_noticed() -> bool:
        registrar.notice_end()
        return LOG_LINE in caplog.text

    wait_until(is_noticed, deadline_s=DEADLINE_S, what="the end of the reaper")
    registrar.notice_end()
    assert caplog.text.count(LOG_LINE) == 1


def test_no_end_is_logged_of_a_reaper_that_was_told_goodbye(
    registrar: Registrar, listener: addresses.Listener, caplog: pytest.LogCaptureFixture
) -> None:
    with registered(registrar, listener) as connection:
        registrar.stop()
        while connection.recv(1024):
            pass
    registrar.notice_end()
    assert LOG_LINE not in caplog.text


def test_a_task_with_a_hard_limit_waits_until_the_reaper_knows_its_worker(
    registrar: Registrar, listener: addresses.Listener
) -> None:
    registrar.start()
    waiting = threading.Thread(target=registrar.await_reaper)
    waiting.start()
    connection, _ = listener.socket.accept()
    connection.settimeout(DEADLINE_S)
    assert b"Introduction" in connection.recv(1024)
    waiting.join(DEADLINE_S)
    assert not waiting.is_alive()
    registrar.limit(limited(1, 1_000))
    assert b"message-1" in connection.recv(1024)
    connection.close()


@pytest.mark.usefixtures("listener")
def test_a_task_with_a_hard_limit_waits_once_for_a_reaper_that_does_not_come(
    registrar: Registrar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("broker.reaper.registrar.AWAIT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(addresses, "connect", lambda master_pid: None)
    registrar.start()
    registrar.await_reaper()
    monkeypatch.setattr("broker.reaper.registrar.AWAIT_TIMEOUT_S", 10 * DEADLINE_S)
    registrar.await_reaper()
    for number in (1, 2):
        registrar.limit(limited(number, 1_000))
    assert caplog.text.count("is not enforced: it has no connection to the reaper") == 1


def test_a_process_without_a_command_does_not_wait_for_a_reaper(registrar: Registrar) -> None:
    registrar.start()
    registrar.await_reaper()
    assert "was not started by the dramatiq command" in registrar.absence()
