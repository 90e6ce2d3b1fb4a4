"""The reader of the control topic: when its worker may begin tasks, and what it outlives."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import dramatiq
import pytest

from broker import KafkaBroker
from broker.control.notices import GONE_AFTER_S, LOOK_UP_GAP_S, NEVER_READ_AFTER_S, UNREADABLE_AFTER_S
from broker.control.standing import LEASE_S
from broker.kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from broker.kafka.types import TopicPartition
from broker.parts import Parts
from broker.process import clock
from broker.reports.report import ControlState
from broker.testing import Kit
from broker.testing.memory.faults import Request
from tests.broker.control.conftest import QUEUE
from tests.waiting import wait_until

DEADLINE_S = 30
REASON = "a test"


@pytest.fixture
def parts(kit: Kit) -> Parts:
    """The parts of a worker process whose thread is the test's."""
    kit.broker.declare_queue(QUEUE)
    kit.broker.parts.notices.begin()
    return kit.broker.parts


@pytest.fixture
def operator(kit: Kit) -> Iterator[KafkaBroker]:
    with ExitStack() as closing:
        other = Kit(KafkaBroker(), kit.cluster, kit.clock)
        closing.enter_context(other.use())
        other.broker.declare_queue(QUEUE)
        yield other.broker


def admits(parts: Parts) -> bool:
    return parts.in_flight.gate.admits(QUEUE)


def status(parts: Parts) -> ControlState:
    """What the report of the worker says about commands."""
    return parts.reporter.control.state


def pass_time(kit: Kit, parts: Parts, duration_s: float) -> None:
    """Let time pass, with a step of the reader four times a second."""
    until_s = clock.monotonic_s() + duration_s
    while clock.monotonic_s() < until_s:
        kit.clock.tick(0.25)
        parts.notices.step(max_wait_s=0.0)


def control(parts: Parts) -> TopicPartition:
    return TopicPartition(parts.topics.control, 0)


def test_nothing_begins_before_the_commands_were_read(parts: Parts) -> None:
    assert not admits(parts)
    parts.notices.step(max_wait_s=0.0)
    assert admits(parts)
    assert not status(parts).pauses_unknown


def test_a_worker_that_starts_while_a_queue_is_paused_begins_nothing_of_it(
    parts: Parts, operator: KafkaBroker
) -> None:
    operator.pause(QUEUE, reason=REASON)
    for _ in range(3):
        assert not admits(parts)
        parts.notices.step(max_wait_s=0.0)
    assert status(parts).paused_queues == (QUEUE,)


def test_the_first_command_of_a_namespace_is_noticed(kit: Kit, parts: Parts, operator: KafkaBroker) -> None:
    parts.notices.step(max_wait_s=0.0)
    assert parts.topics.control not in kit.cluster.topics
    command = operator.pause(QUEUE, reason=REASON).command
    pass_time(kit, parts, LOOK_UP_GAP_S + 0.5)
    assert not admits(parts)
    assert status(parts).applied == (command.id,)


def test_later_commands_are_applied_in_one_step(kit: Kit, parts: Parts, operator: KafkaBroker) -> None:
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 1.0)
    operator.resume(QUEUE)
    parts.notices.step(max_wait_s=0.0)
    assert admits(parts)
    operator.pause(QUEUE, reason=REASON)
    parts.notices.step(max_wait_s=0.0)
    assert not admits(parts)


def test_the_lease_is_renewed_while_kafka_answers(kit: Kit, parts: Parts, operator: KafkaBroker) -> None:
    operator.resume(QUEUE)
    for _ in range(5):
        pass_time(kit, parts, LEASE_S)
        assert admits(parts)


@pytest.mark.parametrize("has_topic", [False, True])
def test_a_worker_that_was_frozen_begins_nothing_before_it_has_read_what_it_missed(
    kit: Kit, parts: Parts, operator: KafkaBroker, has_topic: bool
) -> None:
    if has_topic:
        operator.resume(QUEUE)
    pass_time(kit, parts, 1.0)
    assert admits(parts)
    # When it is frozen for longer than its lease, while its queue is paused
    operator.pause(QUEUE, reason=REASON)
    kit.clock.tick(LEASE_S)
    # Then nothing begins, before and after its first read
    assert not admits(parts)
    pass_time(kit, parts, 3.0)
    assert not admits(parts)
    assert status(parts).paused_queues == (QUEUE,)
    operator.resume(QUEUE)
    pass_time(kit, parts, 1.0)
    assert admits(parts)


