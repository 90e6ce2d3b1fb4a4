"""Messages of one key stay in order while their workers are killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from tests.chaos.arena import NO_POISON, Arena, Supervisor
from tests.waiting import wait_until

KEYS = 8
MESSAGES = 30
#: A message's number is its key's times this, plus its place.
STRIDE = 1_000
KILLS = 5


@dataclass
class Verdict:
    """What the ledger says about order. Only a kill excuses the first two."""

    repeated: list[int] = field(default_factory=list)
    beside_a_killed: list[int] = field(default_factory=list)
    #: Only a worker that does not know yet that it has lost its partitions excuses these.
    overlaps: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def judge(
    ledger: Path, *, relaxed: bool = False, only: range | None = None, may_repeat: bool = False
) -> Verdict:
    """Read the ledger in the order in which it was written, key by key.

    Parameters:
      relaxed: Whether a retry waits elsewhere: later messages of its key may begin meanwhile, and a kill may
        have made it twice.
      only: The numbers of keyed tasks; by default all are.
      may_repeat: Whether living workers may have lost their partitions, with acks that were not committed.
    """
    events = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    if only is not None:
        events = [event for event in events if event[1] in only]
    last_seen = {pid: place for place, (_, _, pid) in enumerate(events)}
    done_by: dict[int, int] = {}
    running: dict[int, tuple[int, int]] = {}
    failed: set[int] = set()
    verdict = Verdict()
    for place, (event, number, pid) in enumerate(events):
        key = number // STRIDE
        if event == "start":
            before = [
                n for n in range(key * STRIDE, number) if n not in done_by and not (relaxed and n in failed)
            ]
            if before:
                verdict.violations.append(f"{number} began before {before[:3]} was done")
            if key in running:
                other, its_pid = running[key]
                if last_seen[its_pid] > place:
                    found = verdict.overlaps if may_repeat else verdict.violations
                    found.append(f"{number} began while {other} ran in another process")
                verdict.beside_a_killed.append(number)
            if number in done_by:
                verdict.repeated.append(number)
                # A kill after a retry was published and before its ack makes two of it.
                if (
                    not may_repeat
                    and last_seen[done_by[number]] > place
                    and not (relaxed and number in failed)
                ):
                    verdict.violations.append(f"{number} ran again, and the process that did it lives")
            running[key] = (number, pid)
        elif event in ("done", "failed"):
            running.pop(key, None)
            if event == "done":
                done_by[number] = pid
            else:
                failed.add(number)
    return verdict


def send_keyed(
    play: Arena, actor: str, *, places: Iterable[int] = range(MESSAGES), **kwargs: Any
) -> set[int]:
    numbers = [key * STRIDE + place for place in places for key in range(KEYS)]
    play.broker.enqueue_many(
        [
            play.message(actor, number, **kwargs).copy(options={"partition_key": f"key-{number // STRIDE}"})
            for number in numbers
        ]
    )
    play.sent |= set(numbers)
    return set(numbers)


def test_keys_stay_in_order_while_workers_are_killed_and_retries_wait(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=3, **NO_POISON)
    sent = send_keyed(play, "in_order")
    kill_workers_until_done(play, sent)

    play.balance("keys in order through kills", repeats_at_most=10 * len(sent))
    verdict = judge(play.ledger.path)
    print(
        f"done again after a kill {len(verdict.repeated)}, "
        f"begun where a killed process had been running {len(verdict.beside_a_killed)}, "
        f"violations {len(verdict.violations)}"
    )
    assert verdict.violations == []


def test_relaxed_keys_never_run_two_at_once_and_only_retries_are_passed_while_workers_are_killed(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=3, **NO_POISON)
    sent = send_keyed(play, "passed_by")
    kill_workers_until_done(play, sent)

    play.balance("relaxed keys through kills", repeats_at_most=10 * len(sent))
    verdict = judge(play.ledger.path, relaxed=True)
    passed = len(judge(play.ledger.path).violations)
    print(
        f"begun before a failed one was done {passed}, done again after a kill {len(verdict.repeated)}, "
        f"violations {len(verdict.violations)}"
    )
    assert verdict.violations == []
    assert passed > 0, "no retry was passed: this shows nothing"


def kill_workers_until_done(play: Arena, sent: set[int]) -> None:
    workers: list[Supervisor] = [play.supervise(threads=4) for _ in range(2)]
    for number in range(KILLS):
        target = len(sent) * (number + 1) // (KILLS + 2)
        wait_until(
            partial(has_done, play, target),
            deadline_s=90,
            what=f"{target} tasks to be done",
        )
        workers[number % 2].worker.kill()
    play.wait_until_done(sent, deadline_s=120)


def test_a_task_that_kills_its_worker_from_within_a_lane_is_found_and_those_behind_it_go_on(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=1)
    lane = [("in_order", 0), ("kill_worker", 1), ("work", 2), ("work", 3)]
    play.broker.enqueue_many(
        [play.message(actor, number).copy(options={"partition_key": "key"}) for actor, number in lane]
    )
    play.sent |= {number for _, number in lane}
    beside = play.send("work", range(STRIDE, STRIDE + 30), seconds=0.05)
    supervisor = play.supervise(threads=4)
    play.wait_until_done({0, 2, 3} | beside, deadline_s=90)

    play.balance("a killer in a lane", repeats_at_most=3 * 30)
    assert {number: dead_letter.error_type for number, dead_letter in play.dead_letters().items()} == {
        1: "PoisonMessage"
    }
    assert supervisor.deaths == 3


def has_done(play: Arena, at_least: int) -> bool:
    return len(play.ledger.read().done) >= at_least


def has_processes(play: Arena, at_least: int, places: Iterator[int]) -> bool:
    """Whether so many processes have run some. Until then every key has something left to run, however long
    the workers take to come and go.
    """
    keep_busy(play, places)
    return len(play.ledger.read().workers) >= at_least


def keep_busy(play: Arena, places: Iterator[int]) -> None:
    if len(play.sent) - len(play.ledger.read().done) < 3 * KEYS:
        send_keyed(play, "work", places=list(islice(places, 3)), seconds=0.5)


def test_no_two_of_a_key_run_at_once_while_workers_come_and_go_in_good_order(
    arena: Callable[..., Arena],
) -> None:
    play = arena(partitions=4)
    places = count()
    keep_busy(play, places)
    workers = [play.start_worker(threads=8)]
    play.wait_until_started({0})
    for processes in (2, 3):
        workers.append(play.start_worker(threads=8))
        # Partitions have moved, whose tasks run all the time.
        wait_until(
            partial(has_processes, play, processes, places),
            deadline_s=60,
            what="the new worker to have some of the keys",
        )
        workers.pop(0).stop()
    play.wait_until_done(play.sent, deadline_s=90)

    play.balance("keys in order through scaling", repeats_at_most=0)
    verdict = judge(play.ledger.path)
    assert verdict == Verdict()
