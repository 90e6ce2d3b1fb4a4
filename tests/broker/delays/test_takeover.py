"""A forwarder dies, at any step: another takes over, nothing is lost, and what is repeated is explained."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from sys import executable

import pytest

from dev.child import Child
from dev.server import Server
from tests.broker.delays.conftest import MakeStation
from tests.broker.delays.station import QUEUE, SESSION_TIMEOUT_MS, Station
from tests.waiting import wait_until

StartProcess = Callable[..., Child]
#: A page of a forwarder: what it can be in the middle of.
PAGE_ROWS = 500


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[StartProcess]:
    """Starts a forwarder in a process of its own: ``start(station, die="after-forward", count=100)``."""
    with ExitStack() as processes:

        def start(
            station: Station, *, die: str = "never", count: int = 0, index_dir: Path | None = None
        ) -> Child:
            child = Child(
                f"forwarder that dies {die}",
                [
                    executable,
                    *("-m", "tests.broker.delays.forwarder_process"),
                    *(station.bootstrap_servers, station.namespace, str(index_dir or station.index_dir)),
                    *(str(SESSION_TIMEOUT_MS), die, str(count)),
                ],
                log=tmp_path / "forwarder.log",
            )
            processes.callback(child.kill)
            child.start()
            return child

        yield start


@pytest.mark.parametrize("step", ["before-forward", "after-forward", "after-tombstones"])
@pytest.mark.parametrize("same_machine", [True, False], ids=["same machine", "another machine"])
def test_a_forwarder_killed_at_any_step_is_taken_over(
    make_station: MakeStation, start_process: StartProcess, tmp_path: Path, step: str, same_machine: bool
) -> None:
    station = make_station()
    ids = station.delay(*range(0, 3_000, 10))
    victim = start_process(station, die=step, count=100)
    victim.wait(timeout_s=60)
    forwarded = Counter(station.ids_in_queue())
    heir = station if same_machine else make_station(index_dir=tmp_path / "another machine")

    heir.start()
    station.wait_for(ids)
    station.wait_until_done()

    times = Counter(station.ids_in_queue())
    repeated = {message_id for message_id, count in times.items() if count > 1}
    assert set(times) == set(ids)
    assert max(times.values()) <= 2
    if step == "after-forward":
        assert repeated <= set(forwarded)
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
    station.wait_for(station.delay(0))
    victim.kill()

    station.start()
    station.wait_for(station.delay(0))

    begun_at = [int(offset) for offset in re.findall(r"the index is at (\d+) of", caplog.text)]
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
    ids = station.delay(*range(0, 20_000, 10))
    wait_until(partial(_arrived, station, 100), deadline_s=60, what="the first hundred")

    for forwarder in forwarders:
        forwarder.kill()
    kafka_server.kill()
    kafka_server.start()
    for _ in forwarders:
        start_process(station)
    station.wait_for(ids, deadline_s=120)
    station.wait_until_done()

    times = Counter(station.ids_in_queue())
    assert set(times) == set(ids)
    assert sum(times.values()) - len(times) <= 2 * PAGE_ROWS
    assert station.delays.count(QUEUE) == 0


def _arrived(station: Station, count: int) -> bool:
    return len(station.in_queue()) >= count
