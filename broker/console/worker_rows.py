"""Rows about workers, their tasks and actors. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .. import ActorCounters, PauseResult, WorkerInfo, WorkerState
from . import texts
from .documents import ActorRow, RunningRow, WorkerRow
from .output import Column

_STYLES = {"busy": "green", "idle": "", "stuck": "bold red", "silent": "bold yellow", "gone": "dim"}


def worker_rows(workers: Iterable[WorkerInfo], pauses: Mapping[str, PauseResult]) -> list[WorkerRow]:
    """The rows of ``workers``.

    Parameters:
      pauses: The pauses, by queue, as far as they are known.
    """
    return [_worker_row(worker, pauses) for worker in workers]


def _worker_row(worker: WorkerInfo, pauses: Mapping[str, PauseResult]) -> WorkerRow:
    report = worker.report
    host, pid = _host_and_pid(worker.worker_id)
    return WorkerRow(
        worker=worker.worker_id,
        host=report.host if report else host,
        pid=report.pid if report else pid,
        state=str(worker.state),
        reason=worker.reason,
        silent_s=worker.silent_s,
        up_s=(report.at_ms - report.booted_ms) / 1000 if report else None,
        threads=report.threads if report else None,
        running=report.running_count if report else None,
        overdue=len(worker.overdue) if report else None,
        queues=list(report.queues) if report else [],
        rss_bytes=report.rss_bytes if report else None,
        cpu_s=report.cpu_s if report else None,
        versions=dict(report.versions) if report else {},
        quiet=report.control.quiet if report else None,
        paused_queues=list(report.control.paused_queues) if report else [],
        pauses_unknown=report.control.pauses_unknown if report else None,
        disobeys=[queue for queue, pause in sorted(pauses.items()) if worker.worker_id in pause.unknown],
        history_dropped=report.history.dropped if report else None,
        signal=worker.signal,
        exit_code=worker.exit_code,
    )


def _host_and_pid(worker_id: str) -> tuple[str | None, int | None]:
    host, _, rest = worker_id.partition(":")
    pid = rest.partition(":")[0]
    return (host or None), (int(pid) if pid.isdecimal() else None)


def running_rows(workers: Iterable[WorkerInfo]) -> list[RunningRow]:
    """The tasks that run on workers that are not gone. A silent worker's are those of its last report."""
    rows = []
    for worker in workers:
        report = worker.report
        if report is None or worker.state is WorkerState.GONE:
            continue
        for task in report.running:
            progress = task.progress
            rows.append(
                RunningRow(
                    message_id=task.message_id,
                    actor=task.actor_name,
                    queue=task.queue_name,
                    attempt=task.attempt,
                    worker=worker.worker_id,
                    worker_state=str(worker.state),
                    since_ms=task.since_ms,
                    # By the worker's clock up to its report, and by Kafka's since then.
                    for_s=max(0.0, (report.at_ms - task.since_ms) / 1000) + worker.silent_s,
                    limit_s=None if task.limit_ms is None else task.limit_ms / 1000,
                    overdue=task in worker.overdue,
                    progress=progress.fraction if progress else None,
                    progress_text=progress.text if progress else None,
                    partition=task.partition,
                )
            )
    return rows


def left_partitions(workers: Iterable[WorkerInfo]) -> set[tuple[str, int]]:
    """The queues and partitions of workers that are gone, and that no living worker has."""
    found: dict[bool, set[tuple[str, int]]] = {True: set(), False: set()}
    for worker in workers:
        for queue, numbers in (worker.report.partitions if worker.report else {}).items():
            found[worker.state is WorkerState.GONE].update((queue, number) for number in numbers)
    return found[True] - found[False]


def actor_rows(workers: Sequence[WorkerInfo], declared: Iterable[str]) -> list[ActorRow]:
    """The actors that have run, and the declared ones.

    Parameters:
      declared: The actors of the application; empty without one.
    """
    sums: dict[str, ActorCounters] = {name: ActorCounters() for name in declared}
    counts: Counter[str] = Counter()
    for worker in workers:
        for name, counters in (worker.report.actors if worker.report else {}).items():
            sums[name] = sums.get(name, ActorCounters()) + counters
            counts[name] += worker.state is not WorkerState.GONE
    running = Counter(row["actor"] for row in running_rows(workers))
    for name in running:
        sums.setdefault(name, ActorCounters())
    return [
        ActorRow(
            actor=name,
            workers=counts[name],
            running=running[name],
            started=found.started,
            succeeded=found.succeeded,
            failed=sum(found.failed.values()),
            retried=found.retried,
            dead_lettered=found.dead_lettered,
            skipped=found.skipped,
            interrupted=found.interrupted,
            errors=dict(found.failed),
            run_mean_s=found.run_time.mean_s,
            run_p50_s=found.run_time.quantile_s(0.5),
            run_p95_s=found.run_time.quantile_s(0.95),
            run_p99_s=found.run_time.quantile_s(0.99),
            queue_p50_s=found.queue_time.quantile_s(0.5),
            queue_p95_s=found.queue_time.quantile_s(0.95),
            queue_p99_s=found.queue_time.quantile_s(0.99),
        )
        for name, found in sorted(sums.items())
    ]


