"""Schedules that code declares: one and two versions of it, an operator beside it, and the test kit."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from dramatiq.errors import ActorNotFound

from broker import Cron, Every, KafkaBroker, ScheduleNotFound, ScheduleRefused
from broker.testing import Kit
from tests.broker.schedules.conftest import World

HOUR = timedelta(hours=1)


def expression(world: World, name: str = "task") -> str | None:
    schedule = world.processes[-1].broker.schedules.get(name)
    assert schedule is not None
    return schedule.timing.expression if isinstance(schedule.timing, Cron) else None


def test_the_test_kit_enqueues_and_runs_declared_schedules() -> None:
    broker = KafkaBroker()
    runs: list[str] = []

    @dramatiq.actor(broker=broker, schedule=Every(hours=1))
    def task() -> None:
        runs.append("a run")

    with Kit(broker).use() as kit:
        kit.drain()
        assert runs == []
        kit.advance(hours=1)
        assert kit.drain() == 1
        kit.advance(days=1)
        assert kit.drain() == 1, "of the occurrences of a day, the last one runs"


def test_a_worker_writes_its_declaration_once(world: World) -> None:
    for _ in range(3):
        world.start(schedule=Cron("0 9 * * *"))
        world.step()
    records = world.cluster.topics["dramatiq_schedules"].logs[0].records
    assert sum(record.key == b"schedule:task" for record in records) == 1
    world.advance(HOUR)
    world.step()
    assert world.enqueued == [("task", datetime(2026, 3, 2, 9, tzinfo=UTC))]


def test_the_higher_version_of_a_declaration_stays_when_an_old_worker_restarts(world: World) -> None:
    world.start(schedule=Cron("0 9 * * *", version=1))
    world.step()
    world.start(schedule=Cron("0 10 * * *", version=2))
    world.step()
    assert expression(world) == "0 10 * * *"
    world.start(schedule=Cron("0 9 * * *", version=1))
    world.step()
    assert expression(world) == "0 10 * * *"
    world.advance(4 * HOUR)
    world.step()
    assert world.enqueued == [("task", datetime(2026, 3, 2, 10, tzinfo=UTC))]


def test_of_two_declarations_of_one_version_the_later_one_counts(world: World) -> None:
    for text in ("0 9 * * *", "0 10 * * *"):
        world.start(schedule=Cron(text))
        world.step()
        assert expression(world) == text


def test_a_schedule_that_only_the_other_version_of_the_code_declares_continues_and_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    old = world.start(schedule=Every(hours=1))
    world.step()
    old.stop()
    world.processes.remove(old)
    logging.disable(logging.NOTSET)
    with caplog.at_level(logging.WARNING):
        world.start()
        world.step()
    assert "broker.schedules.delete('task')" in caplog.text
    world.advance(HOUR)
    world.step()
    assert len(world.enqueued) == 1


def test_a_definition_of_an_operator_is_not_replaced_by_a_declaration(world: World) -> None:
    process = world.start(schedule=Cron("0 9 * * *"))
    world.step()
    process.broker.schedules.put("task", "task", Cron("0 11 * * *"))
    world.start(schedule=Cron("0 9 * * *", version=7))
    world.step()
    assert expression(world) == "0 11 * * *"
    # A deleted one comes back with the next start of a worker that declares it.
    process.broker.schedules.delete("task")
    world.start(schedule=Cron("0 9 * * *"))
    world.step()
    assert expression(world) == "0 9 * * *"


def test_a_declaration_with_other_options_and_the_same_times_misses_nothing(world: World) -> None:
    """All workers stop for the deployment, and an occurrence is due meanwhile."""
    old = world.start(schedule=Every(hours=1))
    world.step()
    old.stop()
    world.processes.remove(old)
    world.advance(HOUR + timedelta(minutes=1))
    world.start(schedule=Every(hours=1, version=2, jitter_s=5))
    world.step()
    assert world.enqueued == [("task", datetime(2026, 3, 2, 9, tzinfo=UTC))]


def test_a_partition_key_is_part_of_the_schedule_whoever_enqueues_it(world: World) -> None:
    process = world.start(partition_key=lambda user: f"user-{user}")
    process.broker.schedules.put("keyed", process.actor, Every(hours=1), args=(7,))
    schedule = process.broker.schedules.get("keyed")
    assert schedule is not None
    assert schedule.options == {"partition_key": "user-7"}


def test_what_cannot_be_a_schedule_is_refused(world: World) -> None:
    process = world.start()
    schedules = process.broker.schedules
    with pytest.raises(ScheduleRefused, match="must be JSON"):
        schedules.put("a name", process.actor, Every(hours=1), args=(object(),))
    for name in ("", "x" * 201, "two\nlines"):
        with pytest.raises(ScheduleRefused, match="name"):
            schedules.put(name, process.actor, Every(hours=1))
    with pytest.raises(ScheduleRefused, match="pass Cron"):
        schedules.put("a name", process.actor, "0 9 * * *")  # type: ignore[arg-type]
    with pytest.raises(ActorNotFound):
        schedules.put("a name", "nobody", Every(hours=1))
    with pytest.raises(ScheduleNotFound, match="no schedule 'a name'"):
        schedules.pause("a name")
    assert schedules.list() == []
    assert "dramatiq_schedules" not in world.cluster.topics
