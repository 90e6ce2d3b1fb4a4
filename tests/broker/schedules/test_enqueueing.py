"""An occurrence is enqueued once, whatever happens to the processes, to Kafka and to the clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import dramatiq
import pytest

from broker import Cron, Every
from broker.kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from broker.schedules.firing import AHEAD_MS
from broker.testing.memory.faults import Request
from tests.broker.schedules.conftest import LONG_ENOUGH, QUEUE, World

SCHEDULES = "dramatiq_schedules"
HOUR = timedelta(hours=1)
#: The writes of an occurrence: the firing, its message, and its state with the tombstone of the firing.
WRITES = ["the firing", "the message", "the state"]


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 2, hour, minute, tzinfo=UTC)


def start_two(world: World, timing: Any = None) -> None:
    """Two processes, and the schedule "hourly"; the first process owns it."""
    first = world.start()
    first.broker.schedules.put("hourly", first.actor, timing or Every(hours=1), args=(7,), by="a test")
    world.step()
    world.start()
    world.step()


def test_an_occurrence_is_a_message_with_the_arguments_of_its_schedule(world: World) -> None:
    start_two(world)
    assert world.enqueued == []
    world.advance(HOUR)
    world.step()
    (message,) = world.messages
    assert (message.actor_name, message.queue_name, message.args) == ("task", QUEUE, (7,))
    assert message.options == {"schedule": "hourly", "occurrence_ms": int(at(9).timestamp() * 1000)}


class Hooks(dramatiq.Middleware):
    """Counts the calls of the hooks before and after an enqueue."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def before_enqueue(self, *_: Any) -> None:
        self.calls.append("before")

    def after_enqueue(self, *_: Any) -> None:
        self.calls.append("after")


def test_a_message_is_made_shortly_before_it_is_due_and_sent_when_it_is(world: World) -> None:
    start_two(world)
    hooks = Hooks()
    world.processes[0].broker.add_middleware(hooks)
    world.advance(HOUR - timedelta(milliseconds=AHEAD_MS + 1))
    world.step()
    assert hooks.calls == []
    world.advance(timedelta(milliseconds=2))
    world.step()
    assert (hooks.calls, world.enqueued) == (["before"], [])
    world.advance(timedelta(milliseconds=AHEAD_MS))
    world.step()
    assert (hooks.calls, world.enqueued) == (["before", "after"], [("hourly", at(9))])
    assert world.messages[0].message_timestamp == int(at(9).timestamp() * 1000)


