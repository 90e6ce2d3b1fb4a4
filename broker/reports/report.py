"""The records of the topic ``{namespace}dramatiq_workers``: reports, goodbyes and death notes.

The key of a record is the worker id, so compaction keeps the last record of each worker. The value is an
object (see ``payload``) with a version ``v`` and a ``kind``. ``docs/reports.md`` documents the fields for
other programs. A reader ignores unknown fields, and skips a record of an unknown version.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..reaper.death_note import DeathNote
from .consumption import Consumption
from .counters import OTHERS, ActorCounters
from .histogram import EMPTY, Histogram
from .payload import UnreadablePayload, pack, unpack

logger = logging.getLogger(__name__)

VERSION = 1
#: The limits of a report, so that it fits every topic.
MAX_RUNNING = 200
MAX_ACTORS = 500
MAX_APPLIED_COMMANDS = 200


class Kind(StrEnum):
    """The kind of a record."""

    REPORT = "report"
    GOODBYE = "goodbye"
    DEATH = "death"


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """The progress that a task has reported.

    Attributes:
      fraction: From 0 to 1.
      text: One line.
      at_ms: The time of the report, in milliseconds since 1970.
    """

    fraction: float
    text: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that runs.

    Attributes:
      message_id, actor_name, queue_name: Its message.
      attempt: The number of the attempt, from 1.
      since_ms: The beginning of the run by the worker's clock, in milliseconds since 1970.
      limit_ms: Its time limit in milliseconds; None without one.
      progress: What it last reported about itself; None before that.
      partition: The partition of its record; None when the worker is of an earlier version.
    """

    message_id: str
    actor_name: str
    queue_name: str
    attempt: int
    since_ms: int
    limit_ms: int | None = None
    progress: TaskProgress | None = None
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryCounters:
    """The events of a worker's history since its boot.

    Attributes:
      recorded: The events that were kept for the history.
      unrecorded: The successful runs beyond the configured rate. Only the counters of the actor have them.
      dropped: The events that were lost, because Kafka did not take them in time.
    """

    recorded: int = 0
    unrecorded: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class ControlState:
    """What a worker knows of the control commands.

    Attributes:
      applied: The ids of the last commands that it has applied, the newest last.
      pauses_unknown: Whether it cannot read the commands, so that it may dispatch from a paused queue.
      paused_queues: The queues from which it dispatches nothing.
      quiet: Whether it dispatches nothing at all.
    """

    applied: tuple[str, ...] = ()
    pauses_unknown: bool = False
    paused_queues: tuple[str, ...] = ()
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The state of a worker process as it last reported it.

    Attributes:
      kind: REPORT, or GOODBYE for the last one of a worker that has ended in good order.
      worker_id, host, pid: The process.
      at_ms: The time of the report by the worker's clock, in milliseconds since 1970.
      booted_ms: The time of its boot.
      next_s: The time within which the worker sends its next report.
      versions: Versions by name: ``broker``, ``python``, ``dramatiq``, ``kafka-python``, and ``app`` when the
        application has named its own.
      queues: The queues that it consumes.
      threads: The number of its worker threads.
      running: The tasks that run, the oldest first; at most 200 of them.
      running_count: The number of all tasks that run.
      ended_ms: The time at which a run last ended; 0 before the first.
      actors: The counters of each actor that ran, since the boot. Those beyond 500 share one entry.
      rss_bytes: The resident memory of the process; None where the system does not tell it.
      cpu_s: The processor seconds of the process.
      partitions: The assigned partitions of each queue's topic.
      members: The member id in each consumer group.
      group_id: Its ``group_id``; empty in a report of an earlier version.
      history: The events of its history.
      control: What it knows of the control commands.
      consumption: The commits, rebalances and repeated deliveries of each queue.
      forward_lateness: The times from the due time of delayed messages until they were in their queues.
    """

    worker_id: str
    host: str
    pid: int
    at_ms: int
    booted_ms: int
    next_s: float
    kind: str = Kind.REPORT
    versions: dict[str, str] = field(default_factory=dict)
    queues: tuple[str, ...] = ()
    threads: int = 0
    running: tuple[RunningTask, ...] = ()
    running_count: int = 0
    ended_ms: int = 0
    actors: dict[str, ActorCounters] = field(default_factory=dict)
    rss_bytes: int | None = None
    cpu_s: float = 0.0
    partitions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    group_id: str = ""
    history: HistoryCounters = HistoryCounters()
    control: ControlState = ControlState()
    consumption: dict[str, Consumption] = field(default_factory=dict)
    forward_lateness: Histogram = EMPTY


class UnreadableReport(ValueError):
    """A value that is no report, or damaged."""


class UnknownVersion(UnreadableReport):
    """A record of a later version of the broker."""


def encode_report(report: WorkerReport) -> bytes:
    """The value of a report's record."""
    return pack(
        {
            "v": VERSION,
            "kind": str(report.kind),
            "worker": report.worker_id,
            "host": report.host,
            "pid": report.pid,
            "at_ms": report.at_ms,
            "booted_ms": report.booted_ms,
            "next_s": report.next_s,
            "versions": report.versions,
            "queues": report.queues,
            "threads": report.threads,
            "running": [_running(task) for task in report.running[:MAX_RUNNING]],
            "running_count": report.running_count,
            "ended_ms": report.ended_ms,
            "actors": {name: _counters(found) for name, found in limited(report.actors).items()},
            "rss_bytes": report.rss_bytes,
            "cpu_s": round(report.cpu_s, 2),
            "partitions": report.partitions,
            "members": report.members,
            "group_id": report.group_id,
            "history": {
                "recorded": report.history.recorded,
                "unrecorded": report.history.unrecorded,
                "dropped": report.history.dropped,
            },
            "control": {
                "applied": report.control.applied[-MAX_APPLIED_COMMANDS:],
                "pauses_unknown": report.control.pauses_unknown,
                "paused_queues": report.control.paused_queues,
                "quiet": report.control.quiet,
            },
            "consumption": {name: _consumption(found) for name, found in report.consumption.items()},
            "forward_lateness": _histogram(report.forward_lateness),
        }
    )


