"""Processes that are forked from one that has used a broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dev.server import Server
from dev.stack import ROOT, Stack

DEADLINE_S = 120
WAYS = ("os.fork", "multiprocessing")


class App:
    """The program of forking_app.py, and what it forks."""

    def __init__(self, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.broker.forking_app", *args],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def says(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        overdue = threading.Timer(DEADLINE_S, self._end_with_stacks)
        overdue.start()
        try:
            line = self._process.stdout.readline()
        finally:
            overdue.cancel()
        assert line, f"it has ended: {self.end()}"
        said: dict[str, Any] = json.loads(line)
        return said

    def says_that_it_is(self, name: str) -> None:
        assert self.says() == {"name": name}

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """Wait until it has ended well; returns what it has logged."""
        _, log = self._process.communicate(timeout=DEADLINE_S)
        assert self._process.returncode == 0, log
        return log

    def _end_with_stacks(self) -> None:
        """End it and its child: each logs the stacks of its threads."""
        os.killpg(self._process.pid, signal.SIGABRT)

    def kill(self) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


StartApp = Callable[..., App]


@pytest.fixture
def start_app(namespace: str) -> Iterator[StartApp]:
    """Starts it on a Kafka; the way it forks, and what it has done before, follow."""
    with ExitStack() as started:

        def start(servers: str, *args: str) -> App:
            app = App(servers, namespace, *args)
            started.callback(app.kill)
            return app

        yield start


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_of_a_process_that_has_used_its_broker_leaves_both_with_a_broker_that_works(
    stack: Stack, start_app: StartApp, way: str
) -> None:
    app = start_app(stack.bootstrap_servers, way, "used")
    assert app.says() == {"name": "parent", "count": 2, "delayed": 1, "dead_letters": 0}
    app.says_that_it_is("forked")
    assert app.says() == {"name": "child", "count": 4, "delayed": 2, "dead_letters": 0}
    # The child has ended, and has closed what it had.
    assert app.says() == {"name": "parent again", "count": 6, "delayed": 3, "dead_letters": 0}
    assert "lost" not in app.end(), "a connection of the parent's was touched by its child"


def test_no_lock_of_a_broker_that_was_used_is_the_same_one_in_the_child_of_a_fork(
    stack: Stack, start_app: StartApp
) -> None:
    app = start_app(stack.bootstrap_servers, "os.fork", "used, locks")
    assert app.says()["name"] == "parent"
    child, parent = app.says(), app.says()
    assert child == {"name": "child", "inherited": []}
    assert len(parent["locks"]) > 10, "hardly any was found"
    app.end()


def test_the_use_of_a_broker_imports_nothing_of_which_a_fork_could_leave_the_lock_to_its_child(
    stack: Stack, start_app: StartApp
) -> None:
    app = start_app(stack.bootstrap_servers, "os.fork", "used, imports")
    assert app.says()["name"] == "parent"
    assert app.says() == {"imported": []}
    app.end()


def test_no_lock_of_a_new_broker_is_the_same_one_in_the_child_of_a_fork(start_app: StartApp) -> None:
    app = start_app("localhost:1", "os.fork", "locks")
    assert app.says() == {"name": "child", "inherited": []}
    app.end()


@pytest.mark.parametrize("way", WAYS)
def test_a_child_sends_although_threads_tried_to_reach_kafka_when_it_was_forked(
    kafka_server: Server, start_app: StartApp, way: str
) -> None:
    app = start_app(kafka_server.address, way, "sending")
    app.says_that_it_is("ready")
    kafka_server.stop()
    app.go_on()
    app.says_that_it_is("forked")
    kafka_server.start()
    check_both(app)


@pytest.mark.parametrize("way", WAYS)
def test_a_child_sends_although_threads_waited_for_a_frozen_kafka_when_it_was_forked(
    kafka_server: Server, start_app: StartApp, way: str
) -> None:
    app = start_app(kafka_server.address, way, "used, sending")
    assert app.says()["name"] == "parent"
    app.says_that_it_is("ready")
    kafka_server.pause()
    app.go_on()
    app.says_that_it_is("forked")
    kafka_server.resume()
    check_both(app)


def check_both(app: App) -> None:
    """Whoever sends, and whatever the others have sent by then."""
    child, parent = app.says(), app.says()
    assert (child["name"], parent["name"]) == ("child", "parent again")
    assert child["count"] >= 2
    assert parent["count"] >= child["count"] + 2
    app.end()