def test_a_worker_that_kafka_does_not_answer_begins_nothing_after_its_lease_until_it_does(
    kit: Kit, parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    pass_time(kit, parts, 1.0)
    with kit.kafka_away():
        pass_time(kit, parts, 4 * UNREADABLE_AFTER_S)
        assert not admits(parts)
    assert caplog.text.count("No task begins until it does") == 1
    pass_time(kit, parts, LEASE_S)
    assert admits(parts)
    assert caplog.text.count("commands are read again") == 1


@pytest.mark.parametrize("silence_s", [2 * NEVER_READ_AFTER_S, 2 * UNREADABLE_AFTER_S])
@pytest.mark.parametrize("has_read", [True, False], ids=["had read", "booted meanwhile"])
@pytest.mark.parametrize("silence", ["away", "frozen worker"])
def test_after_a_long_silence_nothing_of_a_queue_begins_that_was_paused_in_it(
    kit: Kit, parts: Parts, operator: KafkaBroker, silence_s: float, has_read: bool, silence: str
) -> None:
    operator.resume(QUEUE)
    if has_read:
        pass_time(kit, parts, 1.0)
        assert admits(parts)
    if silence == "away":
        with kit.kafka_away():
            pass_time(kit, parts, silence_s)
    else:
        kit.clock.tick(silence_s)
    operator.pause(QUEUE, reason=REASON)
    # When the answers about the topic's end take a while
    kit.cluster.refuse(Request.LIST_OFFSETS, lambda: KafkaTimeoutError("busy"), times=4)
    for _ in range(int(4 * NEVER_READ_AFTER_S)):
        pass_time(kit, parts, 0.25)
        assert not admits(parts)
    assert status(parts).paused_queues == (QUEUE,)
    assert not status(parts).pauses_unknown


def test_the_time_of_an_outage_does_not_make_a_topic_count_as_deleted(
    kit: Kit, parts: Parts, operator: KafkaBroker
) -> None:
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 1.0)
    # When nodes do not know the topic for a moment, before and after an outage
    topic = kit.cluster.topics.pop(parts.topics.control)
    with kit.kafka_away():
        pass_time(kit, parts, LEASE_S)
    pass_time(kit, parts, GONE_AFTER_S / 2)
    with kit.kafka_away():
        pass_time(kit, parts, 2 * LEASE_S)
    pass_time(kit, parts, GONE_AFTER_S / 2)
    # Then its pauses stand
    assert status(parts).paused_queues == (QUEUE,)
    assert not admits(parts)
    kit.cluster.topics[parts.topics.control] = topic
    pass_time(kit, parts, 2.0)
    assert status(parts).paused_queues == (QUEUE,)


def test_a_worker_without_the_right_to_read_commands_works_and_says_so_once(
    kit: Kit, parts: Parts, operator: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    operator.pause(QUEUE, reason=REASON)
    topic = parts.topics.control
    denial = kit.cluster.refuse(
        Request.FETCH, lambda: TopicAuthorizationFailedError({topic}), topic=topic, times=None
    )
    pass_time(kit, parts, 1.0)
    assert admits(parts)
    assert status(parts).pauses_unknown
    pass_time(kit, parts, 2 * UNREADABLE_AFTER_S)
    assert admits(parts)
    [line] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"READ on the topic '{topic}'" in line.getMessage()
    # Once the right is granted, the pause is in force
    denial.times = 0
    kit.cluster.faults.clear()
    pass_time(kit, parts, LEASE_S)
    assert not admits(parts)
    assert not status(parts).pauses_unknown


def test_a_worker_starts_when_kafka_answers_and_the_topic_cannot_be_read(
    kit: Kit, parts: Parts, operator: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    operator.resume(QUEUE)
    kit.cluster.refuse(Request.LIST_OFFSETS, lambda: KafkaTimeoutError("no leader"), times=None)
    pass_time(kit, parts, NEVER_READ_AFTER_S / 2)
    assert not admits(parts)
    pass_time(kit, parts, NEVER_READ_AFTER_S)
    assert admits(parts)
    assert status(parts).pauses_unknown
    assert [r.levelno for r in caplog.records if "Kafka answers, and not about" in r.getMessage()] == [
        logging.ERROR
    ]


def test_pauses_stay_in_force_while_the_topic_cannot_be_read(
    kit: Kit, parts: Parts, operator: KafkaBroker
) -> None:
    operator.declare_queue("other")
    operator.pause("other", reason=REASON)
    pass_time(kit, parts, 1.0)
    kit.cluster.refuse(Request.LIST_OFFSETS, lambda: KafkaTimeoutError("no leader"), times=None)
    pass_time(kit, parts, 2 * UNREADABLE_AFTER_S)
    assert admits(parts)
    assert not parts.in_flight.gate.admits("other")


def test_a_deleted_topic_ends_its_pauses_and_a_recreated_one_is_read(
    kit: Kit, parts: Parts, operator: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 1.0)
    kit.cluster.delete_topic(parts.topics.control)
    pass_time(kit, parts, GONE_AFTER_S / 2)
    assert not admits(parts), "a node may not know the topic for a moment"
    pass_time(kit, parts, GONE_AFTER_S + LOOK_UP_GAP_S)
    assert admits(parts)
    assert "is gone" in caplog.text
    operator.parts.topics.forget([parts.topics.control])
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, LOOK_UP_GAP_S + 1.0)
    assert not admits(parts)


def test_a_topic_that_was_recreated_in_between_is_read_from_its_beginning(
    kit: Kit, parts: Parts, operator: KafkaBroker
) -> None:
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 1.0)
    kit.cluster.delete_topic(parts.topics.control)
    kit.cluster.create_topic(parts.topics.control, settings={"cleanup.policy": "compact"})
    pass_time(kit, parts, 3.0)
    assert admits(parts)