def decode(value: bytes) -> WorkerReport | DeathNote:
    """Read a record of the topic.

    Raises:
      UnknownVersion: When a later version of the broker wrote it.
      UnreadableReport: When it is anything else.
    """
    try:
        body = unpack(value)
    except UnreadablePayload as e:
        raise UnreadableReport(str(e)) from e
    if body.get("v") != VERSION:
        raise UnknownVersion(f"a report of version {body.get('v')!r}; this broker reads version {VERSION}")
    try:
        if body["kind"] == Kind.DEATH:
            return DeathNote.from_fields(body)
        return _read_report(body)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UnreadableReport(f"a field of a report is missing or has another type: {e!r}") from e


def limited(actors: Mapping[str, ActorCounters]) -> Mapping[str, ActorCounters]:
    """The counters of MAX_ACTORS actors, those that ran most, and the sum of the others."""
    if len(actors) <= MAX_ACTORS:
        return actors
    ordered = sorted(actors.items(), key=lambda item: item[1].started, reverse=True)
    kept = dict(ordered[:MAX_ACTORS])
    kept[OTHERS] = sum((found for _, found in ordered[MAX_ACTORS:]), start=ActorCounters())
    return kept


def _running(task: RunningTask) -> dict[str, Any]:
    progress = task.progress
    return {
        "message_id": task.message_id,
        "actor": task.actor_name,
        "queue": task.queue_name,
        "attempt": task.attempt,
        "since_ms": task.since_ms,
        "limit_ms": task.limit_ms,
        "progress": None
        if progress is None
        else {"fraction": progress.fraction, "text": progress.text, "at_ms": progress.at_ms},
        "partition": task.partition,
    }


def _counters(counters: ActorCounters) -> dict[str, Any]:
    return {
        "started": counters.started,
        "succeeded": counters.succeeded,
        "failed": counters.failed,
        "retried": counters.retried,
        "dead_lettered": counters.dead_lettered,
        "skipped": counters.skipped,
        "interrupted": counters.interrupted,
        "run_time": _histogram(counters.run_time),
        "queue_time": _histogram(counters.queue_time),
        "dead_letter_errors": counters.dead_letter_errors,
        "queue": counters.queue_name,
    }


