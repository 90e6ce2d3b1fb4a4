"""Chaos runs on Apache Kafka: real processes, real signals, and books that are kept outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.server import Server
from dev.stack import Stack
from tests.chaos.arena import Arena

HERE = Path(__file__).parent
#: What a test may take at full size, in place of what pytest-timeout allows.
FULL_SIZE_TIMEOUT_S = 1_200


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            if config.getoption("--full-size"):
                item.add_marker(pytest.mark.timeout(FULL_SIZE_TIMEOUT_S))
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.real_kafka("it keeps no commit metadata and forgets its log"))


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """``size(small, full)``: the first, and with ``--full-size`` the second."""
    full_size: bool = request.config.getoption("--full-size")
    return lambda small, full: full if full_size else small


@pytest.fixture
def make_arena(tmp_path: Path) -> Iterator[Callable[..., Arena]]:
    arenas: list[Arena] = []

    def make(bootstrap_servers: str, **settings: Any) -> Arena:
        home = tmp_path / f"arena-{len(arenas)}"
        home.mkdir()
        arenas.append(Arena(bootstrap_servers, home, **settings))
        return arenas[-1]

    yield make
    for arena in arenas:
        arena.close()


@pytest.fixture
def arena(make_arena: Callable[..., Arena], stack: Stack) -> Callable[..., Arena]:
    """Makes arenas on the session's Kafka, which no test harms."""
    return lambda **settings: make_arena(stack.bootstrap_servers, **settings)


@pytest.fixture
def arena_on(make_arena: Callable[..., Arena], kafka_server: Server) -> Callable[..., Arena]:
    """Makes arenas on a Kafka of the test's own, ``kafka_server``, which it may harm."""
    return lambda **settings: make_arena(kafka_server.address, **settings)
