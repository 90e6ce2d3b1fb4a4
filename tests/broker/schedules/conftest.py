"""Processes with schedules on one Kafka in memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest

from broker import KafkaBroker
from broker.schedules import Scheduler
from broker.testing import Kit, ManualClock, MemoryCluster
from broker.testing.memory.faults import ProcessKilled

QUEUE = "work"
#: Longer than a session timeout.
LONG_ENOUGH = timedelta(seconds=11)


def instant_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO time with its offset."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


class Process:
    """A worker process, of which only the scheduler runs."""

    def __init__(self, world: World, **actor_options: Any) -> None:
        self.broker = KafkaBroker(partitions=2)
        self.kit = Kit(self.broker, world.cluster, world.clock)
        self.use = ExitStack()
        self.use.enter_context(self.kit.use())
        self.actor = dramatiq.actor(broker=self.broker, queue_name=QUEUE, actor_name="task", **actor_options)(
            _nothing
        )
        self.other = dramatiq.actor(broker=self.broker, queue_name="others", actor_name="other")(_nothing)
        self.scheduler: Scheduler = self.broker.parts.new_scheduler()

    @property
    def is_killed(self) -> bool:
        return self.kit.process.is_killed

    def kill(self) -> None:
        self.kit.process.kill()

    def stop(self) -> None:
        """End in good order."""
        self.scheduler.close()


def _nothing(*args: Any) -> None: ...


class World:
    """A cluster, its clock and its processes."""

    def __init__(self, start: datetime) -> None:
        self.clock = ManualClock()
        self.cluster = MemoryCluster()
        self.processes: list[Process] = []
        self._closing = ExitStack()
        self.clock.jump(start - self.now)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall_ms() / 1000, UTC)

    def start(self, **actor_options: Any) -> Process:
        process = Process(self, **actor_options)
        self._closing.push(process.use)
        self.processes.append(process)
        return process

    def step(self, rounds: int = 4) -> None:
        """Let each living process take some steps. No time passes."""
        for _ in range(rounds):
            for process in list(self.processes):
                if process.is_killed:
                    continue
                try:
                    process.scheduler.step(max_wait_ms=0)
                except ProcessKilled:
                    continue

    def advance(self, duration: timedelta) -> None:
        self.clock.advance(duration)
        self.cluster.expire()

    def settle(self) -> None:
        """Let the processes take over what killed ones had, and finish it."""
        for _ in range(4):
            self.advance(LONG_ENOUGH)
            self.step()

    @property
    def enqueued(self) -> list[tuple[str, datetime]]:
        """The occurrences on the queue, as often as they are there, by time."""
        found = []
        for message in self.messages:
            time_ms = message.options["occurrence_ms"]
            found.append((message.options["schedule"], datetime.fromtimestamp(time_ms / 1000, UTC)))
        return sorted(found, key=lambda occurrence: occurrence[1])

    @property
    def messages(self) -> list[dramatiq.Message[Any]]:
        if QUEUE not in self.cluster.topics:
            return []
        return [
            dramatiq.Message.decode(record.value)
            for log in self.cluster.topics[QUEUE].logs
            for record in log.records
            if record.value is not None
        ]

    def assert_each_once(self) -> None:
        twice = {o: count for o, count in Counter(self.enqueued).items() if count > 1}
        assert not twice, f"enqueued more than once: {twice}"

    def close(self) -> None:
        self._closing.close()


@pytest.fixture
def world() -> Iterator[World]:
    """Monday, 2 March 2026, 08:00 in UTC, without a process."""
    logging.disable(logging.CRITICAL)
    world = World(datetime(2026, 3, 2, 8, tzinfo=UTC))
    yield world
    world.close()
    logging.disable(logging.NOTSET)
