"""Workers of an earlier version beside workers of this one, on the same topics and groups."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import WorkerState
from dev.earlier_version import VersionMissing, extract_version
from dev.stack import ROOT
from tests.chaos.arena import START_DEADLINE_S, Arena, Worker
from tests.waiting import wait_until

#: Commits of earlier versions, by what they lack.
EARLIER = {
    "reports, operators' commands and the reaper": "859f888f",
    "replication by the nodes of the cluster, and closed lanes": "eb3900a",
}
THREADS = 4
TASK_S = 0.02
#: The executions that a kill may repeat: those since the last commit, a second before, and those that ran.
REPEATED = int(THREADS / TASK_S) + 3 * THREADS
#: The executions of the tasks that fail twice, beyond the first: 20 and 6 in each of three rounds.
RETRIES = 3 * 2 * (20 + 6)


@pytest.fixture(params=list(EARLIER.values()), ids=list(EARLIER))
def earlier_root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the broker of an earlier version, and with the tasks of this one."""
    root = tmp_path_factory.mktemp("earlier")
    try:
        extract_version(request.param, root, "broker")
    except VersionMissing as error:
        pytest.skip(str(error))
    chaos = root / "tests" / "chaos"
    chaos.mkdir(parents=True)
    for name in ("app.py", "outside_ledger.py"):
        shutil.copy(ROOT / "tests" / "chaos" / name, chaos)
    return root


def wait_until_shared(play: Arena, members: int) -> None:
    def is_shared() -> bool:
        owners = play.owners()
        return len(owners) == members and all(owners.values())

    wait_until(is_shared, deadline_s=START_DEADLINE_S, what=f"{members} members with partitions")


def send_some(play: Arena, first: int) -> None:
    """Send tasks, tasks with retries, and keyed ones that keep their order across retries."""
    play.send("work", range(first, first + 150), seconds=TASK_S)
    play.send("flaky", range(first + 200, first + 220), failures=2)
    numbers = range(first + 300, first + 330)
    play.broker.enqueue_many(
        [
            play.message("in_order", number).copy(options={"partition_key": f"key{number % 3}"})
            for number in numbers
        ]
    )
    play.sent |= set(numbers)


def kill(play: Arena, worker: Worker, remaining: int) -> None:
    worker.kill()
    wait_until_shared(play, remaining)


def test_workers_of_an_earlier_version_share_the_work_and_take_it_over_and_back(
    arena: Callable[..., Arena], earlier_root: Path
) -> None:
    play = arena()
    earlier = play.start_worker(threads=THREADS, root=earlier_root)
    present = play.start_worker(threads=THREADS)
    wait_until_shared(play, 2)
    send_some(play, 0)
    play.wait_until_started_any(60)
    kill(play, present, 1)
    send_some(play, 1_000)
    play.wait_until_started_any(250)
    present = play.start_worker(threads=THREADS)
    wait_until_shared(play, 2)
    kill(play, earlier, 1)
    send_some(play, 2_000)
    most = RETRIES + 2 * REPEATED
    play.balance("an earlier version beside this one", repeats_at_most=most, deadline_s=120.0)
    # The first worker of this version was killed, and the second one lives.
    assert {worker.state for worker in play.broker.workers()} & {WorkerState.BUSY, WorkerState.IDLE}
