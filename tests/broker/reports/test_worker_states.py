"""The state of a worker, judged by its last record alone."""

from __future__ import annotations

import signal
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import RunningTask, WorkerInfo, WorkerReport, WorkerState
from broker.reaper.death_note import DeathNote
from broker.reports.report import Kind
from broker.reports.worker_states import GONE_AFTER_S, LIMIT_GRACE_MS, LastRecord, judge
from tests.broker.reports.samples import report, reports

NOW_MS = 1_000_000


def judged(
    content: WorkerReport | DeathNote,
    *,
    silent_s: float = 0.0,
    members: Collection[str] | None = (),
    last_report: WorkerReport | None = None,
) -> WorkerInfo:
    last = LastRecord(content, NOW_MS, last_report)
    return judge(last, NOW_MS + int(silent_s * 1000), lambda group: members)


def task(*, since_ms: int, limit_ms: int | None = 600_000) -> RunningTask:
    return RunningTask("m1", "resize", "images", 1, NOW_MS - since_ms, limit_ms=limit_ms)


def test_a_worker_that_reports_is_busy_or_idle() -> None:
    assert judged(report()).state is WorkerState.IDLE
    busy = judged(report(running=(task(since_ms=12_000),), running_count=3))
    assert busy.state is WorkerState.BUSY
    assert busy.reason == "3 of 8 threads run a task: resize m1 for 12 s of 600 s allowed"


def test_a_worker_whose_task_is_past_its_limit_while_nothing_ends_is_stuck() -> None:
    late = task(since_ms=30_000, limit_ms=10_000)
    limit_at_ms = late.since_ms + 10_000
    stuck = judged(report(running=(late,), running_count=1, ended_ms=limit_at_ms))
    assert stuck.state is WorkerState.STUCK
    assert "resize m1 for 30 s of 10 s allowed is past its limit" in stuck.reason
    others_end = judged(report(running=(late,), running_count=1, ended_ms=limit_at_ms + 1))
    assert others_end.state is WorkerState.BUSY
    ending = judged(
        report(running=(task(since_ms=10_000 + LIMIT_GRACE_MS, limit_ms=10_000),), running_count=1)
    )
    assert ending.state is WorkerState.BUSY
    unlimited = judged(report(running=(task(since_ms=10**9, limit_ms=None),), running_count=1))
    assert unlimited.state is WorkerState.BUSY


def test_a_worker_with_a_thread_in_a_task_past_its_limit_is_busy_and_names_the_task() -> None:
    late, other = task(since_ms=30_000, limit_ms=10_000), task(since_ms=40_000)
    busy = judged(report(running=(other, late), running_count=2, ended_ms=NOW_MS))
    assert busy.state is WorkerState.BUSY
    assert busy.overdue == (late,)
    past = "2 of 8 threads run a task, 1 of them past its limit: resize m1 for 30 s of 10 s allowed"
    assert busy.reason == past
    gone = judged(report(kind=Kind.GOODBYE, running=(late,), running_count=1))
    assert gone.overdue == ()


def test_a_worker_all_of_whose_threads_are_in_tasks_past_their_limits_is_stuck() -> None:
    # Given a worker whose other thread has ended a run since the first limit, and is blocked now, too
    first, second = task(since_ms=90_000, limit_ms=10_000), task(since_ms=30_000, limit_ms=10_000)
    fields = {"running_count": 2, "ended_ms": second.since_ms, "threads": 2}
    stuck = judged(report(running=(first, second), **fields))
    assert stuck.state is WorkerState.STUCK
    assert stuck.reason.startswith("each of its 2 threads runs a task past its limit: resize m1 for 90 s")
    assert judged(report(running=(first,), **fields)).state is WorkerState.BUSY


def test_a_worker_that_breaks_its_promise_is_silent() -> None:
    assert judged(report(next_s=2.0), silent_s=3.9).state is WorkerState.IDLE
    silent = judged(report(next_s=2.0), silent_s=4.1)
    assert (silent.state, silent.silent_s) == (WorkerState.SILENT, 4.1)
    assert silent.reason == "no report for 4 s, and it had promised one within 2 s"
    assert judged(report(next_s=10.0), silent_s=15.0).state is WorkerState.IDLE


def test_a_silent_worker_is_gone_once_it_is_in_none_of_its_groups() -> None:
    silent_s = GONE_AFTER_S + 1
    assert judged(report(), silent_s=GONE_AFTER_S - 1).state is WorkerState.SILENT
    member = judged(report(), silent_s=silent_s, members={"member-1", "member-2"})
    assert member.state is WorkerState.SILENT
    assert "it is still a member of dramatiq.default" in member.reason
    unknown = judged(report(), silent_s=silent_s, members=None)
    assert unknown.state is WorkerState.SILENT
    assert "not known" in unknown.reason
    gone = judged(report(), silent_s=silent_s, members={"member-2"})
    assert gone.state is WorkerState.GONE
    assert "it is in none of its consumer groups" in gone.reason


def test_a_goodbye_and_a_death_note_are_believed_at_once() -> None:
    goodbye = judged(report(kind=Kind.GOODBYE), silent_s=5, members={"member-1"})
    assert (goodbye.state, goodbye.reason) == (WorkerState.GONE, "it ended in good order 5 s ago")
    note = DeathNote("host:1:aa", NOW_MS, signal=signal.SIGKILL)
    killed = judged(note, silent_s=5, members={"member-1"}, last_report=report())
    assert (killed.state, killed.reason) == (WorkerState.GONE, "SIGKILL ended it 5 s ago")
    assert (killed.signal, killed.report) == (9, report())


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        (DeathNote("w", NOW_MS, exit_code=3), "it ended with exit code 3 0 s ago"),
        (DeathNote("w", NOW_MS, signal=99), "signal 99 ended it 0 s ago"),
        (DeathNote("w", NOW_MS), "its process ended 0 s ago"),
    ],
)
def test_a_death_note_says_how_the_process_ended_as_far_as_it_is_known(note: DeathNote, reason: str) -> None:
    assert judged(note).reason == reason


@given(reports, st.floats(0, 1000), st.none() | st.sets(st.text(max_size=5), max_size=3))
def test_every_report_has_a_state_and_a_reason(
    found: WorkerReport, silent_s: float, members: set[str] | None
) -> None:
    info = judged(found, silent_s=silent_s, members=members)
    assert info.reason
    assert (info.state is WorkerState.GONE) >= (found.kind == Kind.GOODBYE)
    if info.state in (WorkerState.BUSY, WorkerState.STUCK):
        assert found.running_count or found.running
