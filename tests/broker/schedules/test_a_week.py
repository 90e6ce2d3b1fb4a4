"""A week of a thousand schedules and three workers, which are killed, replaced and cut off."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

from broker import Cron, Every
from broker.schedules import Timing
from broker.schedules.record_format import Definition, record
from broker.testing.memory.faults import Request
from tests.broker.schedules.conftest import QUEUE, World

WEEK = timedelta(days=7)
#: The distance of two steps of the test. An occurrence may be due in between.
GRID = timedelta(hours=1)
SCHEDULES = 1_000


def timing_of(number: int) -> Timing:
    """Mostly daily ones, some of them in zones whose clocks change within the week."""
    zone = ("Europe/Berlin", "America/New_York", "Asia/Kolkata")[number % 3]
    hour, minute = number % 24, 30 * (number % 2)
    match number % 100:
        case 0:
            return Every(hours=1, missed="all")
        case 1 | 2 | 3:
            return Every(hours=6, jitter_s=3600, missed="all")
        case 4 | 5:
            return Cron(f"{minute} */3 * * *", zone=zone, missed="all")
        case rest if rest < 30:
            return Cron(f"{minute} {hour} * * MON-FRI", zone=zone, missed="all")
        case _:
            return Cron(f"{minute} {hour} * * *", zone=zone, missed="all")


def test_each_of_a_thousand_schedules_is_enqueued_once_per_occurrence_for_a_week(world: World) -> None:
    chance = random.Random(19)
    # Given a week in which New York's clocks change, on Sunday the 8th
    start = world.now
    assert start == datetime(2026, 3, 2, 8, tzinfo=UTC)
    timings = {f"schedule {number}": timing_of(number) for number in range(SCHEDULES)}
    process = world.start()
    since_ms = world.clock.wall_ms()
    definitions = [Definition(n, "task", QUEUE, timing, since_ms=since_ms) for n, timing in timings.items()]
    written = [record("dramatiq_schedules", definition) for definition in definitions]
    assert process.broker.parts.publisher.publish(written) == {}
    for _ in range(2):
        world.start()
    world.step()

    # When a process is killed at a write, killed between two steps, or replaced, now and then
    while world.now < start + WEEK:
        world.advance(GRID)
        world.cluster.clean_up()
        match chance.randrange(24):
            case 0:
                world.cluster.kill_at(Request.PRODUCE, before=chance.random() < 0.5, skip=chance.randrange(4))
            case 1:
                chance.choice(world.processes).kill()
            case 2:
                leaving = world.processes.pop(0)
                if not leaving.is_killed:
                    leaving.stop()
                world.start()
            case 3:
                with world.cluster.away():
                    world.step(2)
        world.step(3)
        world.cluster.faults.clear()
        for killed in [p for p in world.processes if p.is_killed]:
            world.processes.remove(killed)
            world.start()
    end_ms = world.clock.wall_ms()
    world.settle()

    # Then each occurrence of the week was enqueued once
    start_ms = int(start.timestamp() * 1000)
    expected = {
        (name, datetime.fromtimestamp(time_ms / 1000, UTC))
        for name, timing in timings.items()
        for time_ms in islice(takewhile(lambda ms: ms <= end_ms, timing.after(start_ms)), SCHEDULES)
        if timing.due_ms(name, time_ms) <= end_ms
    }
    enqueued = Counter(occurrence for occurrence in world.enqueued if occurrence in expected)
    assert len(expected) > 9_000
    assert expected - enqueued.keys() == set()
    assert {occurrence for occurrence, count in enqueued.items() if count > 1} == set()
