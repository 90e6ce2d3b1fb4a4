"""Workers whose reaper lives, is frozen, or dies with them.

The session timeout of most scenarios is longer than their deadlines: only a removal moves the partitions.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from broker.kafka.types import Membership
from tests.chaos.arena import SESSION_TIMEOUT_MS, START_DEADLINE_S, Arena, Worker
from tests.reapers import reaper_pids, registrations
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd")

#: Longer than a test. Kafka's group.max.session.timeout.ms is 30 minutes.
LONG_MS = 600_000


def pids_of(worker: Worker, text: str) -> list[int]:
    found = (re.search(r"\[PID (\d+)\]", line) for line in worker.log_lines(text))
    return [int(match.group(1)) for match in found if match is not None]


def worker_pids(worker: Worker, count: int = 1) -> list[int]:
    """The worker processes of a command that was started last."""
    return pids_of(worker, "Worker process is ready")[-count:]


def reaper_pid(worker: Worker, number: int = 1) -> int:
    """The reaper of a command, once all workers have registered with it and have joined their groups."""
    wait_until(
        lambda: len(reaper_pids(worker.log_lines("run_reaper"))) >= number,
        deadline_s=START_DEADLINE_S,
        what="the reaper to start",
    )
    return reaper_pids(worker.log_lines("run_reaper"))[-1]


def wait_until_registered(play: Arena, worker: Worker, *, members: int, connections: int = 1) -> int:
    """Wait until the groups are complete and the reaper knows it; return the reaper's process id."""
    reaper = reaper_pid(worker)
    wait_until(
        lambda: len(play.owners()) == members and all(play.owners().values()),
        deadline_s=START_DEADLINE_S,
        what=f"{members} members with partitions",
    )
    wait_until(
        lambda: registrations(reaper) >= connections, deadline_s=START_DEADLINE_S, what="the registration"
    )
    return reaper


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def wait_until_gone(pid: int) -> None:
    wait_until(lambda: is_gone(pid), deadline_s=START_DEADLINE_S, what=f"the end of process {pid}")


def ran_in(play: Arena, pid: int) -> set[int]:
    return {number for number, pids in play.ledger.read().processes.items() if pids[-1] == pid}


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_partitions_of_a_killed_worker_do_not_wait_for_its_session(arena: Callable[..., Arena]) -> None:
    # Given two commands that run tasks
    play = arena(partitions=4, session_timeout_ms=LONG_MS)
    first, second = play.start_worker(threads=4), play.start_worker(threads=4)
    reaper = wait_until_registered(play, first, members=2)
    gate = play.home / "gate"
    play.send("gated", range(80), gate=str(gate))
    (killed,) = worker_pids(first)
    wait_until(lambda: len(ran_in(play, killed)) == 4, deadline_s=START_DEADLINE_S, what="its tasks")

    # When the worker process of one is killed
    kill(killed)
    gate.touch()

    # Then the other one runs all its tasks, and nothing is left of the command
    play.balance("a killed worker of two", repeats_at_most=4)
    wait_until_gone(reaper)
    assert first.wait(START_DEADLINE_S) != 0
    second.stop(timeout_s=30)


def test_the_successor_of_an_only_worker_does_not_wait_for_its_session(arena: Callable[..., Arena]) -> None:
    # Given the only worker of a supervised command
    play = arena(partitions=2, session_timeout_ms=LONG_MS)
    worker = play.supervise(threads=2).worker
    worker.wait_until_ready()
    wait_until_registered(play, worker, members=1)
    gate = play.home / "gate"
    play.send("gated", range(20), gate=str(gate))
    (killed,) = worker_pids(worker)
    wait_until(lambda: len(ran_in(play, killed)) == 2, deadline_s=START_DEADLINE_S, what="its tasks")

    # When its process is killed
    kill(killed)
    gate.touch()

    # Then the next one runs its tasks, although nobody else was in the group to remove the dead member for
    play.balance("a killed only worker", repeats_at_most=2)


def test_a_command_of_several_processes_whose_master_was_killed_keeps_its_reaper(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=4, session_timeout_ms=LONG_MS)
    worker = play.start_worker(processes=2, threads=2)
    reaper = wait_until_registered(play, worker, members=2, connections=2)
    gate = play.home / "gate"
    play.send("gated", range(40), gate=str(gate))
    killed, survivor = worker_pids(worker, 2)
    wait_until(lambda: len(ran_in(play, killed)) == 2, deadline_s=START_DEADLINE_S, what="its tasks")

    kill(worker.pid)
    kill(killed)
    gate.touch()

    play.balance("a killed worker of an orphaned command", repeats_at_most=2)
    assert not is_gone(reaper)
    # No process stays behind.
    os.kill(survivor, signal.SIGTERM)
    wait_until_gone(survivor)
    wait_until_gone(reaper)


def test_a_stop_in_good_order_ends_the_reaper_after_the_workers(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=2, session_timeout_ms=LONG_MS)
    worker = play.start_worker(threads=2)
    reaper = wait_until_registered(play, worker, members=1)
    play.wait_until_started(play.send("work", [1], seconds=2.0))

    worker.ask_to_stop()
    wait_until(lambda: worker.log_lines("Stopping worker"), deadline_s=START_DEADLINE_S, what="the signal")
    assert not is_gone(reaper), "a task still runs"

    assert worker.wait(START_DEADLINE_S) == 0
    assert is_gone(reaper)
    play.balance("a stop", repeats_at_most=0)
    assert not worker.log_lines("has died")


