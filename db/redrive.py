"""Redriving failed submissions: back to pending, in the next generation, due to be published."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection, func, select, text

from db.submissions import storable
from db.tables import moderation_results


@dataclass(frozen=True, slots=True)
class FailedSubmission:
    """A submission that failed."""

    task_id: int
    message_id: str
    generation: int
    error_message: str
    processed_at: datetime


_FAILED = (
    select(
        moderation_results.c.id,
        *(moderation_results.c[field.name] for field in fields(FailedSubmission) if field.name != "task_id"),
    )
    .where(moderation_results.c.status == "failed")
    .order_by(moderation_results.c.id)
)

_REDRIVE = text(
    """
    WITH chosen AS (
        SELECT id FROM moderation_results
        WHERE id = ANY (:task_ids) AND status = 'failed'
        ORDER BY message_id  -- the order in which writers of outcomes lock them
        FOR UPDATE
    )
    UPDATE moderation_results AS row
    SET status = 'pending', generation = row.generation + 1, is_violation = NULL, probability = NULL,
        error_message = NULL, processed_at = NULL, publish_after = now()
    FROM chosen
    WHERE row.id = chosen.id
    RETURNING row.id
    """
)

_RECORD_REASON = text(
    """
    UPDATE submission_history AS past
    SET redriven_by = :by, reason = :reason
    FROM moderation_results AS row
    WHERE row.id = ANY (:task_ids) AND past.task_id = row.id AND past.generation = row.generation - 1
    """
)


def read_failed(
    connection: Connection,
    *,
    task_ids: Iterable[int] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: int = 0,
    limit: int,
) -> list[FailedSubmission]:
    """Return failed submissions in the order of their task ids.

    Parameters:
      task_ids: Only these; all when None.
      since, until: Only submissions that failed at or after ``since`` and before ``until``. Aware.
      after: Only higher task ids: the last one of the previous page.
      limit: Submissions at most.
    """
    query = _FAILED.where(moderation_results.c.id > after).limit(limit)
    if task_ids is not None:
        query = query.where(moderation_results.c.id == func.any(list(task_ids)))
    if since is not None:
        query = query.where(moderation_results.c.processed_at >= since)
    if until is not None:
        query = query.where(moderation_results.c.processed_at < until)
    return [FailedSubmission(*row) for row in connection.execute(query)]


def redrive(connection: Connection, task_ids: Iterable[int], *, by: str, reason: str) -> list[int]:
    """Put failed submissions back to pending, each in its next generation and due to be published.

    Other submissions stay as they are, so a repetition does nothing. ``db.history`` keeps the failure.

    Returns:
      The task ids of the redriven submissions.
    """
    redriven = sorted(connection.execute(_REDRIVE, {"task_ids": sorted(set(task_ids))}).scalars())
    if redriven:
        parameters = {"task_ids": redriven, "by": storable(by), "reason": storable(reason)}
        connection.execute(_RECORD_REASON, parameters)
    return redriven


def read_generations(connection: Connection, message_ids: Iterable[str]) -> dict[str, int]:
    """Return the present generations of these messages' submissions, by message id."""
    given = {storable(message_id): message_id for message_id in message_ids}
    rows = connection.execute(
        select(moderation_results.c.message_id, moderation_results.c.generation).where(
            moderation_results.c.message_id == func.any(list(given))
        )
    )
    return {given[row.message_id]: row.generation for row in rows}
