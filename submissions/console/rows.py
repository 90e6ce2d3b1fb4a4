"""The rows of the JSON documents, made of the service's objects, and their columns. Pure.

Times are milliseconds since 1970, durations are seconds, and ``null`` means unknown or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict

from broker.console import texts
from broker.console.output import Column
from db.history import PastOutcome
from db.judgements import Judgement
from db.outbox import Published
from db.submissions import Submission
from db.totals import Totals


class SubmissionRow(TypedDict):
    """A submission."""

    task_id: int
    item_id: int
    status: str
    is_violation: bool | None
    probability: float | None
    error: str | None
    message_id: str
    generation: int
    created_ms: int
    processed_ms: int | None
    published: bool


class PastRow(TypedDict):
    """The outcome of an earlier generation of a submission."""

    generation: int
    status: str
    is_violation: bool | None
    probability: float | None
    error: str | None
    processed_ms: int | None
    replaced_ms: int
    by: str | None
    reason: str | None


class JudgementRow(TypedDict):
    """The judgement of a verdict."""

    model_version: str
    decision: str
    threshold: float
    approve_below: float
    reject_from: float
    shadow_version: str | None
    shadow_decision: str | None
    shadow_probability: float | None


class PendingRow(TypedDict):
    """A pending submission whose message Kafka does not have."""

    task_id: int
    item_id: int
    message_id: str
    generation: int
    created_ms: int


class StatusRow(TypedDict):
    """The submissions of one status."""

    status: str
    count: int
    unpublished: int
    oldest_s: float


class PeriodRow(TypedDict):
    """The submissions of a period."""

    since_ms: int
    submitted: int
    completed: int
    failed: int
    violations: int
    p50_s: float | None
    p95_s: float | None


class FailureRow(TypedDict):
    """The failed submissions with one error."""

    error: str
    count: int


class DecisionRow(TypedDict):
    """The verdicts of a period with one decision."""

    model_version: str
    decision: str
    count: int


class QueueNumbers(TypedDict):
    """The queue of the submissions in Kafka."""

    waiting: int
    running: int
    delayed: int
    dead: int


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else milliseconds(moment)


def submission_row(found: Submission) -> SubmissionRow:
    return SubmissionRow(
        task_id=found.task_id,
        item_id=found.item_id,
        status=found.status,
        is_violation=found.is_violation,
        probability=found.probability,
        error=found.error_message,
        message_id=found.message_id,
        generation=found.generation,
        created_ms=milliseconds(found.created_at),
        processed_ms=_ms(found.processed_at),
        published=found.publish_after is None,
    )


def past_row(past: PastOutcome) -> PastRow:
    return PastRow(
        generation=past.generation,
        status=past.status,
        is_violation=past.is_violation,
        probability=past.probability,
        error=past.error_message,
        processed_ms=_ms(past.processed_at),
        replaced_ms=milliseconds(past.replaced_at),
        by=past.redriven_by,
        reason=past.reason,
    )


def judgement_row(judgement: Judgement) -> JudgementRow:
    return JudgementRow(
        model_version=judgement.model_version,
        decision=judgement.decision,
        threshold=judgement.threshold,
        approve_below=judgement.approve_below,
        reject_from=judgement.reject_from,
        shadow_version=judgement.shadow_version,
        shadow_decision=judgement.shadow_decision,
        shadow_probability=judgement.shadow_probability,
    )


def pending_row(published: Published) -> PendingRow:
    return PendingRow(
        task_id=published.task_id,
        item_id=published.item_id,
        message_id=published.message_id,
        generation=published.generation,
        created_ms=milliseconds(published.created_at),
    )


def status_rows(found: Totals) -> list[StatusRow]:
    return [
        StatusRow(
            status=one.status,
            count=one.count,
            unpublished=one.unpublished,
            oldest_s=max(0.0, (found.now - one.oldest).total_seconds()),
        )
        for one in found.statuses
    ]


def period_row(found: Totals, since: datetime) -> PeriodRow:
    period = found.period
    return PeriodRow(
        since_ms=milliseconds(since),
        submitted=period.submitted,
        completed=period.completed,
        failed=period.failed,
        violations=period.violations,
        p50_s=period.p50_s,
        p95_s=period.p95_s,
    )


def failure_rows(found: Totals) -> list[FailureRow]:
    return [FailureRow(error=one.error, count=one.count) for one in found.errors]


def decision_rows(found: Totals) -> list[DecisionRow]:
    return [
        DecisionRow(model_version=one.model_version, decision=one.decision, count=one.count)
        for one in found.decisions
    ]


def _verdict(row: SubmissionRow | PastRow) -> str:
    if row["probability"] is None:
        return texts.NONE
    return f"{'violation' if row['is_violation'] else 'no violation'} {row['probability']:.3f}"


PAST_COLUMNS: Sequence[Column] = (
    Column("GENERATION", lambda r: str(r["generation"]), is_number=True),
    Column("STATUS", lambda r: r["status"]),
    Column("PROCESSED", lambda r: texts.moment(r["processed_ms"])),
    Column("VERDICT", _verdict),
    Column("ERROR", lambda r: texts.line(r["error"])),
    Column("REDRIVEN BY", lambda r: r["by"] or texts.NONE),
    Column("REASON", lambda r: texts.line(r["reason"])),
)

PENDING_COLUMNS: Sequence[Column] = (
    Column("TASK", lambda r: str(r["task_id"]), is_number=True),
    Column("AD", lambda r: str(r["item_id"]), is_number=True),
    Column("SUBMITTED", lambda r: texts.moment(r["created_ms"])),
    Column("MESSAGE", lambda r: r["message_id"], is_id=True),
)

STATUS_COLUMNS: Sequence[Column] = (
    Column("STATUS", lambda r: r["status"]),
    Column("COUNT", lambda r: texts.number(r["count"]), is_number=True),
    Column("UNPUBLISHED", lambda r: texts.number(r["unpublished"]), is_number=True),
    Column("OLDEST", lambda r: texts.age(r["oldest_s"]), is_number=True),
)

PERIOD_COLUMNS: Sequence[Column] = (
    Column("SUBMITTED", lambda r: texts.number(r["submitted"]), is_number=True),
    Column("COMPLETED", lambda r: texts.number(r["completed"]), is_number=True),
    Column("FAILED", lambda r: texts.number(r["failed"]), is_number=True),
    Column("VIOLATIONS", lambda r: texts.number(r["violations"]), is_number=True),
    Column("P50", lambda r: texts.short(r["p50_s"]), is_number=True),
    Column("P95", lambda r: texts.short(r["p95_s"]), is_number=True),
)

FAILURE_COLUMNS: Sequence[Column] = (
    Column("FAILED", lambda r: texts.number(r["count"]), is_number=True),
    Column("ERROR", lambda r: texts.line(r["error"])),
)

DECISION_COLUMNS: Sequence[Column] = (
    Column("VERDICTS", lambda r: texts.number(r["count"]), is_number=True),
    Column("DECISION", lambda r: r["decision"]),
    Column("MODEL", lambda r: r["model_version"]),
)

QUEUE_COLUMNS: Sequence[Column] = (
    Column("WAITING", lambda r: texts.number(r["waiting"]), is_number=True),
    Column("RUNNING", lambda r: texts.number(r["running"]), is_number=True),
    Column("DELAYED", lambda r: texts.number(r["delayed"]), is_number=True),
    Column("DEAD", lambda r: texts.number(r["dead"]), is_number=True),
)


def submission_lines(row: SubmissionRow, judgement: JudgementRow | None) -> list[str]:
    """The view of one submission."""
    values = {
        "submission": row["task_id"],
        "ad": row["item_id"],
        "status": row["status"],
        "verdict": None if row["probability"] is None else _verdict(row),
        "error": row["error"],
        "submitted": texts.moment(row["created_ms"]),
        "processed": None if row["processed_ms"] is None else texts.moment(row["processed_ms"]),
        "generation": row["generation"],
        "message": row["message_id"],
        "in Kafka": None if row["published"] else "not known yet: the outbox sends it",
    }
    if judgement is not None:
        values["decision"] = f"{judgement['decision']} by model {judgement['model_version']}"
        if judgement["shadow_decision"] is not None:
            values["shadow"] = f"{judgement['shadow_decision']} by model {judgement['shadow_version']}"
    return [f"{name + ':':20}{value}" for name, value in values.items() if value is not None]
