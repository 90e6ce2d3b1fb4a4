"""Submissions as JSON."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from db.history import PastOutcome
from db.judgements import Judgement
from db.submissions import Submission


def result_body(submission: Submission) -> dict[str, Any]:
    """Return the body of a result: these keys in this order, ``error`` only when it failed."""
    body: dict[str, Any] = {
        "task_id": submission.task_id,
        "status": submission.status,
        "is_violation": submission.is_violation,
        "probability": submission.probability,
    }
    if submission.status == "failed":
        body["error"] = submission.error_message
    return body


def listed_body(submission: Submission) -> dict[str, Any]:
    """Return the body of a result among others: every key is always there."""
    return {
        "task_id": submission.task_id,
        "item_id": submission.item_id,
        "status": submission.status,
        "is_violation": submission.is_violation,
        "probability": submission.probability,
        "error": submission.error_message,
        "created_at": _time(submission.created_at),
        "processed_at": _time(submission.processed_at),
    }


def details_body(submission: Submission, judgement: Judgement | None) -> dict[str, Any]:
    """Return the body of all that is known. Keys may be added."""
    return {
        **listed_body(submission),
        "message_id": submission.message_id,
        "generation": submission.generation,
        "is_published": submission.publish_after is None,
        "verdict": None if judgement is None else verdict_body(judgement),
    }


def verdict_body(judgement: Judgement) -> dict[str, Any]:
    """Return by which model and thresholds a verdict was reached, and what they decide."""
    return {
        "model_version": judgement.model_version,
        "decision": judgement.decision,
        "threshold": judgement.threshold,
        "approve_below": judgement.approve_below,
        "reject_from": judgement.reject_from,
    }


def history_body(history: Sequence[PastOutcome]) -> list[dict[str, Any]]:
    """Return what a submission's earlier generations came to, oldest first."""
    return [
        {
            "generation": past.generation,
            "status": past.status,
            "is_violation": past.is_violation,
            "probability": past.probability,
            "error": past.error_message,
            "processed_at": _time(past.processed_at),
            "replaced_at": _time(past.replaced_at),
            "redriven_by": past.redriven_by,
            "reason": past.reason,
        }
        for past in history
    ]


def _time(at: datetime | None) -> str | None:
    """RFC 3339, UTC."""
    return None if at is None else at.astimezone(UTC).isoformat()
