"""Keys stay within their limits while their owners are killed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.chaos.arena import NO_POISON, Arena, Supervisor
from tests.waiting import wait_until

KEYS, MESSAGES, STRIDE = 3, 9, 1_000
#: One run in two seconds. A run may begin 0.1 s early, and the one before it 0.1 s after it was noted.
RATE, INTERVAL_S, SLACK_S = "30/m", 2.0, 0.2
CONCURRENCY, TASK_S, KILLS = 2, 3.0, 4


def test_rates_and_concurrency_hold_while_workers_are_killed(arena: Callable[..., Arena]) -> None:
    play = arena(partitions=3, **NO_POISON)
    numbers = [key * STRIDE + place for place in range(MESSAGES) for key in range(KEYS)]
    play.broker.enqueue_many(
        [
            play.message("timed", number, seconds=TASK_S).copy(
                options={
                    "partition_key": f"key-{number // STRIDE}",
                    "key_rate": RATE,
                    "key_concurrency": CONCURRENCY,
                }
            )
            for number in numbers
        ]
    )
    play.sent |= set(numbers)
    workers: list[Supervisor] = [play.supervise(threads=8) for _ in range(2)]
    for number in range(KILLS):
        target = len(numbers) * (number + 1) // (KILLS + 2)
        wait_until(partial(_has_done, play, target), deadline_s=120, what=f"{target} tasks to be done")
        workers[number % 2].worker.kill()
    play.wait_until_done(numbers, deadline_s=180)
    check(play.home / "times")


def _has_done(play: Arena, count: int) -> bool:
    return len(play.ledger.read().done) >= count


def check(times: Path) -> None:
    events = [json.loads(line) for line in times.read_bytes().splitlines()]
    last_seen = {pid: at for _, _, pid, at in events}
    starts: defaultdict[int, list[float]] = defaultdict(list)
    running: defaultdict[int, dict[int, int]] = defaultdict(dict)
    most = 0
    for event, number, pid, at in sorted(events, key=lambda each: each[3]):
        key = number // STRIDE
        if event == "start":
            starts[key].append(at)
            # Those of a process that has died do not run any more.
            running[key] = {n: p for n, p in running[key].items() if last_seen[p] >= at}
            running[key][number] = pid
            most = max(most, len(running[key]))
        else:
            running[key].pop(number, None)
    gaps = [later - earlier for each in starts.values() for earlier, later in pairwise(sorted(each))]
    print(f"the shortest time between two runs of a key: {min(gaps):.2f} s; at once at most {most}")
    assert min(gaps) >= INTERVAL_S - SLACK_S, sorted(gaps)[:5]
    assert most <= CONCURRENCY
