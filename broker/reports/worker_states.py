"""The state of a worker, judged from outside by its last record. Pure.

Nobody asks a worker: its reports, its goodbye, a death note and the members of its consumer groups decide.

===========  ==================================================================================
BUSY, IDLE   it reports, and runs tasks or not
STUCK        it reports, a task is past its time limit, and no run has ended since that limit; or each of its
             threads runs such a task
SILENT       no report within the time that it promised: it is frozen, cut off from Kafka, or a task holds
             the GIL
GONE         a goodbye, a death note, or silent for GONE_AFTER_S and in none of its consumer groups
===========  ==================================================================================
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ..reaper.death_note import DeathNote
from .report import Kind, RunningTask, WorkerReport

#: A report may be late by this share of its promised time, and by these seconds: the time of a write, and the
#: difference of two clocks.
LATE_SHARE = 0.5
LATE_S = 1.0
#: A worker that was silent for this time and is in none of its groups counts as gone.
GONE_AFTER_S = 60.0
#: The time that a task may need to end after its time limit was noticed.
LIMIT_GRACE_MS = 3_000


class WorkerState(StrEnum):
    """See the table of this module."""

    BUSY = "busy"
    IDLE = "idle"
    STUCK = "stuck"
    SILENT = "silent"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The last record of a worker in the topic of reports.

    Attributes:
      content: The record; a death note does not contain the report before it.
      written_ms: The time of the record by Kafka's clock, in milliseconds since 1970.
      report: The last report, if the reader has seen one: ``content``, or the one before a death note.
    """

    content: WorkerReport | DeathNote
    written_ms: int
    report: WorkerReport | None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker, as it is seen from outside.

    Attributes:
      worker_id: Its id.
      state: Its state.
      reason: One sentence that says why.
      silent_s: The time since its last record, in seconds.
      report: Its last report; None when only a death note is left of it.
      signal: The number of the signal that ended it; None unless a death note names one.
      exit_code: Its exit code; None unless a death note names one.
    """

    worker_id: str
    state: WorkerState
    reason: str
    silent_s: float
    report: WorkerReport | None
    signal: int | None = None
    exit_code: int | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether it was told to take no more work. Its running tasks continue."""
        return self.report is not None and self.report.control.quiet

    @property
    def overdue(self) -> tuple[RunningTask, ...]:
        """The tasks that were past their time limits, by more than LIMIT_GRACE_MS, when it last reported.

        Nothing could interrupt them, so each takes a thread away from the worker. The worker is BUSY all the
        same while other threads end runs. A worker that is gone has none.
        """
        if self.report is None or self.state is WorkerState.GONE:
            return ()
        return _overdue(self.report)


def other_groups(
    workers: Iterable[WorkerInfo], topic_of: Callable[[str], str], group_of: Callable[[str], str]
) -> dict[str, tuple[str, ...]]:
    """The queues whose workers have other ``group_id``s alone, each with these. Where no worker of a queue
    lives, those that are gone tell.

    Parameters:
      topic_of: Returns the topic of a queue.
      group_of: Returns the consumer group of a queue that counts as the right one.
    """
    living: dict[str, set[str]] = {}
    gone: dict[str, set[str]] = {}
    for worker in workers:
        if (report := worker.report) is not None:
            found = gone if worker.state is WorkerState.GONE else living
            for queue in report.queues:
                found.setdefault(queue, set()).update(_group_ids(report, topic_of(queue)))
    return {
        queue: tuple(sorted(ids))
        for queue, ids in sorted((gone | {queue: ids for queue, ids in living.items() if ids}).items())
        if ids and group_of(queue).removesuffix(f".{topic_of(queue)}") not in ids
    }


def _group_ids(report: WorkerReport, topic: str) -> set[str]:
    """The ``group_id`` of a worker. Reports of an earlier version tell it while the worker is a member."""
    if report.group_id:
        return {report.group_id}
    suffix = f".{topic}"
    return {group.removesuffix(suffix) for group in report.members if group.endswith(suffix)}


