"""The rows of the JSON documents. docs/console.md explains each field to other programs.

Times are milliseconds since 1970, durations are seconds, and ``null`` means unknown or none.
"""

from __future__ import annotations

from typing import Any, TypedDict


class QueueRow(TypedDict):
    """A queue. ``waiting`` to ``dead`` are numbers of messages."""

    queue: str
    waiting: int
    running: int
    delayed: int
    in_lanes: int
    delay_overdue_s: float | None
    dead: int
    oldest_waiting_s: float | None
    oldest_running_s: float | None
    in_per_s: float | None
    out_per_s: float | None
    drain_s: float | None
    workers: int
    paused: bool | None
    disobeying: list[str] | None
    purged: int
    ledger_difference: int
    ledger_since_ms: int | None
    ledger_before_ms: int | None


class PartitionRow(TypedDict):
    """A partition of a queue's topic."""

    queue: str
    partition: int
    waiting: int
    running: int
    oldest_waiting_s: float | None
    oldest_running_s: float | None
    next_offset: int | None
    highest: int | None
    holes: int
    written: int
    removed: int
    purged: int
    lost_tail: int
    handed_over: bool
    owner: str | None
    owner_state: str | None
    on_probation: bool
    suspects: list[SuspectRow]


class SuspectRow(TypedDict):
    """A record that may have killed a worker."""

    offset: int
    crashes: int
    running: bool


class WorkerRow(TypedDict):
    """A worker process."""

    worker: str
    host: str | None
    pid: int | None
    state: str
    reason: str
    silent_s: float
    up_s: float | None
    threads: int | None
    running: int | None
    overdue: int | None
    queues: list[str]
    rss_bytes: int | None
    cpu_s: float | None
    versions: dict[str, str]
    quiet: bool | None
    paused_queues: list[str]
    pauses_unknown: bool | None
    disobeys: list[str]
    history_dropped: int | None
    signal: int | None
    exit_code: int | None


class RunningRow(TypedDict):
    """A task that runs, by the last report of its worker."""

    message_id: str
    actor: str
    queue: str
    attempt: int
    worker: str
    worker_state: str
    since_ms: int
    for_s: float
    limit_s: float | None
    overdue: bool
    progress: float | None
    progress_text: str | None
    partition: int | None


class ActorRow(TypedDict):
    """An actor: the runs that its workers have counted since their boots."""

    actor: str
    workers: int
    running: int
    started: int
    succeeded: int
    failed: int
    retried: int
    dead_lettered: int
    skipped: int
    interrupted: int
    errors: dict[str, int]
    run_mean_s: float | None
    run_p50_s: float | None
    run_p95_s: float | None
    run_p99_s: float | None
    queue_p50_s: float | None
    queue_p95_s: float | None
    queue_p99_s: float | None


class TaskRow(TypedDict):
    """A message, by the last event that is known of it."""

    message_id: str
    actor: str
    queue: str
    status: str
    attempt: int | None
    at_ms: int
    worker: str | None
    run_s: float | None
    error_type: str | None
    error: str | None
    due_ms: int | None


class EventRow(TypedDict):
    """A step in the life of a message."""

    at_ms: int | None
    event: str
    attempt: int | None
    worker: str | None
    run_s: float | None
    queue_s: float | None
    error_type: str | None
    error: str | None
    due_ms: int | None
    by: str | None
    reason: str | None
    record: str | None


class MessageRow(TypedDict):
    """A message as it was enqueued."""

    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]


class DeadLetterRow(TypedDict):
    """A dead letter that was neither redriven nor discarded."""

    queue: str
    message_id: str | None
    actor: str | None
    at_ms: int
    error_type: str
    error: str
    retries: int
    redrives: int
    record: str | None
    not_redrivable: str | None


class DeadLetterDetail(DeadLetterRow):
    """A dead letter with all that it holds; ``raw_base64`` has the bytes of an unreadable message."""

    traceback: str
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    options: dict[str, Any] | None
    raw_base64: str | None
    imported: ImportRow | None


class ImportRow(TypedDict):
    """Who imported a dead letter, when and why."""

    operation: str
    by: str
    reason: str
    at_ms: int


class ErrorRow(TypedDict):
    """The dead letters of a queue with one actor and one type of error."""

    queue: str
    actor: str | None
    error_type: str
    count: int
    first_ms: int
    last_ms: int
    last_error: str
    last_message_id: str | None


class ResolutionRow(TypedDict):
    """A redrive or a discard of dead letters, as the audit keeps it: one partition's part of it."""

    queue: str
    at_ms: int
    action: str
    state: str
    by: str
    reason: str
    operation: str
    count: int
    message_ids: list[str]


class ReplayRow(TypedDict):
    """The record of a replay; ``state`` is begun, done or continued."""

    id: str
    queue: str
    state: str
    by: str
    at_ms: int
    reason: str
    actor: str | None
    from_ms: int | None
    to_ms: int | None
    limit: int | None
    ids: str
    selected: int
    sent: int
    ended_ms: int | None
    continued_by: str | None


class RetryRow(TypedDict):
    """A message that was to run now."""

    message_id: str
    outcome: str
    meaning: str


class AbortRow(TypedDict):
    """A message that was to be aborted."""

    message_id: str
    outcome: str
    meaning: str


class CommandRow(TypedDict):
    """A command to workers, as the control topic keeps it."""

    id: str
    kind: str
    target: str
    by: str
    at_ms: int
    reason: str


class FindingRow(TypedDict):
    """A finding of ``doctor``, ``healthcheck`` or ``topics check``; ``severity`` is error or warning."""

    check: str
    severity: str
    subject: str
    finding: str
    remedy: str


class SizeRow(TypedDict):
    """A size of a queue that ``plan`` has computed."""

    size: str
    value: float
    why: str


class MeasuredRow(TypedDict):
    """The load of a queue in a period, as ``plan QUEUE`` has measured it."""

    since_ms: int
    arrivals: int
    per_s: float
    peak_per_s: float
    runs: int
    task_s: float | None
    threads: int
    backlog: int


class TopicRow(TypedDict):
    """A topic of the namespace."""

    topic: str
    role: str
    partitions: int
    replication: int | None
    leaderless: list[int]
    under_replicated: list[int]
    cleanup_policy: str | None
    retention_ms: int | None
    max_message_bytes: int | None
    findings: list[FindingRow]


class PlannedTopicRow(TypedDict):
    """A topic that an application needs."""

    topic: str
    role: str
    queue: str | None
    partitions: int
    replication: int | None
    settings: dict[str, str]
    exists: bool
    differences: int


class DifferenceRow(TypedDict):
    """A difference between a planned topic and the one of the cluster."""

    topic: str
    subject: str
    planned: str
    found: str | None
    command: str | None


class RightRow(TypedDict):
    """A right that a kind of client needs: web, worker, operator or console."""

    client: str
    operation: str
    kind: str
    name: str
    optional: bool


class ScheduleRow(TypedDict):
    """A schedule."""

    schedule: str
    actor: str
    queue: str
    timing: str
    args: list[Any]
    kwargs: dict[str, Any]
    source: str
    by: str
    next_ms: int | None
    last_ms: int | None
    missed: int
    paused: bool
    paused_by: str | None
    pause_reason: str | None