@pytest.mark.parametrize("change", ["put", "pause", "delete"])
def test_a_message_that_was_made_before_its_schedule_changed_is_not_sent(world: World, change: str) -> None:
    start_two(world)
    world.advance(HOUR - timedelta(milliseconds=AHEAD_MS // 2))
    world.step()
    schedules = world.processes[1].broker.schedules
    if change == "put":
        schedules.put("hourly", "task", Every(hours=1), args=(8,))
    elif change == "pause":
        schedules.pause("hourly")
    else:
        schedules.delete("hourly")
    world.step()
    world.advance(HOUR / 2)
    world.step()
    assert [message.args for message in world.messages] == ([(8,)] if change == "put" else [])


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("write", range(len(WRITES)), ids=WRITES)
def test_an_occurrence_is_enqueued_once_when_the_owner_is_killed_at_a_step(
    world: World, write: int, before: bool
) -> None:
    start_two(world)
    world.advance(HOUR)
    world.step()
    owner = world.processes[0]
    world.cluster.kill_at(Request.PRODUCE, before=before, process=owner.kit.process, skip=write)
    world.advance(HOUR)
    world.step()
    assert owner.is_killed
    world.settle()
    assert world.enqueued == [("hourly", at(9)), ("hourly", at(10))]
    world.advance(HOUR)
    world.step()
    assert world.enqueued[2:] == [("hourly", at(11))]


@pytest.mark.parametrize("write", range(len(WRITES)), ids=WRITES)
def test_an_occurrence_is_enqueued_once_when_the_answer_to_a_write_is_lost(world: World, write: int) -> None:
    start_two(world)
    topic = QUEUE if WRITES[write] == "the message" else SCHEDULES
    world.advance(HOUR)
    world.step()
    world.cluster.lose_answer(Request.PRODUCE, topic=topic, skip=write // 2)
    world.advance(HOUR)
    world.settle()
    world.advance(HOUR)
    world.step()
    assert world.enqueued == [("hourly", at(9)), ("hourly", at(10)), ("hourly", at(11))]


def test_an_occurrence_whose_send_failed_is_enqueued_later(world: World) -> None:
    start_two(world)
    world.cluster.refuse(Request.PRODUCE, lambda: KafkaTimeoutError("no answer"), topic=QUEUE, times=3)
    world.advance(HOUR)
    world.settle()
    assert world.enqueued == [("hourly", at(9))]


def test_an_owner_whose_lease_has_ended_sends_nothing(world: World) -> None:
    """It is frozen after the firing: its message would be a second one."""
    start_two(world)
    owner, successor = world.processes
    publish = owner.scheduler._publisher.publish

    def freeze(records: Any) -> Any:
        failures = publish(records)
        if any(record.key is not None and record.key.startswith(b"firing:") for record in records):
            # SIGSTOP, for longer than its session: the group removes it, and another process takes over.
            owner.scheduler._publisher.publish = publish  # type: ignore[method-assign]
            world.processes.remove(owner)
            world.advance(LONG_ENOUGH)
            world.cluster.expel(f"{SCHEDULES}.owners")
            world.step(8)
            world.processes.append(owner)
        return failures

    owner.scheduler._publisher.publish = freeze  # type: ignore[method-assign]
    world.advance(HOUR)
    world.step(8)
    assert world.enqueued == [("hourly", at(9))]
    assert successor.scheduler is not owner.scheduler


def test_each_occurrence_is_enqueued_once_while_processes_are_replaced_one_by_one(world: World) -> None:
    start_two(world, Every(minutes=1))
    for minute in range(30):
        if minute % 5 == 4:
            leaving = world.processes.pop(0)
            leaving.stop()
            world.start()
        world.advance(timedelta(minutes=1))
        world.step()
    assert world.enqueued == [("hourly", at(8, minute)) for minute in range(1, 31)]


def test_each_occurrence_is_enqueued_once_by_a_clock_that_jumps_an_hour_ahead_and_back(world: World) -> None:
    start_two(world, Every(minutes=10, missed="all"))
    world.advance(timedelta(minutes=10))
    world.step()
    world.clock.jump(HOUR)
    world.step()
    world.clock.jump(-HOUR)
    for _ in range(12):
        world.advance(timedelta(minutes=10))
        world.step()
    assert world.enqueued == [("hourly", at(8) + timedelta(minutes=10 * n)) for n in range(1, 14)]


def test_a_clock_that_is_behind_enqueues_nothing_twice(world: World) -> None:
    start_two(world)
    world.advance(HOUR)
    world.step()
    world.clock.jump(-HOUR)
    world.processes[0].kill()
    world.settle()
    world.advance(2 * HOUR)
    world.step()
    world.assert_each_once()
    assert ("hourly", at(10)) in world.enqueued


@pytest.mark.parametrize(
    ("missed", "expected"),
    [("skip", []), ("last", [at(13)]), ("all", [at(11), at(12), at(13)])],
)
def test_the_policy_decides_about_the_occurrences_of_a_time_without_workers(
    world: World, missed: Any, expected: list[datetime]
) -> None:
    start_two(world, Every(hours=1, missed=missed, max_missed=3))
    for process in world.processes:
        process.kill()
    world.advance(timedelta(hours=5, minutes=30))
    world.start()
    world.step()
    world.settle()
    assert world.enqueued == [("hourly", time) for time in expected]


def test_two_weeks_without_workers_cause_no_flood(world: World) -> None:
    start_two(world, Every(minutes=1, missed="all", max_missed=20))
    world.processes[1].stop()
    world.processes[0].stop()
    world.processes.clear()
    world.advance(timedelta(days=14))
    process = world.start()
    world.step()
    assert len(world.enqueued) == 20
    schedule = process.broker.schedules.get("hourly")
    assert schedule is not None
    assert schedule.missed == 1


def test_a_paused_schedule_enqueues_nothing_and_misses_nothing(world: World) -> None:
    start_two(world, Every(hours=1, missed="all"))
    schedules = world.processes[1].broker.schedules
    schedules.pause("hourly", reason="the shop is closed", by="someone")
    world.step()
    world.advance(3 * HOUR + timedelta(minutes=1))
    world.step()
    paused = schedules.get("hourly")
    assert paused is not None
    assert (paused.is_paused, paused.paused_by, paused.pause_reason, paused.next_run) == (
        True, "someone", "the shop is closed", None,
    )  # fmt: skip
    schedules.resume("hourly")
    world.step()
    world.advance(HOUR)
    world.step()
    assert world.enqueued == [("hourly", at(12))]


def test_a_deleted_schedule_enqueues_nothing_and_leaves_no_record(world: World) -> None:
    start_two(world)
    world.advance(HOUR)
    world.step()
    schedules = world.processes[1].broker.schedules
    assert schedules.delete("hourly")
    assert not schedules.delete("hourly")
    assert schedules.list() == []
    world.step()
    world.advance(3 * HOUR)
    world.step()
    assert len(world.enqueued) == 1
    log = world.cluster.topics[SCHEDULES].logs[0]
    latest = {record.key: record.value for record in log.records}
    assert [key for key, value in latest.items() if value is not None] == []


def test_a_schedule_that_is_put_again_with_other_arguments_keeps_its_times(world: World) -> None:
    start_two(world)
    for process in world.processes:
        process.stop()
    world.processes.clear()
    world.advance(HOUR + timedelta(minutes=1))
    process = world.start()
    process.broker.schedules.put("hourly", "task", Every(hours=1), args=(8,))
    world.step()
    assert world.enqueued == [("hourly", at(9))]
    assert world.messages[0].args == (8,)


def test_a_schedule_that_gets_other_times_has_missed_nothing(world: World) -> None:
    start_two(world, Cron("0 9 * * *"))
    world.advance(timedelta(hours=3, minutes=30))
    world.step()
    world.processes[0].broker.schedules.put("hourly", "task", Cron("*/15 * * * *", missed="all"))
    world.step()
    assert world.enqueued == [("hourly", at(9))]
    world.advance(timedelta(minutes=15))
    world.step()
    assert world.enqueued[1:] == [("hourly", at(11, 45))]


def test_run_now_enqueues_a_message_beside_the_occurrences(world: World) -> None:
    start_two(world)
    message = world.processes[1].broker.schedules.run_now("hourly")
    world.step()
    assert [m.message_id for m in world.messages] == [message.message_id]
    assert message.args == (7,)
    world.cluster.topics[QUEUE].logs[0].records.clear()
    world.cluster.topics[QUEUE].logs[1].records.clear()
    world.advance(HOUR)
    world.step()
    assert world.enqueued == [("hourly", at(9))]


def test_a_queue_that_refuses_an_owner_does_not_hold_up_the_others(world: World) -> None:
    start_two(world)
    process = world.processes[0]
    process.broker.schedules.put("other", process.other, Every(hours=1))
    world.step()
    world.cluster.refuse(
        Request.PRODUCE, lambda: TopicAuthorizationFailedError({QUEUE}), topic=QUEUE, times=None
    )
    world.advance(HOUR)
    world.settle()
    assert world.enqueued == []
    assert sum(log.end for log in world.cluster.topics["others"].logs) == 1
    world.cluster.faults.clear()
    for _ in range(6):
        world.advance(LONG_ENOUGH)
        world.step()
    assert world.enqueued == [("hourly", at(9))]


def test_a_schedule_that_daylight_saving_shifts_is_enqueued_at_each_instant_of_its_timing(
    world: World,
) -> None:
    timing = Cron("30 2 * * *", zone="Europe/Berlin")
    start_two(world, timing)
    begin_ms = world.clock.wall_ms()
    for _ in range(28 * 24 * 2):
        world.advance(timedelta(minutes=30))
        world.step(2)
    world.settle()
    expected = list(takewhile(lambda ms: ms <= world.clock.wall_ms(), timing.after(begin_ms)))
    assert [int(time.timestamp() * 1000) for _, time in world.enqueued] == expected
