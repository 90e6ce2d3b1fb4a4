"""crash_worker() and kafka_away(): what is lost, what runs again, and what a sender sees."""

from __future__ import annotations

import time

import dramatiq
import pytest

from broker import EnqueueFailed, KafkaBroker, PoisonMessage
from broker.testing import MemoryBroker, advance, assert_dead, crash_worker, dead, drain, kafka_away, pending
from broker.testing.kit import CrashPoint, current
from tests.broker.testing.conftest import Runs


@pytest.mark.parametrize(("at", "expected_runs"), [("before", 1), ("after", 2), ("settled", 2)])
def test_a_message_whose_worker_dies_runs_again_unless_it_had_not_begun(
    at: CrashPoint, expected_runs: int, runs: Runs
) -> None:
    work = dramatiq.actor(actor_name="work")(runs.append)
    work.send(1)
    with crash_worker(at):
        drain()
    drain()
    assert runs == [1] * expected_runs


@pytest.mark.parametrize(("at", "sent"), [("after", 1), ("settled", 2)])
def test_what_a_task_has_enqueued_is_kept_and_a_next_step_is_published_before_the_ack(
    at: CrashPoint, sent: int, runs: Runs
) -> None:
    @dramatiq.actor
    def first() -> int:
        return 1

    second = dramatiq.actor(actor_name="second")(runs.append)
    (first.message() | second.message_with_options()).run()
    with crash_worker(at):
        drain()
    drain()
    assert runs == [1] * sent


def test_a_crash_leaves_the_message_of_a_max_retries_of_0_to_run_again(runs: Runs) -> None:
    work = dramatiq.actor(actor_name="work", max_retries=0)(runs.append)
    work.send(1)
    with crash_worker():
        drain()
    drain()
    assert runs == [1, 1]
    assert dead() == []


def test_a_message_that_kills_three_workers_becomes_a_dead_letter(runs: Runs) -> None:
    work = dramatiq.actor(actor_name="work")(runs.append)
    work.send(1)
    with crash_worker():
        for _ in range(3):
            drain()
    drain()
    assert_dead(work, PoisonMessage)
    assert runs == [1, 1, 1]


@pytest.mark.parametrize("at", ["before", "after", "settled"])
def test_a_crash_in_the_middle_of_a_key_keeps_its_order(at: CrashPoint, runs: Runs) -> None:
    @dramatiq.actor(partition_key=lambda number: "one key", key_order="ordered")
    def work(number: int) -> None:
        runs.append(number)

    for number in range(5):
        work.send(number)
    with crash_worker(at):
        drain()
    with crash_worker(at):
        drain()
    drain()
    assert list(dict.fromkeys(runs)) == sorted(set(runs)) == list(range(5))


def test_a_crash_that_did_not_happen_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="no message ran"), crash_worker():
        drain()


def test_a_crash_within_a_crash_is_the_inner_ones_first(runs: Runs) -> None:
    work = dramatiq.actor(actor_name="work")(runs.append)
    work.send(1)
    with crash_worker("after"):
        with crash_worker("before"):
            drain()
        assert runs == []
        drain()
        assert runs == [1]
    drain()
    assert runs == [1, 1]


def test_the_middleware_of_a_crashed_worker_shuts_down_for_it_has_threads_in_this_process(
    runs: Runs, kafka_broker: KafkaBroker
) -> None:
    @dramatiq.actor
    async def work() -> None:
        runs.append(1)

    work.send()
    with crash_worker():
        drain()
    drain()
    assert runs == [1, 1]


def test_a_send_while_kafka_is_away_fails_after_its_timeout_which_takes_no_time(runs: Runs) -> None:
    work = dramatiq.actor(actor_name="work")(runs.append)
    work.send(1)
    began_s = time.monotonic()
    with kafka_away(), pytest.raises(EnqueueFailed):
        work.send(2)
    assert time.monotonic() - began_s < 25
    drain()
    assert runs == [1]


def test_nothing_runs_while_kafka_is_away_and_everything_afterwards(runs: Runs) -> None:
    work = dramatiq.actor(actor_name="work")(runs.append)
    work.send(1)
    with kafka_away():
        assert drain() == 0
        with kafka_away():
            pass
        assert drain() == 0
    assert drain() == 1


def test_a_task_during_which_kafka_goes_away_fails_like_any_other(runs: Runs) -> None:
    follow = dramatiq.actor(actor_name="follow")(runs.append)

    @dramatiq.actor(max_retries=1)
    def work() -> None:
        if not runs:
            runs.append("first")
            with kafka_away():
                follow.send("lost")
        follow.send("second")

    work.send()
    with pytest.raises(EnqueueFailed):
        drain()
    advance(hours=1)
    drain()
    assert runs == ["first", "second"]


def test_a_finished_task_is_not_repeated_because_kafka_was_away_at_its_end(runs: Runs) -> None:
    follow = dramatiq.actor(actor_name="follow")(runs.append)
    cluster = current().cluster

    @dramatiq.actor
    def work() -> int:
        runs.append("work")
        cluster.reachable.clear()
        return 2

    (work.message() | follow.message_with_options()).run()
    drain()
    assert runs == ["work"]
    cluster.come_back()
    drain()
    assert runs == ["work", 2]
    assert pending() == []


def test_a_send_that_times_out_while_kafka_is_frozen_fails_and_arrives_all_the_same(runs: Runs) -> None:
    work = dramatiq.actor(actor_name="work")(runs.append)
    work.send(1)
    drain()
    with current().cluster.frozen(), pytest.raises(EnqueueFailed):
        work.send(2)
    drain()
    assert runs == [1, 2]


def test_a_closed_broker_in_memory_sends_nothing_to_a_real_kafka() -> None:
    broker = MemoryBroker(clock=current().clock)
    work = dramatiq.actor(broker=broker, actor_name="work")(lambda: None)
    broker.close()
    with pytest.raises(RuntimeError, match="closed"):
        work.send()