def test_workers_whose_reaper_was_killed_continue_and_say_so_once(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=2)
    worker = play.start_worker(threads=2)
    reaper = wait_until_registered(play, worker, members=1)

    kill(reaper)
    wait_until(
        lambda: worker.log_lines("The reaper of this command has ended"),
        deadline_s=START_DEADLINE_S,
        what="the line in the log",
    )
    play.wait_until_done(play.send("work", range(20)))
    worker.stop(timeout_s=30)
    play.balance("a killed reaper", repeats_at_most=0)
    assert len(worker.log_lines("The reaper of this command has ended")) == 1


def test_a_reaper_that_is_killed_with_its_workers_leaves_the_session_timeout(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=2, session_timeout_ms=SESSION_TIMEOUT_MS)
    first, second = play.start_worker(threads=2), play.start_worker(threads=2)
    wait_until_registered(play, first, members=2)
    gate = play.home / "gate"
    play.send("gated", range(40), gate=str(gate))
    (killed,) = worker_pids(first)
    wait_until(lambda: len(ran_in(play, killed)) == 2, deadline_s=START_DEADLINE_S, what="its tasks")

    first.kill()
    gate.touch()

    play.balance("a command that was killed with its reaper", repeats_at_most=2)
    second.stop(timeout_s=30)


def test_a_frozen_reaper_hinders_no_worker(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=2, session_timeout_ms=SESSION_TIMEOUT_MS)
    first = play.start_worker(threads=2)
    reaper = wait_until_registered(play, first, members=1)
    with stopped(reaper):
        second = play.start_worker(threads=2)
        wait_until_registered(play, second, members=2)
        gate = play.home / "gate"
        play.send("gated", range(40), gate=str(gate))
        (killed,) = worker_pids(first)
        wait_until(lambda: len(ran_in(play, killed)) == 2, deadline_s=START_DEADLINE_S, what="its tasks")
        kill(killed)
        gate.touch()
        play.balance("a killed worker with a frozen reaper", repeats_at_most=2)
    wait_until_gone(reaper)
    assert first.wait(START_DEADLINE_S) != 0
    second.stop(timeout_s=30)


def test_settings_that_no_other_process_can_be_given_are_named_in_one_line(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=2)
    worker = play.start_worker(processes=2, env={"CHAOS_SSL_CONTEXT": "1"})
    play.wait_until_done(play.send("work", range(4)))
    worker.stop(timeout_s=30)
    (line,) = worker.log_lines("This command has no reaper")
    assert "'ssl_context' (SSLContext)" in line
    assert not worker.log_lines("run_reaper")


# A removal of members that live


def members(play: Arena) -> set[Membership]:
    """The members of all groups of the arena's workers."""
    groups = (play.broker.parts.group_of("work"), f"{play.broker.parts.topics.delayed}.forwarders")
    with play.broker.parts.clients.admin() as admin:
        return {Membership(group, member) for group in groups for member in admin.group_members(group)}


def first_ends(ledger: Path) -> list[int]:
    """The tasks in the order in which they were done for the first time."""
    events = (json.loads(line) for line in ledger.read_bytes().splitlines())
    return list(dict.fromkeys(number for event, number, _ in events if event == "done"))


def test_a_worker_that_was_only_frozen_when_its_members_were_removed_loses_nothing(
    arena: Callable[..., Arena], size: Callable[[int, int], int]
) -> None:
    # Given one worker, and another one that runs tasks with and without keys, with retries and delays
    play = arena(partitions=4, session_timeout_ms=LONG_MS)
    keeps = play.start_worker(threads=4)
    wait_until_registered(play, keeps, members=1)
    others = members(play)
    frozen = play.start_worker(threads=4)
    wait_until_registered(play, frozen, members=2)
    (pid,) = worker_pids(frozen)
    count = size(200, 2_000)
    keys = 12
    keyed = range(count)
    play.broker.enqueue_many(
        [play.message("in_order", n).copy(options={"partition_key": str(n % keys)}) for n in keyed]
    )
    delayed = range(count, count + count // 2)
    play.broker.enqueue_many([play.message("work", n) for n in delayed], delay=1_500)
    free = range(2 * count, 3 * count)
    play.broker.enqueue_many([play.message("work", n, seconds=0.02) for n in free])
    play.sent |= {*keyed, *delayed, *free}
    wait_until(lambda: len(ran_in(play, pid)) >= 20, deadline_s=START_DEADLINE_S, what="its tasks")

    # When it stands still, its members are removed, and the other worker takes over before it continues
    with stopped(pid):
        before = ran_in(play, pid)
        with play.broker.parts.clients.admin() as admin:
            assert (
                len(admin.remove_members(members(play) - others)) == 2
            )  # of the queue, and of the forwarders
        wait_until(lambda: len(play.owners()) == 1, deadline_s=START_DEADLINE_S, what="the removal")
        wait_until(
            lambda: before - ran_in(play, pid) or len(play.ledger.read().done) >= len(play.sent) // 2,
            deadline_s=60,
            what="the takeover",
        )

    # Then every message is done, and the keys are in order except for the records that ran twice
    entries = play.balance(
        "members removed of a frozen worker", repeats_at_most=count // 5 * 4 + 60, deadline_s=120
    )
    finished: dict[int, list[int]] = defaultdict(list)
    for number in first_ends(play.ledger.path):
        if number in keyed:
            finished[number % keys].append(number)
    assert all(numbers == sorted(numbers) for numbers in finished.values())
    assert sum(map(len, finished.values())) == count
    print(f"done twice: {sum(times > 1 for times in entries.done.values())}")
    assert play.dead_letters() == {}
