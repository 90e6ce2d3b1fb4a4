"""Schedules on a Kafka: workers begin to enqueue them, and a killed owner is taken over at each step."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import CurrentMessage

from broker import Every, KafkaBroker, default_middleware
from dev.child import Child
from dev.stack import ROOT, Stack
from tests.broker.conftest import SESSION_TIMEOUT_MS, MakeBroker, StartWorker
from tests.waiting import wait_until

DEADLINE_S = 60.0
STEPS = [f"{when}-{write}" for write in ("firing", "message", "state") for when in ("before", "after")]


def declare(broker: KafkaBroker, runs: list[Any], **options: Any) -> dramatiq.Actor[..., Any]:
    def task(*args: Any) -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        runs.append((args, message.options.get("occurrence_ms")))

    return dramatiq.actor(broker=broker, queue_name="work", **options)(task)


def scheduler_threads() -> int:
    return sum(thread.name == "dramatiq-kafka-scheduler" for thread in threading.enumerate())


def test_a_worker_enqueues_the_schedules_of_its_actors_and_those_that_are_put_later(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker(middleware=[*default_middleware(), CurrentMessage()])
    runs: list[Any] = []
    task = declare(broker, runs, schedule=Every(seconds=1))
    worker = start_worker(broker)
    wait_until(lambda: len(runs) >= 3, deadline_s=DEADLINE_S, what="occurrences of the declared schedule")
    broker.schedules.put("another", task, Every(seconds=1), args=("put",))
    wait_until(
        lambda: sum(args == ("put",) for args, _ in runs) >= 2,
        deadline_s=DEADLINE_S,
        what="occurrences of the schedule that was put",
    )
    worker.stop()
    assert max(Counter(runs).values()) == 1
    assert {schedule.name: schedule.source for schedule in broker.schedules.list()} == {
        "another": "operator",
        "task": "code",
    }
    assert all(isinstance(schedule.last_run, datetime) for schedule in broker.schedules.list())


def test_a_worker_without_schedules_has_no_scheduler_until_somebody_puts_one(
    make_broker: MakeBroker, start_worker: StartWorker
) -> None:
    broker = make_broker(middleware=[*default_middleware(), CurrentMessage()])
    runs: list[Any] = []
    task = declare(broker, runs)
    start_worker(broker)
    task.send("sent")
    wait_until(lambda: runs, deadline_s=DEADLINE_S, what="a worker that works")
    assert scheduler_threads() == 0
    assert broker.schedules.list() == []
    assert broker.parts.topics.schedules not in {topic.name for topic in broker.check_topics()}

    broker.schedules.put("put", task, Every(seconds=1), args=("put",))
    wait_until(
        lambda: sum(args == ("put",) for args, _ in runs) >= 2, deadline_s=DEADLINE_S, what="its occurrences"
    )
    assert scheduler_threads() == 1


@pytest.fixture(scope="module")
def takeovers(
    stack: Stack, make_broker: MakeBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, KafkaBroker]]:
    """A namespace for each step at which its first owner was killed. Another owner follows it."""
    home: Path = tmp_path_factory.mktemp("schedulers")
    with ExitStack() as ending:

        def start(namespace: str, step: str) -> Child:
            child = Child(
                f"scheduler {step}",
                [
                    *(sys.executable, "-m", "tests.broker.schedules.scheduler_process"),
                    *(stack.bootstrap_servers, namespace, str(SESSION_TIMEOUT_MS), step),
                ],
                log=home / f"{step}.log",
                cwd=ROOT,
            )
            ending.callback(child.kill)
            child.start()
            return child

        brokers, doomed = {}, {}
        for step in STEPS:
            broker = brokers[step] = make_broker()
            task = declare(broker, [])
            broker.schedules.put("each second", task, Every(seconds=1, missed="all", max_missed=100))
            doomed[step] = start(broker.parts.settings.namespace, step)
        for step, child in doomed.items():
            assert child.wait(timeout_s=DEADLINE_S) == -9, child.tail()
            start(brokers[step].parts.settings.namespace, "never")
        yield brokers


@pytest.mark.parametrize("step", STEPS)
def test_each_occurrence_is_enqueued_once_when_the_owner_is_killed_at_a_step(
    takeovers: dict[str, KafkaBroker], step: str
) -> None:
    broker = takeovers[step]

    def occurrences() -> list[int]:
        found = broker.find("work", completed=True, limit=10_000).records
        return sorted(one.message.options["occurrence_ms"] for one in found)

    # The second owner has enqueued occurrences of its own time, after those that the first one has left.
    wait_until(lambda: len(occurrences()) >= 15, deadline_s=DEADLINE_S, what="the second owner's occurrences")
    found = occurrences()
    assert found == list(range(found[0], found[-1] + 1_000, 1_000))