def test_a_pause_that_the_log_has_lost_is_over(kit: Kit, parts: Parts, operator: KafkaBroker) -> None:
    operator.resume(QUEUE)
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 3.0)
    assert not admits(parts)
    kit.cluster.elect(control(parts), lose_from=1)
    pass_time(kit, parts, 3.0)
    assert admits(parts)


def test_a_record_that_cannot_be_read_is_logged_once_and_skipped(
    kit: Kit, parts: Parts, operator: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    operator.resume(QUEUE)
    kit.cluster.append(control(parts), b"pause:mail", b"{")
    kit.cluster.append(control(parts), b"\xff", None)
    operator.declare_queue("other")
    operator.pause("other", reason=REASON)
    pass_time(kit, parts, 4 * LEASE_S)
    assert status(parts).paused_queues == ("other",)
    assert caplog.text.count("is skipped") == 2


def test_line_ends_in_the_texts_of_a_command_begin_no_line_of_the_log(
    kit: Kit, parts: Parts, operator: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    worker_id = parts.identity.worker_id
    forged = "a reason\nERROR all is lost\x1b[2J"
    operator.pause(QUEUE, reason=forged, by="ops\r\nme")
    operator.quiet(worker_id, reason=forged, by="ops\u2028me", allow_unseen=True)
    pass_time(kit, parts, 1.0)
    lines = [record.getMessage() for record in caplog.records if "a reason" in record.getMessage()]
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert r"by ops\r\nme: a reason\nERROR all is lost\x1b[2J" in lines[0]


def test_a_tombstone_ends_a_pause(kit: Kit, parts: Parts, operator: KafkaBroker) -> None:
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 1.0)
    kit.cluster.append(control(parts), b"pause:mail", None)
    pass_time(kit, parts, 1.0)
    assert admits(parts)


def test_a_second_topic_is_followed_from_its_end_and_through_outages(kit: Kit) -> None:
    taken: list[bytes | None] = []
    notices = kit.broker.parts.notices
    notices.follow("workers", lambda record: taken.append(record.value))
    kit.cluster.create_topic("workers")
    workers = TopicPartition("workers", 0)
    kit.cluster.append(workers, b"a worker", b"an old note")
    notices.begin()
    pass_time(kit, kit.broker.parts, 1.0)
    kit.cluster.append(workers, b"a worker", b"a note")
    pass_time(kit, kit.broker.parts, 1.0)
    assert taken == [b"a note"]
    with kit.kafka_away():
        pass_time(kit, kit.broker.parts, 2 * LEASE_S)
    kit.cluster.append(workers, b"a worker", b"another")
    pass_time(kit, kit.broker.parts, 2 * LEASE_S)
    assert taken == [b"a note", b"another"]


def test_a_second_topic_is_read_from_a_given_age_on(kit: Kit) -> None:
    taken: list[bytes | None] = []
    kit.cluster.create_topic("workers")
    for value in (b"old", b"young"):
        kit.cluster.append(TopicPartition("workers", 0), b"a worker", value)
        kit.advance(seconds=30)
    notices = kit.broker.parts.notices
    notices.follow("workers", lambda record: taken.append(record.value), back_ms=45_000)
    notices.begin()
    pass_time(kit, kit.broker.parts, 1.0)
    assert taken == [b"young"]


def test_a_second_topic_that_may_not_be_read_does_not_disturb_the_commands(
    kit: Kit, parts: Parts, operator: KafkaBroker, caplog: pytest.LogCaptureFixture
) -> None:
    workers = parts.topics.workers
    kit.cluster.refuse(
        Request.METADATA, lambda: TopicAuthorizationFailedError({workers}), topic=workers, times=None
    )
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 3 * LEASE_S)
    assert status(parts).paused_queues == (QUEUE,)
    assert not status(parts).pauses_unknown
    assert caplog.text.count(f"The topic {workers!r} cannot be followed") == 1