def state_style(state: str) -> str:
    """rich's style of a worker's state."""
    return _STYLES.get(state, "")


def _progress(row: RunningRow) -> str:
    if row["progress"] is None:
        return texts.NONE
    return f"{row['progress']:.0%} {row['progress_text'] or ''}".strip()


def _for_style(row: RunningRow) -> str:
    if row["overdue"]:
        return "bold red"
    return "yellow" if row["limit_s"] is not None and row["for_s"] > row["limit_s"] else ""


def _limit(row: RunningRow) -> str:
    return texts.age(row["limit_s"]) + (" over" if row["overdue"] else "")


def _running(row: WorkerRow) -> str:
    return f"{texts.number(row['running'])}/{texts.number(row['threads'])}"


def _errors(row: ActorRow) -> str:
    most = Counter(row["errors"]).most_common(3)
    return ", ".join(f"{name} {count}" for name, count in most) or texts.NONE


def _reason(row: WorkerRow) -> str:
    """The reason of the state, after the pauses that the worker does not obey."""
    parts = [f"it cannot read commands and does not obey the pause of {', '.join(row['disobeys'])}"]
    return texts.line("; ".join([*(parts if row["disobeys"] else ()), row["reason"]]))


WORKER_COLUMNS: Sequence[Column] = (
    Column("WORKER", lambda r: r["worker"], is_id=True),
    Column(
        "STATE",
        lambda r: r["state"] + (" (quiet)" if r["quiet"] else ""),
        style=lambda r: state_style(r["state"]),
    ),
    Column("RUNNING", _running, is_number=True, style=lambda r: "bold red" if r["overdue"] else ""),
    Column("UP", lambda r: texts.age(r["up_s"]), is_number=True),
    Column("RSS", lambda r: texts.size(r["rss_bytes"]), is_number=True),
    Column("QUEUES", lambda r: ",".join(r["queues"]) or texts.NONE),
    Column("VERSION", lambda r: r["versions"].get("app") or r["versions"].get("broker") or texts.NONE),
    Column("REASON", _reason),
)

RUNNING_COLUMNS: Sequence[Column] = (
    Column("FOR", lambda r: texts.age(r["for_s"]), is_number=True, style=_for_style),
    Column("LIMIT", _limit, is_number=True, style=_for_style),
    Column("ACTOR", lambda r: r["actor"]),
    Column("QUEUE", lambda r: r["queue"]),
    Column("MESSAGE", lambda r: r["message_id"], is_id=True),
    Column("ATTEMPT", lambda r: str(r["attempt"]), is_number=True),
    Column("WORKER", lambda r: r["worker"], is_id=True),
    Column("STATE", lambda r: r["worker_state"], style=lambda r: state_style(r["worker_state"])),
    Column("PROGRESS", _progress),
)

ACTOR_COLUMNS: Sequence[Column] = (
    Column("ACTOR", lambda r: r["actor"]),
    Column("WORKERS", lambda r: str(r["workers"]), is_number=True),
    Column("RUNNING", lambda r: texts.number(r["running"]), is_number=True),
    Column("SUCCEEDED", lambda r: texts.number(r["succeeded"]), is_number=True),
    Column(
        "FAILED",
        lambda r: texts.number(r["failed"]),
        is_number=True,
        style=lambda r: "red" if r["failed"] else "",
    ),
    Column("RETRIED", lambda r: texts.number(r["retried"]), is_number=True),
    Column("DEAD", lambda r: texts.number(r["dead_lettered"]), is_number=True),
    Column("RUN P50", lambda r: texts.short(r["run_p50_s"]), is_number=True),
    Column("RUN P95", lambda r: texts.short(r["run_p95_s"]), is_number=True),
    Column("QUEUED P95", lambda r: texts.short(r["queue_p95_s"]), is_number=True),
    Column("ERRORS", _errors),
)
