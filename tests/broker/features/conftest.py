"""Applications that the `dramatiq` command line runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.stack import Stack
from tests.broker.features.application import Application
from tests.broker.features.command_line import CommandLine
from tests.broker.features.postgres_backends import create_tables

Run = Callable[..., CommandLine]


@pytest.fixture(scope="session")
def feature_tables(stack: Stack) -> None:
    create_tables(stack.database_url)


@pytest.fixture
def application(stack: Stack, namespace: str, feature_tables: None, tmp_path: Path) -> Iterator[Application]:
    """An application of the test's own; `run` starts it."""
    application = Application(stack, namespace=namespace, home=tmp_path)
    yield application
    application.broker.close()


@pytest.fixture
def run(application: Application) -> Iterator[Run]:
    """Starts the command line on `application` and waits until its processes have booted."""
    runs: list[CommandLine] = []

    def start(*options: str, processes: int = 1, program: str = "dramatiq") -> CommandLine:
        counts = ("--processes", str(processes), "--threads", "4")
        runs.append(application.command_line(*counts, *options, program=program))
        runs[-1].start()
        runs[-1].wait_for_boots(processes)
        return runs[-1]

    yield start
    for command_line in runs:
        command_line.kill()


@pytest.fixture(scope="session")
def running(
    stack: Stack,
    new_namespace: Callable[[], str],
    feature_tables: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Application]:
    """An application that two worker processes run, shared by the tests that only send to it."""
    application = Application(stack, namespace=new_namespace(), home=tmp_path_factory.mktemp("application"))
    command_line = application.command_line("--processes", "2", "--threads", "4")
    command_line.start()
    command_line.wait_for_boots(2)
    yield application
    command_line.kill()
    application.broker.close()