def test_the_settings_of_the_topic_are_checked_like_those_of_the_others(
    kit: Kit, parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    kit.cluster.create_topic(parts.topics.control, settings={"cleanup.policy": "delete"})
    pass_time(kit, parts, 3.0)
    assert "has cleanup.policy=delete" in caplog.text
    assert admits(parts)


def test_a_worker_with_threads_reads_commands_and_ends_the_reader_with_itself(kit: Kit) -> None:
    runs = []

    @dramatiq.actor(broker=kit.broker, queue_name=QUEUE)
    def task(number: int) -> None:
        runs.append(number)

    kit.broker.pause(QUEUE, reason=REASON)
    task.send(1)
    with kit.threads():
        parts = kit.broker.parts
        wait_until(lambda: status(parts).paused_queues == (QUEUE,), deadline_s=DEADLINE_S, what="the pause")
        assert runs == []
        kit.broker.resume(QUEUE)
        wait_until(lambda: runs == [1], deadline_s=DEADLINE_S, what="the run")
    wait_until(
        lambda: "dramatiq-kafka-notices" not in [thread.name for thread in threading.enumerate()],
        deadline_s=DEADLINE_S,
        what="the end of the reader",
    )
    assert kit.broker.parts.in_flight.gate.admits(QUEUE), "the process is no worker any more"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_child_of_a_fork_is_no_worker(kit: Kit, parts: Parts, operator: KafkaBroker) -> None:
    operator.pause(QUEUE, reason=REASON)
    pass_time(kit, parts, 1.0)
    assert not admits(parts)
    if (child := os.fork()) == 0:
        os._exit(0 if admits(parts) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_quiet_worker_runs_nothing_more_and_gives_its_messages_to_others(kit: Kit) -> None:
    brokers: list[Any] = [kit.broker, KafkaBroker(partitions=1)]
    runs: list[tuple[int, int]] = []
    with Kit(brokers[1], kit.cluster, kit.clock).use() as other:
        for which, broker in enumerate(brokers):

            @dramatiq.actor(actor_name="note", queue_name=QUEUE, broker=broker)
            def note(number: int, which: int = which, broker: Any = broker) -> None:
                runs.append((which, number))
                if (which, number) == (0, 0):
                    broker.quiet(broker.parts.identity.worker_id, reason=REASON, allow_unseen=True)
                    kit.worker.step()

        for number in range(5):
            kit.broker.get_actor("note").send(number)
        kit.drain()
        assert runs == [(0, 0)]
        assert status(kit.broker.parts).quiet
        other.drain()
        assert sorted(runs) == [(0, 0), *((1, number) for number in range(1, 5))]
        assert kit.broker.count(QUEUE) == 0


def test_a_worker_obeys_only_commands_to_itself_that_have_not_expired(
    kit: Kit, parts: Parts, operator: KafkaBroker
) -> None:
    stopped = []
    parts.control.on_stop = lambda: stopped.append(1)
    mine = parts.identity.worker_id
    operator.stop("another-worker", reason=REASON, allow_unseen=True)
    pass_time(kit, parts, 3.0)
    operator.stop(mine, allow_unseen=True)
    kit.advance(days=2)
    pass_time(kit, parts, 3.0)
    assert (stopped, status(parts).quiet) == ([], False)
    operator.stop(mine, allow_unseen=True)
    pass_time(kit, parts, 3.0)
    assert (stopped, status(parts).quiet) == ([1], True)


def test_expired_commands_are_removed_by_the_next_one_to_a_worker(kit: Kit, operator: KafkaBroker) -> None:
    operator.quiet("a-worker", allow_unseen=True)
    operator.quiet("another-worker", allow_unseen=True)
    assert len(operator.parts.commands.standing()) == 2
    kit.advance(days=2)
    operator.stop("a-third-worker", allow_unseen=True)
    assert [c.target for c in operator.parts.commands.standing().values()] == ["a-third-worker"]
