"""Rates and durations between two looks at the counters of workers, and the verdict on everything. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from ... import ActorCounters, WorkerInfo, WorkerState
from .. import texts
from ..documents import FindingRow, QueueRow, WorkerRow

Counters = dict[tuple[str, str], ActorCounters]


def counters_of(workers: Iterable[WorkerInfo]) -> Counters:
    """The counters since the boot, by worker and actor."""
    return {
        (worker.worker_id, actor): counters
        for worker in workers
        if worker.report is not None
        for actor, counters in worker.report.actors.items()
    }


@dataclass(slots=True)
class Ended:
    """The runs that ended between two looks."""

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    dead_lettered: int = 0
    run_counts: Counter[int] = field(default_factory=Counter)
    queue_counts: Counter[int] = field(default_factory=Counter)

    def add(self, before: ActorCounters, now: ActorCounters) -> None:
        self.succeeded += max(0, now.succeeded - before.succeeded)
        self.failed += max(0, sum(now.failed.values()) - sum(before.failed.values()))
        self.retried += max(0, now.retried - before.retried)
        self.dead_lettered += max(0, now.dead_lettered - before.dead_lettered)
        for counts, old, new in (
            (self.run_counts, before.run_time, now.run_time),
            (self.queue_counts, before.queue_time, now.queue_time),
        ):
            counts.update(_buckets(new))
            counts.subtract(_buckets(old))


def _buckets(histogram: Any) -> dict[int, int]:
    return dict(enumerate(histogram.counts, start=histogram.first_bucket))


def ended_between(before: Counters, now: Counters) -> dict[str, Ended]:
    """The runs that ended between two looks, by actor. A worker that is new began with none."""
    found: dict[str, Ended] = {}
    for (worker, actor), counters in now.items():
        found.setdefault(actor, Ended()).add(before.get((worker, actor), ActorCounters()), counters)
    return found


def total(ended: Iterable[Ended]) -> Ended:
    """The sum of all actors."""
    result = Ended()
    for one in ended:
        result.succeeded += one.succeeded
        result.failed += one.failed
        result.retried += one.retried
        result.dead_lettered += one.dead_lettered
        result.run_counts.update(one.run_counts)
        result.queue_counts.update(one.queue_counts)
    return result


def quantile_s(counts: Counter[int], share: float) -> float | None:
    """An estimate of a quantile in seconds, off by 19 % at most; None without a run.

    Parameters:
      counts: The number of durations, by bucket of ``reports.histogram``.
    """
    used = {bucket: count for bucket, count in counts.items() if count > 0}
    remaining = share * sum(used.values())
    for bucket in sorted(used):
        remaining -= used[bucket]
        if remaining <= 0:
            return float(2 ** ((bucket + 0.5) / 2))
    return None


class Problem(TypedDict):
    """What is not well: one sentence, and the page that shows it."""

    severity: Literal["error", "warning"]
    text: str
    href: str


def problems(
    queues: Sequence[QueueRow], workers: Sequence[WorkerRow], findings: Sequence[FindingRow]
) -> list[Problem]:
    """What is not well, the worst first. Empty when all is well."""
    found: list[Problem] = []
    for row in queues:
        href = f"/queues/{row['queue']}"
        if row["waiting"] and not row["workers"]:
            text = f"{row['queue']}: {texts.plural(row['waiting'], 'message')} wait, no worker serves it"
            found.append(Problem(severity="error", text=text, href=href))
        if row["ledger_difference"]:
            text = f"{row['queue']}: {texts.plural(row['ledger_difference'], 'record')} lost"
            found.append(Problem(severity="error", text=text, href=href))
        if row["paused"]:
            found.append(Problem(severity="warning", text=f"{row['queue']} is paused", href=href))
    for state, severity in ((WorkerState.STUCK, "error"), (WorkerState.SILENT, "warning")):
        count = sum(worker["state"] == state for worker in workers)
        if count:
            text = f"{texts.plural(count, 'worker')} {state}"
            found.append(Problem(severity=severity, text=text, href=f"/workers?state={state}"))  # type: ignore[typeddict-item]
    dead = sum(row["dead"] for row in queues)
    if dead:
        found.append(
            Problem(severity="warning", text=texts.plural(dead, "dead letter"), href="/dead-letters")
        )
    covered = {"workers", "ledger", "pauses"}
    errors = sum(row["severity"] == "error" and row["check"] not in covered for row in findings)
    if errors:
        text = f"{texts.plural(errors, 'finding')} of the health check"
        found.append(Problem(severity="error", text=text, href="/health"))
    return sorted(found, key=lambda one: one["severity"] != "error")
