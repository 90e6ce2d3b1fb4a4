"""Queues whose workers have another group_id than the one that a reader was given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.reports.report import WorkerReport
from broker.reports.worker_states import WorkerInfo, WorkerState, other_groups

REPORT = WorkerReport(
    "host:1", "host", 1, at_ms=0, booted_ms=0, next_s=2.0, queues=("mail",), group_id="shop"
)
OLD = replace(REPORT, group_id="", members={"shop.ns-mail": "a member"})


def worker(report: WorkerReport, state: WorkerState = WorkerState.BUSY) -> WorkerInfo:
    return WorkerInfo(report.worker_id, state, reason="", silent_s=0.0, report=report)


def found(*workers: WorkerInfo, group_id: str = "dramatiq") -> dict[str, tuple[str, ...]]:
    return other_groups(workers, lambda queue: f"ns-{queue}", lambda queue: f"{group_id}.ns-{queue}")


@pytest.mark.parametrize("report", [REPORT, OLD], ids=["now", "an earlier version"])
def test_a_living_worker_tells_its_group_id(report: WorkerReport) -> None:
    assert found(worker(report)) == {"mail": ("shop",)}
    assert found(worker(report), group_id="shop") == {}


def test_a_quiet_worker_which_is_no_member_any_more_tells_it() -> None:
    quiet = replace(REPORT, control=replace(REPORT.control, quiet=True), members={})
    assert found(worker(quiet)) == {"mail": ("shop",)}


def test_a_worker_that_is_gone_tells_it_where_none_lives() -> None:
    gone = worker(REPORT, WorkerState.GONE)
    assert found(gone) == {"mail": ("shop",)}
    living = worker(replace(REPORT, worker_id="host:2", group_id="dramatiq"))
    assert found(gone, living) == {}


def test_nothing_is_said_where_nobody_tells() -> None:
    assert found(worker(replace(OLD, members={}))) == {}
