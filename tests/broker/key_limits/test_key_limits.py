"""The messages of a key run as many at once, and as fast, as its limits say."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal

import dramatiq
import pytest

from broker import KeyLimitRefused, PartitionKeyRefused
from broker.testing import Kit
from tests.broker.key_limits.conftest import QUEUE


def declare(kit: Kit, runs: list[tuple[float, int]], **options: Any) -> dramatiq.Actor[..., Any]:
    """An actor that notes when it ran, in seconds."""
    begin_s = kit.clock.wall_ms() / 1000
    options.setdefault("partition_key", lambda key, number=0: key)
    options.setdefault("max_retries", 0)

    def work(key: str, number: int = 0) -> None:
        runs.append((kit.clock.wall_ms() / 1000 - begin_s, number))

    return dramatiq.actor(broker=kit.broker, queue_name=QUEUE, **options)(work)


def run_for(kit: Kit, minutes: float, *, step_s: float = 1.0) -> None:
    for _ in range(int(minutes * 60 / step_s)):
        kit.worker.step()
        kit.advance(seconds=step_s)


def times(runs: list[tuple[float, int]]) -> list[float]:
    return [at for at, _ in runs]


def gaps(runs: list[tuple[float, int]]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times(runs))]


def test_a_rate_spaces_the_runs_of_a_key_and_leaves_other_keys_alone(kit: Kit) -> None:
    runs: list[tuple[float, int]] = []
    work = declare(kit, runs, key_rate="6/m")
    for number in range(5):
        work.send("a", number)
    work.send("b", 100)
    run_for(kit, 1.5)
    of_a = [run for run in runs if run[1] < 100]
    assert [number for _, number in of_a] == [0, 1, 2, 3, 4]
    assert all(9.8 <= gap <= 12.0 for gap in gaps(of_a)), gaps(of_a)
    assert runs[1][1] == 100
    assert kit.broker.count(QUEUE) == 0


def test_a_rate_outlives_idle_time_without_a_burst(kit: Kit) -> None:
    runs: list[tuple[float, int]] = []
    work = declare(kit, runs, key_rate="6/m")
    work.send("a")
    kit.drain()
    kit.advance(minutes=10)
    for _ in range(3):
        work.send("a")
    run_for(kit, 1)
    assert all(gap >= 9.8 for gap in gaps(runs)), gaps(runs)


def test_a_fast_rate_is_reached(kit: Kit) -> None:
    runs: list[tuple[float, int]] = []
    work = declare(kit, runs, key_rate="1000/m")
    for number in range(300):
        work.send("a", number)
    run_for(kit, 1, step_s=0.06)
    within = [at for at in times(runs) if at <= 12]
    assert 180 <= len(within) <= 204, len(within)


@pytest.mark.parametrize("point", ["before", "after", "settled"])
def test_the_rate_of_a_killed_owner_is_kept_by_the_next_one(
    kit: Kit, point: Literal["before", "after", "settled"]
) -> None:
    runs: list[tuple[float, int]] = []
    work = declare(kit, runs, key_rate="60/h")
    for number in range(3):
        work.send("a", number)
    with kit.crash_worker(point):
        kit.drain()
    for _ in range(500):
        kit.drain()
        kit.advance(seconds=1)
    assert [number for _, number in runs][-2:] == [1, 2]
    assert all(gap >= 59.8 for gap in gaps(runs)), runs


@pytest.mark.parametrize("key_rate", ["6/m", "120/m"], ids=["written", "not written"])
def test_messages_that_were_held_back_together_begin_one_interval_after_another(
    kit: Kit, key_rate: str
) -> None:
    """Both were dispatched, each in its place in the rate, and wait for a thread, as during a pause."""
    interval_s = {"6/m": 10.0, "120/m": 0.5}[key_rate]
    work = declare(kit, [], key_rate=key_rate, key_concurrency=2)
    sent = [work.send("a", number).message_id for number in range(2)]
    parts = kit.broker.parts
    consumer = kit.broker.consume(QUEUE, prefetch=2, timeout=0)
    first = next_delivery(kit, consumer)
    kit.advance(seconds=interval_s)
    second = next_delivery(kit, consumer)
    assert [first.message_id, second.message_id] == sent
    kit.advance(seconds=100)
    parts.key_paces.begin(first)
    parts.key_paces.begin(second)
    assert (first.completed, second.completed) == (False, True)
    # It is dispatched again an interval later, with its record still incomplete, and begins then.
    assert second.origin.offset in second.assigned_partition.tracker.incomplete
    assert second.origin.offset not in second.assigned_partition.in_flight
    began_s = kit.clock.wall_ms() / 1000
    again = next_delivery(kit, consumer, step_s=0.05)
    assert (again.message_id, again.origin) == (second.message_id, second.origin)
    assert interval_s - 0.2 <= kit.clock.wall_ms() / 1000 - began_s <= interval_s + 0.2
    parts.key_paces.begin(again)
    assert not again.completed
    consumer.close()


def next_delivery(kit: Kit, consumer: Any, *, step_s: float = 0.02) -> Any:
    """The next delivery of a consumer, within a minute of the kit's clock."""
    for _ in range(int(60 / step_s)):
        if (delivery := consumer.step()) is not None:
            return delivery
        kit.advance(seconds=step_s)
    raise AssertionError("there is no delivery")