def judge(last: LastRecord, now_ms: int, members_of: Callable[[str], Collection[str] | None]) -> WorkerInfo:
    """The state of a worker.

    Parameters:
      now_ms: The present time, in milliseconds since 1970.
      members_of: Returns the ids of a consumer group's members; None when they are not known.
    """
    silent_s = max(0.0, (now_ms - last.written_ms) / 1000)
    content = last.content
    if isinstance(content, DeathNote):
        reason = f"{_end_of(content)} {silent_s:.0f} s ago"
        return WorkerInfo(
            content.worker_id,
            WorkerState.GONE,
            reason,
            silent_s,
            last.report,
            content.signal,
            content.exit_code,
        )
    state, reason = _state_of(content, silent_s, members_of)
    return WorkerInfo(content.worker_id, state, reason, silent_s, content)


def _state_of(
    report: WorkerReport, silent_s: float, members_of: Callable[[str], Collection[str] | None]
) -> tuple[WorkerState, str]:
    if report.kind == Kind.GOODBYE:
        return WorkerState.GONE, f"it ended in good order {silent_s:.0f} s ago"
    if silent_s > report.next_s * (1 + LATE_SHARE) + LATE_S:
        silence = f"no report for {silent_s:.0f} s, and it had promised one within {report.next_s:g} s"
        groups = _groups_with(report.members, members_of)
        if silent_s < GONE_AFTER_S:
            return WorkerState.SILENT, silence
        if groups is None:
            return WorkerState.SILENT, f"{silence}; whether it is in its consumer groups is not known"
        if groups:
            return WorkerState.SILENT, f"{silence}; it is still a member of {', '.join(groups)}"
        return WorkerState.GONE, f"{silence}; it is in none of its consumer groups"
    late = _overdue(report)
    if late and report.ended_ms <= min(task.since_ms + (task.limit_ms or 0) for task in late):
        return (
            WorkerState.STUCK,
            f"{_task(late[0], report.at_ms)} is past its limit, and no run has ended since",
        )
    if late and len(late) >= report.threads > 0:
        each = f"each of its {report.threads} threads runs a task past its limit"
        return WorkerState.STUCK, f"{each}: {_task(late[0], report.at_ms)}"
    if report.running_count:
        shown = late[:1] or report.running[:1]
        oldest = f": {_task(shown[0], report.at_ms)}" if shown else ""
        past = f", {len(late)} of them past its limit" if late else ""
        return (
            WorkerState.BUSY,
            f"{report.running_count} of {report.threads} threads run a task{past}{oldest}",
        )
    return WorkerState.IDLE, "no task runs"


def _overdue(report: WorkerReport) -> tuple[RunningTask, ...]:
    return tuple(task for task in report.running if _is_late(task, report.at_ms))


def _is_late(task: RunningTask, now_ms: int) -> bool:
    return task.limit_ms is not None and now_ms - task.since_ms > task.limit_ms + LIMIT_GRACE_MS


def _task(task: RunningTask, now_ms: int) -> str:
    since_s = max(0, now_ms - task.since_ms) / 1000
    limit = "" if task.limit_ms is None else f" of {task.limit_ms / 1000:g} s allowed"
    return f"{task.actor_name} {task.message_id} for {since_s:.0f} s{limit}"


def _groups_with(
    members: Mapping[str, str], members_of: Callable[[str], Collection[str] | None]
) -> list[str] | None:
    """The groups that a worker is still in; None when that is not known of one of them."""
    found = []
    for group, member_id in members.items():
        present = members_of(group)
        if present is None:
            return None
        if member_id in present:
            found.append(group)
    return found


def _end_of(note: DeathNote) -> str:
    if note.culprit:
        return f"its reaper ended it, since {note.culprit},"
    if note.signal is not None:
        try:
            name = signal.Signals(note.signal).name
        except ValueError:
            name = f"signal {note.signal}"
        return f"{name} ended it"
    if note.exit_code is not None:
        return f"it ended with exit code {note.exit_code}"
    return "its process ended"
