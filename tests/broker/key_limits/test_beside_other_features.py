"""The table of docs/key-limits.md: how the rate of a key behaves beside each other feature."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import dramatiq
import pytest

from broker import Outcome
from broker.testing import Kit
from tests.broker.key_limits.conftest import QUEUE

#: The rate of each actor here is 6/m.
INTERVAL_S, SLACK_S = 10.0, 0.2
MINUTE_MS = 60_000


class Work:
    """An actor with a rate, and its runs, as (seconds since the beginning, number)."""

    def __init__(self, kit: Kit, *, failures: int = 0, **options: Any) -> None:
        self.kit = kit
        self.runs: list[tuple[float, int]] = []
        self._begin_s = kit.clock.wall_ms() / 1000
        left = [failures]

        def work(key: str, number: int) -> None:
            self.runs.append((kit.clock.wall_ms() / 1000 - self._begin_s, number))
            if left[0]:
                left[0] -= 1
                raise ConnectionError

        options = {"partition_key": lambda key, number: key, "max_retries": 0, **options}
        self.actor = dramatiq.actor(broker=kit.broker, queue_name=QUEUE, key_rate="6/m", **options)(work)

    def send(self, number: int, **options: Any) -> str:
        return self.actor.send_with_options(args=("a", number), **options).message_id

    def let_pass(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.kit.worker.step()
            self.kit.advance(seconds=1)

    @property
    def order(self) -> list[int]:
        return [number for _, number in self.runs]

    def check(self, *order: int) -> None:
        """These have run, in this order, an interval apart, and nothing is left."""
        assert self.order == list(order)
        gaps = [later - earlier for (earlier, _), (later, _) in pairwise(self.runs)]
        assert all(gap >= INTERVAL_S - SLACK_S for gap in gaps), self.runs
        assert self.kit.broker.count(QUEUE) == 0


def test_a_delayed_message_takes_its_place_when_it_is_due(kit: Kit) -> None:
    work = Work(kit)
    work.send(0, delay=15_000)
    for number in range(1, 4):
        work.send(number)
    work.let_pass(60)
    work.check(1, 2, 3, 0)


@pytest.mark.parametrize(("key_order", "order"), [("ordered", (0, 0, 1, 2)), ("relaxed", (0, 1, 2, 0))])
def test_a_retry_counts_and_an_ordered_one_holds_the_lane(
    kit: Kit, key_order: str, order: tuple[int, ...]
) -> None:
    work = Work(kit, failures=1, max_retries=1, min_backoff=1_000, max_backoff=1_000, key_order=key_order)
    for number in range(3):
        work.send(number)
    work.let_pass(60)
    work.check(*order)


def test_an_ordered_retry_that_is_due_later_than_the_rate_allows_begins_when_it_is_due(kit: Kit) -> None:
    work = Work(
        kit, failures=1, max_retries=1, min_backoff=MINUTE_MS, max_backoff=MINUTE_MS, key_order="ordered"
    )
    work.send(0)
    work.send(1)
    work.let_pass(120)
    work.check(0, 0, 1)
    assert work.runs[1][0] - work.runs[0][0] >= INTERVAL_S


def test_a_dead_letter_has_taken_its_place_and_a_redriven_message_takes_another(kit: Kit) -> None:
    work = Work(kit, failures=1)
    work.send(0)
    work.send(1)
    work.let_pass(5)
    assert kit.broker.redrive(QUEUE, dry_run=False, reason="a test")
    work.let_pass(60)
    work.check(0, 1, 0)


@pytest.mark.parametrize("drop", ["cancel", "flush"])
def test_a_dropped_message_takes_no_place(kit: Kit, drop: str) -> None:
    work = Work(kit)
    work.send(0)
    work.let_pass(2)
    if drop == "cancel":
        dropped = work.send(1, delay=5_000)
        assert kit.broker.cancel(dropped) == Outcome.CANCELLED
    else:
        work.send(1)
        kit.broker.flush(QUEUE)
    work.send(2)
    work.let_pass(60)
    work.check(0, 2)
    assert work.runs[1][0] - work.runs[0][0] <= INTERVAL_S + 2  # one interval, and the step of this test


@pytest.mark.parametrize("end", ["abort", "expiry"])
def test_a_message_that_ends_before_its_run_leaves_the_interval_of_the_runs(kit: Kit, end: str) -> None:
    work = Work(kit)
    work.send(0)
    ended = work.send(1, **({"expires_in": 5_000} if end == "expiry" else {}))
    work.send(2)
    work.let_pass(2)
    if end == "abort":
        kit.broker.abort(ended, reason="a test")
    work.let_pass(60)
    work.check(0, 2)
    # It has taken its place: the next one comes an interval later.
    assert work.runs[1][0] - work.runs[0][0] >= 2 * (INTERVAL_S - SLACK_S)


def test_a_paused_queue_runs_nothing_and_its_messages_are_spaced_afterwards(kit: Kit) -> None:
    work = Work(kit)
    kit.broker.pause(QUEUE, reason="a test")
    for number in range(3):
        work.send(number)
    work.let_pass(40)
    assert work.runs == []
    kit.broker.resume(QUEUE)
    work.let_pass(60)
    work.check(0, 1, 2)