def test_a_clock_that_is_set_back_does_not_stop_a_key(kit: Kit) -> None:
    runs: list[tuple[float, int]] = []
    work = declare(kit, runs, key_rate="6/m")
    for number in range(4):
        work.send("a", number)
    kit.worker.step()
    kit.clock.jump(timedelta(hours=-1))
    run_for(kit, 1)
    assert len(runs) == 4


def test_a_retry_and_a_unique_message_are_spaced_too(kit: Kit) -> None:
    runs: list[float] = []

    @dramatiq.actor(
        broker=kit.broker, queue_name=QUEUE, unique_by="key", key_rate="6/m", max_retries=2, min_backoff=1
    )
    def fail(key: str) -> None:
        runs.append(kit.clock.wall_ms() / 1000)
        raise ConnectionError

    fail.send("a")
    fail.send("a")
    for _ in range(90):
        kit.worker.step()
        kit.advance(seconds=1)
    assert len(runs) == 3
    assert all(later - earlier >= 9.8 for earlier, later in pairwise(runs)), runs


# The options


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"key_concurrency": 0}, "is 0: pass a whole number from 1 to 256"),
        ({"key_concurrency": -1}, "is -1: pass a whole number"),
        ({"key_concurrency": 1.5}, "is 1.5: pass a whole number"),
        ({"key_concurrency": True}, "is True: pass a whole number"),
        ({"key_concurrency": "2"}, "is '2': pass a whole number"),
        ({"key_concurrency": 257}, "is 257: pass a whole number"),
        ({"key_rate": "100"}, "is '100': pass a text such as '100/m'"),
        ({"key_rate": "100/w"}, "is '100/w': pass a text"),
        ({"key_rate": "-1/m"}, "is '-1/m': pass a text"),
        ({"key_rate": "0/m"}, "is '0/m': pass a text"),
        ({"key_rate": "1.5/m"}, "is '1.5/m': pass a text"),
        ({"key_rate": 100}, "is 100: pass a text"),
        ({"key_rate": "9999999/s"}, "a number from 1 to 1000000"),
        ({"key_concurrency": 2, "key_order": "ordered"}, "beside key_order='ordered'"),
        ({"key_concurrency": 2, "partition_key": None, "unique_by": "key"}, "beside a unique key"),
        ({"key_concurrency": 17, "partition_key": "all"}, "is the same for all messages"),
        pytest.param(
            {"key_concurrency": 17, "partition_key": lambda *_: "all"},
            "is the same for all messages",
            id="a constant key",
        ),
    ],
    ids=str,
)
def test_limits_that_cannot_be_are_refused_where_they_are_declared(
    kit: Kit, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(KeyLimitRefused, match=reason):
        declare(kit, [], **options)


def test_limits_of_a_message_that_cannot_be_are_refused_where_it_is_sent(kit: Kit) -> None:
    work = declare(kit, [])
    for options in ({"key_concurrency": 0}, {"key_rate": "1/x"}):
        with pytest.raises(KeyLimitRefused, match="of a message of 'work' is"):
            work.send_with_options(args=("a",), **options)
    ordered = declare(kit, [], key_order="ordered", actor_name="ordered")
    with pytest.raises(KeyLimitRefused, match="of a message of 'ordered' is 2 beside key_order"):
        ordered.send_with_options(args=("a",), key_concurrency=2)


def test_a_constant_key_is_a_text_beside_a_limit_and_its_length_is_checked(kit: Kit) -> None:
    runs: list[tuple[float, int]] = []
    work = declare(kit, runs, partition_key="all", key_rate="6/m", key_concurrency=16)
    work.send("a", 0)
    work.send("b", 1)
    run_for(kit, 0.5)
    assert gaps(runs)[0] >= 9.8
    with pytest.raises(PartitionKeyRefused, match="has 256 bytes"):
        declare(kit, [], partition_key="x" * 256, key_rate="6/m", actor_name="other")


def test_a_message_without_a_key_has_no_limit_and_its_options_precede_those_of_its_actor(kit: Kit) -> None:
    runs: list[tuple[float, int]] = []
    work = declare(kit, runs, key_rate="1/h")
    for number in range(3):
        work.send_with_options(args=("a", number), partition_key=None)
    for number in range(3, 6):
        work.send_with_options(args=("b", number), key_rate=None)
    kit.drain()
    assert sorted(number for _, number in runs) == list(range(6))
