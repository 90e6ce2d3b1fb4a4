"""Partitions that come and go while records are buffered, running or done."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from dev.child import Child
from tests.chaos.arena import NO_POISON, Arena, Worker
from tests.waiting import wait_until


def test_records_between_poll_and_dispatch_go_to_the_new_owner_alone(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=4)
    numbers = play.send("work", range(400), seconds=0.05)
    first = play.start_worker(threads=2)
    play.wait_until_started(range(1))  # by now it has read everything, and most of it waits in its buffers

    second = play.start_worker(threads=2)
    play.wait_until_done(numbers)

    # The partitions wait for the tasks that run on the first.
    entries = play.balance("revoke between poll and dispatch", repeats_at_most=0)
    assert len(entries.workers) == 2
    stop(first, second)


def test_a_short_task_runs_once_though_its_partition_moves_to_a_worker_that_starts(
    arena: Callable[..., Arena],
) -> None:
    # Given a worker of two partitions whose threads always run a task
    play = arena(partitions=2)
    numbers = play.send("work", range(120), seconds=0.5)
    first = play.start_worker(threads=4)
    play.wait_until_started_any(4)
    # When a second one joins, and gets one of them
    second = play.start_worker(threads=4)
    play.wait_until_done(numbers)
    # Then no task has run twice
    entries = play.balance("a partition that moves", repeats_at_most=0)
    assert len(entries.workers) == 2
    stop(first, second)


def test_old_work_that_is_live_when_its_partition_comes_back_is_not_run_a_third_time(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=2)
    gate = play.home / "gate"
    stuck = play.send("gated", range(4), gate=str(gate), partition=0)
    stuck |= play.send("gated", range(4, 8), gate=str(gate), partition=1)
    first = play.start_worker(threads=12)
    play.wait_until_started(stuck)

    second = play.start_worker(threads=12)
    wait_until(
        lambda: sum(play.ledger.read().started.values()) == 12,
        deadline_s=30,
        what="the second worker to run what is stuck in the partition that it was given",
    )
    second.kill()
    wait_until(
        lambda: [*play.owners().values()] == [{0, 1}], deadline_s=30, what="the first worker to own all again"
    )
    later = play.send("work", range(100, 200))
    play.wait_until_done(later)
    play.wait_until_left(len(stuck))
    gate.touch()

    entries = play.balance("revoke and reassign with old work live", repeats_at_most=4)
    assert all(count == 1 for count in entries.done.values()), (
        "what was adopted is completed by its first run"
    )
    stop(first)


def test_a_worker_that_overran_its_poll_interval_rejoins_and_owns_nothing_that_another_has(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=4, client_options={"max_poll_interval_ms": 2_000})
    first = play.start_worker(threads=4)
    second = play.start_worker(threads=4)
    wait_until(lambda: balanced(play, [2, 2]), deadline_s=30, what="each worker to own two partitions")
    before = play.send("work", range(100), seconds=0.1)
    play.wait_until_started(range(1))

    play.send("starve_once", [1_000], seconds=6, marker=str(play.home / "starved"))
    play.wait_until_started([1_000])
    starving = play.ledger.read().processes[1_000][0]
    watch = OwnershipWatch(play)
    wait_until(
        lambda: watch.sees([{0, 1, 2, 3}]), deadline_s=30, what="the other worker to be given everything"
    )
    meanwhile = play.send("work", range(200, 400), seconds=0.02)
    wait_until(lambda: watch.sees_balance(), deadline_s=40, what="both to share the partitions again")
    # Only now: what was sent before may be done by the other worker alone before this one is back.
    afterwards = play.send("work", range(400, 600), seconds=0.02)
    play.wait_until_done(before | meanwhile | afterwards | {1_000})

    entries = play.balance("overrun of the poll interval", repeats_at_most=60)
    assert len(set(entries.processes[1_000])) <= 2
    assert starving in {process for number in afterwards for process in entries.processes[number]}
    for worker in (first, second):
        worker.check()  # neither has died of it
    stop(first, second)


def test_a_static_member_that_comes_back_in_time_goes_on_and_nobody_else_notices(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=2, session_timeout_ms=120_000)  # longer than anybody waits here
    first, second = (
        play.start_worker(threads=2, client_options={"group_instance_id": name}) for name in ("a", "b")
    )
    wait_until(lambda: balanced(play, [1, 1]), deadline_s=30, what="each worker to own a partition")
    before = play.owners()
    sent = play.send("work", range(100), seconds=0.01)
    play.wait_until_started(range(1))

    first.stop(timeout_s=30)
    assert balanced(play, [1, 1]), "its partition waits for it"
    sent |= play.send("work", range(100, 200), seconds=0.01)
    first.start()

    play.wait_until_done(sent)
    play.balance("a static member's restart", repeats_at_most=0)
    assert len(before.keys() & play.owners().keys()) == 1, "the other one has stayed what it was"
    stop(first, second)


def test_a_storm_of_rolling_restarts_loses_nothing(
    arena: Callable[..., Arena], size: Callable[[int, int], int]
) -> None:
    storm_s = size(10, 60)
    play = arena(queues=("work", "mail"), partitions=4, **NO_POISON)
    workers = [play.start_worker(threads=4) for _ in range(3)]
    dice = random.Random(7)
    storm_over_at = time.monotonic() + storm_s
    batch, restarts, kills = 0, 0, 0
    while time.monotonic() < storm_over_at:
        for queue in play.queues:
            play.send("work", range(batch * 50, batch * 50 + 50), queue=queue, seconds=0.02)
            batch += 1
        worker = dice.choice(workers)
        if dice.random() < 0.4:
            worker.kill()
            kills += 1
        else:
            worker.stop(timeout_s=30)
        worker.start()
        restarts += 1

    print(f"\n{restarts} restarts in {storm_s} s, {kills} of them by SIGKILL")
    play.wait_until_done(play.sent, deadline_s=90 + storm_s)
    # A restart repeats what ran, and what was done in the last commit interval, in four threads.
    play.balance("storm of rolling restarts", repeats_at_most=restarts * 60)
    stop(*workers)


class OwnershipWatch:
    """Looks who owns what, and that nothing is ever owned twice."""

    def __init__(self, play: Arena) -> None:
        self._play = play
        self.balanced = False

    def look(self) -> list[set[int]]:
        owned = [partitions for partitions in self._play.owners().values() if partitions]
        assert sum(map(len, owned)) == len(set().union(*owned)), f"two owners at once: {owned}"
        return owned

    def sees(self, wanted: list[set[int]]) -> bool:
        return self.look() == wanted

    def sees_balance(self) -> bool:
        self.balanced = sorted(map(len, self.look())) == [2, 2]
        return self.balanced


def balanced(play: Arena, shares: list[int]) -> bool:
    return sorted(len(partitions) for partitions in play.owners().values()) == shares


def stop(*workers: Worker | Child) -> None:
    for worker in workers:
        worker.stop(timeout_s=30)
