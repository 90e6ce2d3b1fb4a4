"""dkb plan: sizes for a load."""

from __future__ import annotations

import pytest

from broker.console.capacity import Load, plan, time_to_drain_s
from tests.broker.console.conftest import Dkb


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
    assert "A backlog of 1,000,000 is worked off in" in ran.out
    document = dkb("plan", "--rate", "5000", "--task-ms", "20", "--json").document
    assert [row["size"] for row in document["sizes"]][:4] == ["threads", "cores", "processes", "partitions"]
    assert dkb("plan", "--rate", "1", "--task-ms", "1", "--arriving", "1").code == 2
