"""A paused queue in one worker: nothing of it begins, and nothing is lost, repeated or reordered."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.errors import QueueNotFound

from broker import KafkaBroker
from broker.control.commands import IN_FORCE_AFTER_S, JOINED_REPORTS_WITHIN_S
from broker.control.standing import LEASE_S
from broker.kafka.types import TopicPartition
from broker.reaper.death_note import DeathNote
from broker.reports.report import ControlState, encode_report
from broker.testing import Kit
from broker.testing.inline_worker import PREFETCH
from tests.broker.control.conftest import QUEUE
from tests.broker.reports.samples import report

REASON = "the mail server is down"


@pytest.fixture
def runs() -> list[Any]:
    return []


@pytest.fixture
def task(kit: Kit, runs: list[Any]) -> dramatiq.Actor[..., Any]:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def note(number: int) -> None:
        runs.append(number)

    return note


@pytest.fixture
def ordered(kit: Kit, runs: list[Any]) -> dramatiq.Actor[..., Any]:
    """An actor whose messages fail once, in the order of their key."""
    failed: set[int] = set()

    @dramatiq.actor(
        broker=kit.broker, queue_name=QUEUE, key_order="ordered", min_backoff=1_000, max_backoff=1_000
    )
    def fail_once(number: int) -> None:
        if number not in failed:
            failed.add(number)
            raise ConnectionError
        runs.append(number)

    return fail_once


def test_a_paused_queue_keeps_its_messages_and_a_resumed_one_runs_them(
    kit: Kit, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    kit.broker.pause(QUEUE, reason=REASON)
    for number in range(5):
        task.send(number)
    assert kit.drain() == 0
    assert kit.broker.count(QUEUE) == 5

    kit.broker.resume(QUEUE)
    assert kit.drain() == 5
    assert sorted(runs) == [0, 1, 2, 3, 4]
    assert kit.broker.count(QUEUE) == 0


def test_other_queues_run_while_one_is_paused(kit: Kit, task: dramatiq.Actor[..., Any]) -> None:
    other_runs = []

    @dramatiq.actor(broker=kit.broker, queue_name="other")
    def other() -> None:
        other_runs.append(1)

    kit.broker.pause(QUEUE, reason=REASON)
    task.send(1)
    other.send()
    assert kit.drain() == 1
    assert other_runs == [1]


def test_prefetched_messages_do_not_begin_after_a_pause_and_run_once_after_it(
    kit: Kit, runs: list[Any]
) -> None:
    # Given a task that pauses its own queue, while others are prefetched behind it
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def pause(number: int) -> None:
        runs.append(number)
        if number == 0:
            kit.broker.pause(QUEUE, reason=REASON)
            kit.worker.step()  # the worker reads the pause, as its own thread does

    for number in range(PREFETCH):
        pause.send(number)
    # When they are drained, then only the first has run, and no attempt was made of the others
    kit.drain()
    assert runs == [0]
    kit.broker.resume(QUEUE)
    kit.drain()
    assert sorted(runs) == list(range(PREFETCH))
    assert kit.broker.count(QUEUE) == 0


def test_messages_of_a_key_keep_their_order_through_a_pause(kit: Kit, runs: list[Any]) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def pause(key: str, number: int) -> None:
        runs.append((key, number))
        if number == 1 and key == "a":
            kit.broker.pause(QUEUE, reason=REASON)
            kit.worker.step()

    for number in range(4):
        for key in ("a", "b"):
            pause.send_with_options(args=(key, number), partition_key=key)
    kit.drain()
    assert len(runs) < 8
    kit.broker.resume(QUEUE)
    kit.drain()
    for key in ("a", "b"):
        assert [number for which, number in runs if which == key] == [0, 1, 2, 3]


def test_delayed_messages_and_retries_of_a_paused_queue_come_to_it_and_wait(
    kit: Kit, runs: list[Any]
) -> None:
    failures: list[int] = []

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, min_backoff=1_000, max_backoff=1_000)
    def flaky(number: int) -> None:
        if number == 0 and not failures:
            failures.append(1)
            raise ConnectionError
        runs.append(number)

    flaky.send(0)
    flaky.send_with_options(args=(1,), delay=1_000)
    kit.drain(raise_errors=False)
    assert len(kit.delayed(QUEUE)) == 2
    kit.broker.pause(QUEUE, reason=REASON)
    kit.advance(hours=1)
    kit.drain()
    assert (runs, len(kit.delayed(QUEUE)), len(kit.pending(QUEUE))) == ([], 0, 2)
    kit.broker.resume(QUEUE)
    kit.drain()
    assert sorted(runs) == [0, 1]


def test_ordered_retries_of_a_key_keep_their_order_through_a_pause(
    kit: Kit, ordered: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    for number in range(4):
        ordered.send_with_options(args=(number,), partition_key="a key")
    kit.drain(raise_errors=False)
    kit.broker.pause(QUEUE, reason=REASON)
    kit.advance(hours=1)
    kit.drain()
    assert runs == []
    kit.broker.resume(QUEUE)
    for _ in range(20):
        kit.drain(raise_errors=False)
        kit.advance(seconds=2)
    assert runs == [0, 1, 2, 3]
    assert kit.broker.count(QUEUE) == 0


def test_a_pause_outlives_all_workers(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    operator.pause(QUEUE, reason=REASON)
    task.send(1)
    for _ in range(3):
        kit.drain()
        kit.worker.kill()
    assert kit.drain() == 0
    operator.resume(QUEUE)
    kit.drain()
    assert runs == [1]


def test_workers_that_die_while_a_queue_is_paused_do_not_make_its_messages_suspects(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    # Given messages on probation, since their worker died while they ran
    for number in range(4):
        task.send(number)
    with kit.crash_worker("before"):
        kit.drain()
    operator.pause(QUEUE, reason=REASON)
    # When more workers die than a message of a suspect may survive
    for _ in range(5):
        kit.drain()
        kit.worker.kill()
    # Then none of them is poison
    operator.resume(QUEUE)
    kit.drain()
    assert sorted(runs) == [0, 1, 2, 3]
    assert kit.dead() == []


def test_a_suspect_of_a_paused_queue_does_not_hold_up_other_queues(
    kit: Kit, operator: KafkaBroker, task: dramatiq.Actor[..., Any], runs: list[Any]
) -> None:
    # Given a suspect, which would run alone in the process
    other_runs = []

    @dramatiq.actor(broker=kit.broker, queue_name="other")
    def other() -> None:
        other_runs.append(1)

    task.send(0)
    for _ in range(2):
        with kit.crash_worker("before"):
            kit.drain()
    operator.pause(QUEUE, reason=REASON)
    kit.drain()
    other.send()
    assert kit.drain() == 1
    assert other_runs == [1]
    operator.resume(QUEUE)
    kit.drain()
    assert runs == [0]


def test_a_flush_drops_the_messages_that_were_given_back(kit: Kit, runs: list[Any]) -> None:
    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def pause(number: int) -> None:
        runs.append(number)
        if number == 0:
            kit.broker.pause(QUEUE, reason=REASON)
            kit.worker.step()

    for number in range(6):
        pause.send_with_options(args=(number,), partition_key="a key" if number % 2 else None)
    kit.drain()
    kit.broker.flush(QUEUE)
    kit.broker.resume(QUEUE)
    pause.send_with_options(args=(7,), partition_key="a key")
    kit.drain()
    assert runs == [0, 7]
    assert kit.broker.count(QUEUE) == 0


def test_a_pause_is_in_force_once_no_worker_has_an_earlier_lease(
    kit: Kit, task: dramatiq.Actor[..., Any]
) -> None:
    task.send(0)
    kit.drain()  # a member of the group, which writes no reports
    assert not kit.broker.pause(QUEUE, reason=REASON).in_force
    began_s = kit.clock.monotonic_s()
    assert kit.broker.pause(QUEUE, reason=REASON, timeout_s=60.0).in_force
    assert kit.clock.monotonic_s() - began_s >= IN_FORCE_AFTER_S > LEASE_S


def test_a_pause_that_waits_for_less_than_the_lease_says_that_it_may_not_be_in_force(
    kit: Kit, task: dramatiq.Actor[..., Any]
) -> None:
    task.send(0)
    kit.drain()
    assert not kit.broker.pause(QUEUE, reason=REASON, timeout_s=LEASE_S / 2).in_force


def test_a_member_of_the_group_that_is_in_no_report_is_named_and_the_pause_is_not_certain(
    kit: Kit, task: dramatiq.Actor[..., Any]
) -> None:
    task.send(0)
    kit.drain()  # as a worker of an earlier version, or with reports=False
    for timeout_s in (0.0, 60.0):
        result = kit.broker.pause(QUEUE, reason=REASON, timeout_s=timeout_s)
        (unknown,) = result.unknown
        assert "(client 'memory' on memory)" in unknown
        assert not result.is_certain
    assert (result.in_force, result.members_known) == (True, True)


def test_a_pause_that_waits_gives_a_worker_that_has_just_joined_time_to_report(
    kit: Kit, task: dramatiq.Actor[..., Any]
) -> None:
    task.send(0)
    kit.drain()
    began_s = kit.clock.monotonic_s()
    kit.broker.pause(QUEUE, reason=REASON, timeout_s=60.0)
    took_s = kit.clock.monotonic_s() - began_s
    assert IN_FORCE_AFTER_S + JOINED_REPORTS_WITHIN_S <= took_s < 60.0


def test_a_member_in_the_report_of_a_worker_that_has_died_is_no_unknown_worker(
    kit: Kit, task: dramatiq.Actor[..., Any], operator: KafkaBroker
) -> None:
    # Given a group that still has the member of a killed worker
    task.send(0)
    kit.drain()
    topics = kit.broker.parts.topics
    group = kit.broker.parts.group_of(QUEUE)
    (member_id,) = kit.cluster.group(group).members
    kit.cluster.create_topic(topics.workers, settings={"cleanup.policy": "compact,delete"})
    now_ms = kit.clock.wall_ms()
    killed = report(
        worker_id="a:1:x", queues=(QUEUE,), members={group: member_id}, at_ms=now_ms, control=ControlState()
    )
    partition = TopicPartition(topics.workers, 0)
    kit.cluster.append(partition, b"a:1:x", encode_report(killed))
    note = DeathNote("a:1:x", now_ms, signal=9)
    kit.cluster.append(partition, note.key, note.encode())
    # When the queue is paused, then nothing of it begins
    result = operator.pause(QUEUE, reason=REASON)
    assert (result.is_certain, result.unknown) == (True, ())


def test_a_pause_of_a_queue_without_workers_is_in_force_at_once(
    kit: Kit, task: dramatiq.Actor[..., Any]
) -> None:
    assert kit.broker.pause(QUEUE, reason=REASON).is_certain


def test_the_state_of_a_queue_says_whether_it_is_paused(kit: Kit, task: dramatiq.Actor[..., Any]) -> None:
    task.send(0)
    assert [state.is_paused for state in kit.broker.queues(QUEUE)] == [False]
    kit.broker.pause(QUEUE, reason=REASON)
    assert [state.is_paused for state in kit.broker.queues(QUEUE)] == [True]


def test_the_pauses_that_stand_say_who_paused_what_and_why(kit: Kit, task: dramatiq.Actor[..., Any]) -> None:
    assert kit.broker.paused_queues() == {}
    kit.broker.pause(QUEUE, reason=REASON, by="ops@host")
    stands = kit.broker.paused_queues()[QUEUE]
    assert (stands.target, stands.by, stands.reason) == (QUEUE, "ops@host", REASON)
    kit.broker.resume(QUEUE)
    assert kit.broker.paused_queues() == {}


def test_a_queue_whose_last_command_is_of_a_later_version_may_be_paused(
    kit: Kit, task: dramatiq.Actor[..., Any]
) -> None:
    kit.broker.declare_queue("other")
    kit.broker.pause("other", reason=REASON)
    assert kit.broker.paused_queues().is_complete
    control = TopicPartition(kit.broker.parts.topics.control, 0)
    kit.cluster.append(control, f"pause:{QUEUE}".encode(), b'{"v": 99}')
    kit.cluster.append(control, b"worker:w1", b'{"v": 99}')
    # Then nobody claims to know
    paused, pauses = kit.broker.paused_queues(), kit.broker.pauses()
    assert (list(paused), paused.unreadable, paused.is_complete) == (["other"], frozenset([QUEUE]), False)
    assert (list(pauses), pauses.unreadable, pauses.is_complete) == (["other"], frozenset([QUEUE]), False)
    assert [state.is_paused for state in kit.broker.queues(QUEUE, "other")] == [None, True]
    # Until a command that can be read replaces it
    kit.broker.resume(QUEUE)
    assert kit.broker.paused_queues().is_complete
    assert [state.is_paused for state in kit.broker.queues(QUEUE, "other")] == [False, True]


def test_an_undeclared_queue_cannot_be_paused(kit: Kit) -> None:
    with pytest.raises(QueueNotFound):
        kit.broker.pause("misspelt", reason=REASON)
    with pytest.raises(QueueNotFound):
        kit.broker.resume("misspelt")


def test_a_process_without_a_worker_reads_no_commands() -> None:
    with Kit(KafkaBroker()).use() as kit:

        @dramatiq.actor(broker=kit.broker)
        def task() -> None: ...

        task.send()
        assert kit.broker.parts.topics.control not in kit.cluster.topics
        assert kit.broker.parts.in_flight.gate.admits("default")
