"""dkb plan: sizes for a load."""

from __future__ import annotations

import dramatiq
import pytest

from broker.console.capacity import Load, plan, time_to_drain_s
from broker.testing import Kit, advance, drain
from tests.broker.console.conftest import Dkb
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.reports.samples import report
from tests.waiting import wait_until

__all__ = ["tell"]


def load(**fields: float) -> Load:
    defaults = {
        "rate": 5_000.0, "task_ms": 20.0, "cpu_ms": 0.2, "threads": 8, "utilization": 0.5,
        "message_bytes": 650, "retention_s": 100.0, "replication": 3,
    }  # fmt: skip
    return Load(**{**defaults, **fields})  # type: ignore[arg-type]


def sizes(of: Load) -> dict[str, float]:
    return {row["size"]: row["value"] for row in plan(of)}


def test_threads_follow_from_rate_and_duration_and_processes_from_threads() -> None:
    found = sizes(load())
    assert (found["threads"], found["processes"], found["partitions"]) == (200, 25, 50)
    assert found["disk_bytes"] == 5_000 * 100 * 1_000 * 3


def test_tasks_that_compute_need_a_process_for_each_core() -> None:
    assert sizes(load(cpu_ms=20.0, threads=64))["processes"] == 201
    assert sizes(load(rate=1.0))["partitions"] == 4


@pytest.mark.parametrize(("arriving", "drained_s"), [(5_000.0, 10.0), (10_000.0, None)])
def test_a_backlog_is_worked_off_by_the_capacity_that_is_left(
    arriving: float, drained_s: float | None
) -> None:
    assert time_to_drain_s(50_000, arriving, load()) == drained_s


def test_plan_prints_each_size_with_its_reason_and_asks_no_kafka(dkb: Dkb) -> None:
    ran = dkb("plan", "--rate", "5000", "--task-ms", "20", "--backlog", "1000000")
    assert ran.code == 0
    assert "100.0 tasks run at once, and 70% are to be busy" in ran.out
    assert "The planned threads work off a backlog of 1,000,000 in" in ran.out
    assert "(an assumption, as of one that only waits: see --cpu-ms) and 0.041 ms" in ran.out
    known = dkb("plan", "--rate", "5000", "--task-ms", "20", "--cpu-ms", "0").out
    assert "0 ms of a task and 0.041 ms of the broker" in known
    assert "assumption" not in known
    document = dkb("plan", "--rate", "5000", "--task-ms", "20", "--json").document
    assert [row["size"] for row in document["sizes"]][:4] == ["threads", "cores", "processes", "partitions"]
    assert dkb("plan", "--rate", "1", "--task-ms", "1", "--arriving", "1").code == 2
    assert dkb("plan").code == 2


@pytest.mark.parametrize("load", [("--rate", "inf", "--task-ms", "1"), ("--rate", "1", "--task-ms", "inf")])
def test_an_infinite_load_is_refused(dkb: Dkb, load: tuple[str, ...]) -> None:
    ran = dkb("plan", *load)
    assert (ran.code, ran.out) == (2, "")


def test_the_load_of_a_queue_is_measured_in_its_log_and_its_history(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    for count in (1, 6):
        for _ in range(count):
            task.send()
        drain()
        advance(minutes=30)
    task.send()
    task.send()
    tell(report(queues=("mail",), threads=8))
    assert dkb("plan", "mail").code == 1  # no run is recorded
    document = dkb("plan", "mail", "--since", "70m", "--task-ms", "100", "--json").document
    measured = document["measured"]
    assert (measured["arrivals"], measured["backlog"], measured["threads"]) == (9, 2, 8)
    assert measured["peak_per_s"] == pytest.approx(6 / 60)
    assert measured["per_s"] == pytest.approx(9 / 4200)
    assert document["drain_now_s"] == pytest.approx(2 / (80 - 9 / 4200))
    text = dkb("plan", "mail", "--since", "70m", "--task-ms", "100").out
    assert "9 arrivals" in text
    assert "The 8 threads of the living workers work off a backlog of 2 in" in text


def test_the_duration_of_a_task_is_the_mean_of_the_recorded_runs(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    with kit.threads():
        for _ in range(3):
            task.send()
        kit.broker.join("mail", timeout=30_000)
        wait_until(lambda: len(list(kit.broker.history())) == 3, deadline_s=30.0, what="the history")
        measured = dkb("plan", "mail", "--json").document["measured"]
    assert (measured["runs"], measured["arrivals"], measured["backlog"]) == (3, 3, 0)
    assert measured["task_s"] > 0
