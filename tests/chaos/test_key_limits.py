"""Keys stay within their limits while their owners are killed, or frozen and continued."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.chaos.arena import NO_POISON, Arena, Supervisor
from tests.waiting import wait_until

KEYS, MESSAGES, STRIDE = 3, 9, 1_000
#: One run in two seconds. A run may begin 0.1 s early, and the one before it 0.1 s after it was noted.
RATE, INTERVAL_S, SLACK_S = "30/m", 2.0, 0.2
CONCURRENCY, TASK_S, KILLS = 2, 3.0, 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["SIGKILL", "SIGSTOP"])
def test_rates_and_concurrency_hold_while_workers_are_stopped(
    arena: Callable[..., Arena], number: signal.Signals
) -> None:
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
    for stop in range(KILLS):
        target = len(numbers) * (stop + 1) // (KILLS + 2)
        wait_until(partial(_has_done, play, target), deadline_s=120, what=f"{target} tasks to be done")
        worker = workers[stop % 2].worker
        if number == signal.SIGKILL:
            worker.kill()
            continue
        worker.pause()
        # The other one has everything, and goes on, when the frozen one continues.
        target = len(play.ledger.read().done) + KEYS
        wait_until(partial(_has_done, play, min(target, len(numbers))), deadline_s=120, what="an heir")
        worker.resume()
    play.wait_until_done(numbers, deadline_s=180)
    check(play.home / "times", freezes=0 if number == signal.SIGKILL else KILLS)


def _has_done(play: Arena, count: int) -> bool:
    return len(play.ledger.read().done) >= count


def check(times: Path, *, freezes: int) -> None:
    """Check the beginnings and the ends of the runs.

    Parameters:
      freezes: How often an owner was frozen for longer than its session. Each time it may run as many
        messages of a key as its limit says beside those of the next owner, and exceed the rate by as many.
    """
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
    gaps = [gap for each in starts.values() for gap in _gaps(each)]
    print(f"the shortest time between two runs of a key: {min(gaps):.2f} s; at once at most {most}")
    for each in starts.values():
        early = [gap for gap in _gaps(each) if gap < INTERVAL_S - SLACK_S]
        assert len(early) <= freezes * CONCURRENCY, sorted(early)
    assert most <= CONCURRENCY * (2 if freezes else 1)


def _gaps(starts: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(sorted(starts))]