def _consumption(found: Consumption) -> dict[str, Any]:
    return {
        "commit_time": _histogram(found.commit_time),
        "failed_commits": found.failed_commits,
        "assigned": found.assigned,
        "revoked": found.revoked,
        "lost": found.lost,
        "redelivered": found.redelivered,
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {
        "first_bucket": histogram.first_bucket,
        "counts": histogram.counts,
        "sum_s": round(histogram.sum_s, 6),
    }


def _read_report(body: Mapping[str, Any]) -> WorkerReport:
    history, control = body.get("history") or {}, body.get("control") or {}
    return WorkerReport(
        worker_id=str(body["worker"]),
        host=str(body.get("host", "")),
        pid=int(body.get("pid", 0)),
        at_ms=int(body["at_ms"]),
        booted_ms=int(body.get("booted_ms", 0)),
        next_s=float(body["next_s"]),
        kind=str(body["kind"]),
        versions={str(name): str(version) for name, version in body.get("versions", {}).items()},
        queues=tuple(map(str, body.get("queues", ()))),
        threads=int(body.get("threads", 0)),
        running=tuple(map(_read_running, body.get("running", ()))),
        running_count=int(body.get("running_count", 0)),
        ended_ms=int(body.get("ended_ms", 0)),
        actors={str(name): _read_counters(found) for name, found in body.get("actors", {}).items()},
        rss_bytes=_maybe_int(body.get("rss_bytes")),
        cpu_s=float(body.get("cpu_s", 0.0)),
        partitions={str(q): tuple(map(int, numbers)) for q, numbers in body.get("partitions", {}).items()},
        members={str(group): str(member) for group, member in body.get("members", {}).items()},
        group_id=str(body.get("group_id", "")),
        history=HistoryCounters(
            recorded=int(history.get("recorded", 0)),
            unrecorded=int(history.get("unrecorded", 0)),
            dropped=int(history.get("dropped", 0)),
        ),
        control=ControlState(
            applied=tuple(map(str, control.get("applied", ()))),
            pauses_unknown=bool(control.get("pauses_unknown", False)),
            paused_queues=tuple(map(str, control.get("paused_queues", ()))),
            quiet=bool(control.get("quiet", False)),
        ),
        consumption={
            str(queue): _read_consumption(found) for queue, found in body.get("consumption", {}).items()
        },
        forward_lateness=_read_histogram(body.get("forward_lateness") or {}),
    )


def _read_running(task: Mapping[str, Any]) -> RunningTask:
    progress = task.get("progress")
    return RunningTask(
        str(task["message_id"]),
        str(task.get("actor", "")),
        str(task.get("queue", "")),
        int(task.get("attempt", 1)),
        int(task["since_ms"]),
        limit_ms=_maybe_int(task.get("limit_ms")),
        progress=None
        if progress is None
        else TaskProgress(float(progress["fraction"]), str(progress.get("text", "")), int(progress["at_ms"])),
        partition=_maybe_int(task.get("partition")),
    )


def _read_counters(found: Mapping[str, Any]) -> ActorCounters:
    return ActorCounters(
        started=int(found.get("started", 0)),
        succeeded=int(found.get("succeeded", 0)),
        failed={str(name): int(count) for name, count in found.get("failed", {}).items()},
        retried=int(found.get("retried", 0)),
        dead_lettered=int(found.get("dead_lettered", 0)),
        skipped=int(found.get("skipped", 0)),
        interrupted=int(found.get("interrupted", 0)),
        run_time=_read_histogram(found.get("run_time") or {}),
        queue_time=_read_histogram(found.get("queue_time") or {}),
        dead_letter_errors={
            str(name): int(count) for name, count in found.get("dead_letter_errors", {}).items()
        },
        queue_name=str(found.get("queue", "")),
    )


def _read_consumption(found: Mapping[str, Any]) -> Consumption:
    return Consumption(
        _read_histogram(found.get("commit_time") or {}),
        int(found.get("failed_commits", 0)),
        int(found.get("assigned", 0)),
        int(found.get("revoked", 0)),
        int(found.get("lost", 0)),
        int(found.get("redelivered", 0)),
    )


def _read_histogram(found: Mapping[str, Any]) -> Histogram:
    return Histogram(
        int(found.get("first_bucket", 0)),
        tuple(map(int, found.get("counts", ()))),
        float(found.get("sum_s", 0.0)),
    )


def _maybe_int(value: Any) -> int | None:
    return None if value is None else int(value)
