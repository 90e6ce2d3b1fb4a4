"""Numbers of submissions for operators. Each statement reads a whole table or a whole period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

#: The errors that are named; the others are counted together.
NAMED_ERRORS = 20


@dataclass(frozen=True, slots=True)
class StatusCount:
    """The submissions of one status.

    Attributes:
      unpublished: Those whose messages Kafka is not known to have.
      oldest: The time at which the oldest of them was submitted.
    """

    status: str
    count: int
    unpublished: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class PeriodCounts:
    """The submissions of a period.

    Attributes:
      submitted: The submissions that came in it.
      completed, failed: The outcomes that were written in it.
      violations: The completed ones that are violations.
      p50_s, p95_s: The times from the submission to the outcome, in seconds, that half and 95 % of the
        completed ones did not exceed, redriven ones left out; None without one.
    """

    submitted: int
    completed: int
    failed: int
    violations: int
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """The failed submissions with one error."""

    error: str
    count: int


@dataclass(frozen=True, slots=True)
class DecisionCount:
    """The verdicts of a period with one decision, by the version of the model."""

    model_version: str
    decision: str
    count: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The submissions as they are now, and those of a period."""

    now: datetime
    statuses: Sequence[StatusCount]
    period: PeriodCounts
    errors: Sequence[ErrorCount]
    decisions: Sequence[DecisionCount]


_STATUSES = text(
    """
    SELECT status, count(*),
        count(*) FILTER (WHERE status = 'pending' AND publish_after IS NOT NULL), min(created_at)
    FROM moderation_results GROUP BY status ORDER BY status
    """
)
_SUBMITTED = text("SELECT count(*) FROM moderation_results WHERE created_at >= :since")
_OUTCOMES = text(
    """
    SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
        count(*) FILTER (WHERE is_violation),
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
            ORDER BY extract(epoch FROM processed_at - created_at)
        ) FILTER (WHERE status = 'completed' AND generation = 0)
    FROM moderation_results WHERE processed_at >= :since
    """
)
_ERRORS = text(
    """
    SELECT error_message, count(*) FROM moderation_results WHERE status = 'failed'
    GROUP BY error_message ORDER BY count(*) DESC, error_message LIMIT :limit
    """
)
_DECISIONS = text(
    """
    SELECT judgements.model_version, judgements.decision, count(*)
    FROM judgements JOIN moderation_results USING (message_id, generation)
    WHERE moderation_results.processed_at >= :since
    GROUP BY 1, 2 ORDER BY 1, 2
    """
)


def read_totals(connection: Connection, *, since: datetime) -> Totals:
    """Read the numbers.

    Parameters:
      since: The begin of the period, with a time zone.
    """
    period = {"since": since}
    now = connection.execute(text("SELECT now()")).scalar_one()
    statuses = [StatusCount(*row) for row in connection.execute(_STATUSES)]
    submitted = connection.execute(_SUBMITTED, period).scalar_one()
    completed, failed, violations, quantiles = connection.execute(_OUTCOMES, period).one()
    p50_s, p95_s = (None, None) if quantiles is None else map(float, quantiles)
    errors = [ErrorCount(*row) for row in connection.execute(_ERRORS, {"limit": NAMED_ERRORS})]
    decisions = [DecisionCount(*row) for row in connection.execute(_DECISIONS, period)]
    counts = PeriodCounts(submitted, completed, failed, violations, p50_s, p95_s)
    return Totals(now, statuses, counts, errors, decisions)
