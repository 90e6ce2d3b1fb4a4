"""A forwarder dies, at any step: another takes over, nothing is lost, and what is repeated is explained."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from sys import executable

import pytest

from dev.child import Child
from dev.server import Server
from dev.stack import Stack
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import QUEUE, SESSION_TIMEOUT_MS, Station
from tests.waiting import wait_until

StartProcess = Callable[..., Child]
DEADLINE_S = 120.0
#: A page of a forwarder: what it can be in the middle of.
PAGE_ROWS = 500
STEPS = ["before-forward", "after-forward", "before-tombstones", "after-tombstones"]
MACHINES = ["same machine", "another machine"]
#: Where the tombstones are missing, and the index does not say that they are to be made.
REPEATED = {
    ("after-forward", "same machine"),
    ("after-forward", "another machine"),
    ("before-tombstones", "another machine"),
}


def forwarder_process(station: Station, *, die: str = "never", count: int = 0) -> Child:
    """A forwarder in a process of its own."""
    arguments = [station.bootstrap_servers, station.namespace, str(station.index_dir)]
    station.index_dir.mkdir(exist_ok=True)
    return Child(
        f"forwarder that dies {die}",
        [
            *(executable, "-m", "tests.broker.delays.forwarder_process"),
            *(*arguments, str(SESSION_TIMEOUT_MS), die, str(count)),
        ],
        log=station.index_dir / "forwarder.log",
    )


@pytest.fixture
def start_process() -> Iterator[StartProcess]:
    """Starts a forwarder in a process of its own: ``start(station)``."""
    with ExitStack() as processes:

        def start(station: Station) -> Child:
            child = forwarder_process(station)
            processes.callback(child.kill)
            child.start()
            return child

        yield start


@dataclass(frozen=True)
class Takeover:
    """A forwarder that was killed, and the one that comes after it.

    Attributes:
      ids: What was delayed.
      forwarded: What was in the queue when the first one was dead.
    """

    ids: list[str]
    forwarded: set[str]
    heir: Station


@pytest.fixture(scope="module")
def takeovers(
    stack: Stack, new_namespace: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Takeover]]:
    """One for each step and machine, all at once: a dead member's partitions are free only after a while."""
    with ExitStack() as ending:
        homes = {key: tmp_path_factory.mktemp("home") for key in _cases()}
        stations = {
            key: Station(stack.bootstrap_servers, new_namespace(), home / "index")
            for key, home in homes.items()
        }
        ids = {key: station.delay(*range(0, 3_000, 10)) for key, station in stations.items()}
        victims = {key: forwarder_process(stations[key], die=key[0], count=100) for key in stations}
        for victim in victims.values():
            ending.callback(victim.kill)
            victim.start()
        takeovers = {}
        for key, station in stations.items():
            ending.callback(station.close)
            assert victims[key].wait(timeout_s=DEADLINE_S) == -9, victims[key].tail()
            forwarded = set(station.ids_in_queue())
            if key[1] == "another machine":
                station = Station(stack.bootstrap_servers, station.namespace, homes[key] / "another index")
                ending.callback(station.close)
            station.start()
            takeovers[key] = Takeover(ids[key], forwarded, station)
        yield takeovers


def _cases() -> list[tuple[str, str]]:
    return [(step, machine) for step in STEPS for machine in MACHINES]


@pytest.mark.parametrize(("step", "machine"), _cases())
def test_a_forwarder_killed_at_any_step_is_taken_over(
    takeovers: dict[tuple[str, str], Takeover], step: str, machine: str
) -> None:
    takeover = takeovers[step, machine]

    takeover.heir.wait_for(takeover.ids, deadline_s=DEADLINE_S)
    takeover.heir.wait_until_done()

    times = Counter(takeover.heir.ids_in_queue())
    repeated = {message_id for message_id, count in times.items() if count > 1}
    assert set(times) == set(takeover.ids)
    assert max(times.values()) <= 2
    if (step, machine) in REPEATED:
        assert repeated <= takeover.forwarded
        assert 0 < len(repeated) <= PAGE_ROWS
    else:
        assert not repeated


def test_a_process_on_the_same_machine_goes_on_with_the_index_of_the_dead_one(
    make_station: MakeStation, start_process: StartProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="broker.delays")
    station = make_station()
    station.delay(*[60_000] * 3_000)
    victim = start_process(station)
    station.wait_for(station.delay(*[0] * 20))  # of both partitions: each is served when it has been read
    victim.kill()

    station.start()
    station.wait_for(station.delay(0))

    # The heirs of the tests above may still join, in this process too.
    its_own = rf"{station.topics.delayed}'.*the index is at (\d+) of"
    begun_at = [int(offset) for offset in re.findall(its_own, caplog.text)]
    assert len(begun_at) == 2
    assert sum(begun_at) >= 3_000


def test_a_process_that_stood_still_does_not_forward_what_others_have_forwarded(
    make_station: MakeStation, start_process: StartProcess, tmp_path: Path
) -> None:
    station = make_station()
    still = start_process(station)
    (first,) = station.delay(0)
    station.wait_for([first])
    ids = station.delay(*range(3_000, 6_000, 10))

    still.pause()
    heir = make_station(index_dir=tmp_path / "another machine")
    heir.start()
    station.wait_for(ids)
    station.wait_until_done()
    still.resume()
    later = station.delay(*range(0, 3_000, 100))
    station.wait_for(later)

    assert Counter(station.ids_in_queue()) == Counter([first, *ids, *later])


@pytest.mark.real_kafka(reason="a restart empties it")
def test_nothing_is_lost_when_every_forwarder_and_kafka_itself_are_killed(
    kafka_server: Server, make_station: MakeStation, start_process: StartProcess
) -> None:
    station = make_station(bootstrap_servers=kafka_server.address)
    forwarders = [start_process(station), start_process(station)]
    ids = station.delay(*range(0, 10_000, 5))
    wait_until(partial(_arrived, station, 100), deadline_s=60, what="the first hundred")

    for forwarder in forwarders:
        forwarder.kill()
    kafka_server.kill()
    kafka_server.start()
    for _ in forwarders:
        start_process(station)
    station.wait_for(ids, deadline_s=DEADLINE_S)
    station.wait_until_done()

    times = Counter(station.ids_in_queue())
    assert set(times) == set(ids)
    assert sum(times.values()) - len(times) <= 2 * PAGE_ROWS
    assert station.delays.count(QUEUE) == 0


def _arrived(station: Station, count: int) -> bool:
    return len(station.in_queue()) >= count
