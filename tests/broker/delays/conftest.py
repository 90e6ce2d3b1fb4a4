"""Delayed messages on a stack, without the rest of the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dev.stack import Stack
from tests.broker.delays.station import Station

MakeStation = Callable[..., Station]


@pytest.fixture
def make_station(stack: Stack, namespace: str, tmp_path: Path) -> Iterator[MakeStation]:
    """Makes stations of one namespace: each is what one process of it has."""
    with ExitStack() as stations:

        def make(index_dir: Path = tmp_path / "index", bootstrap_servers: str = "") -> Station:
            station = Station(bootstrap_servers or stack.bootstrap_servers, namespace, index_dir)
            stations.callback(station.close)
            return station

        yield make


@pytest.fixture
def station(make_station: MakeStation) -> Station:
    return make_station()
