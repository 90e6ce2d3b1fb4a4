"""Packages that people use Dramatiq with, each driven as its own documentation says.

They are installed for these tests alone: ``make test-ecosystem``. Without them nothing here is collected.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.servers import RedisServer
from broker import KafkaBroker
from dev.ports import free_port
from dev.stack import ROOT, Stack
from tests.broker.features.command_line import CommandLine
from tests.broker.features.journal import Journal

PACKAGES = ("django_dramatiq", "dramatiq_abort", "dramatiq_crontab", "dramatiq_workflow", "flask_dramatiq",
            "redis", "sentry_sdk")  # fmt: skip
#: The embedded broker answers a JoinGroup only after half of it.
SESSION_TIMEOUT_MS = 6_000
DEADLINE_S = 60.0
COMMAND_TIMEOUT_S = 60.0

collect_ignore_glob = [] if all(map(find_spec, PACKAGES)) else ["test_*.py"]


class Application:
    """Where an application's processes run: their variables, the journal of their tasks, their logs.

    Attributes:
      url: The only thing the application is told of this broker.
    """

    def __init__(self, stack: Stack, *, namespace: str, home: Path, variables: Mapping[str, str]) -> None:
        self.home = home
        self.journal = Journal(home / "journal")
        self.url = (
            f"kafka://{stack.bootstrap_servers}/{namespace}?group_id={namespace}shop"
            f"&session_timeout_ms={SESSION_TIMEOUT_MS}&delay_index_dir={home}/delays"
        )
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "KAFKA_URL": self.url,
            "JOURNAL": str(home / "journal"),
            **variables,
        }
        self._closing = ExitStack()

    def start(self, name: str, *command: str | Path, cwd: Path = ROOT, **variables: str) -> CommandLine:
        """Start a long-running command of the application."""
        child = CommandLine(
            *map(str, command),
            env=self.environment | variables,
            log=self.home / f"{name}.log",
            program=Path(sys.executable).name,
            cwd=cwd,
        )
        self._closing.callback(child.kill)
        child.start()
        return child

    def run(self, *command: str | Path, cwd: Path = ROOT) -> str:
        """Run a command of the application to its end, and return its output."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def broker(self, *queues: str) -> KafkaBroker:
        """A look at the application's queues from outside."""
        broker = KafkaBroker(url=self.url)
        for queue in queues:
            broker.declare_queue(queue)
        self._closing.callback(broker.close)
        return broker

    def close(self) -> None:
        self._closing.close()


@pytest.fixture
def application(stack: Stack, namespace: str, tmp_path: Path) -> Iterator[Application]:
    application = Application(stack, namespace=namespace, home=tmp_path, variables={})
    yield application
    application.close()


@pytest.fixture(scope="session")
def redis_url(server_home: Callable[[], Path]) -> Iterator[str]:
    """A Redis of this run's own, for what packages keep beside the broker."""
    server = RedisServer(server_home(), port=free_port())
    server.start()
    yield f"redis://{server.address}/0"
    server.kill()


@pytest.fixture
def application_with_redis(
    stack: Stack, namespace: str, tmp_path: Path, redis_url: str
) -> Iterator[Application]:
    application = Application(stack, namespace=namespace, home=tmp_path, variables={"REDIS_URL": redis_url})
    yield application
    application.close()
