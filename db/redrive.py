"""Redriving failed submissions: back to pending, in the next generation, for the outbox to send."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, text

from db.submissions import storable
from db.tables import moderation_results


@dataclass(frozen=True, slots=True)
class Failed:
    """A submission that failed."""

    task_id: int
    message_id: str
    generation: int
    error_message: str
    processed_at: datetime


_FAILED = (
    select(
        moderation_results.c.id,
        moderation_results.c.message_id,
        moderation_results.c.generation,
        moderation_results.c.error_message,
        moderation_results.c.processed_at,
    )
    .where(moderation_results.c.status == "failed")
    .order_by(moderation_results.c.id)
)

_REDRIVE = text(
    """
    WITH chosen AS (
        SELECT id FROM moderation_results
        WHERE id = ANY (:task_ids) AND status = 'failed'
        ORDER BY message_id  -- as whoever writes outcomes locks them
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

_SAY_WHY = text(
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
) -> list[Failed]:
    """Return failed submissions in the order of their task ids.

    Parameters:
      task_ids: only of these; of all when None.
      since, until: that failed at or after, and before. Aware.
      after: only those with a higher task id: how the next page begins.
    """
    query = _FAILED.where(moderation_results.c.id > after).limit(limit)
    if task_ids is not None:
        query = query.where(moderation_results.c.id == func.any(list(task_ids)))
    if since is not None:
        query = query.where(moderation_results.c.processed_at >= since)
    if until is not None:
        query = query.where(moderation_results.c.processed_at < until)
    return [Failed(*row) for row in connection.execute(query)]


def redrive(connection: Connection, task_ids: Iterable[int], *, by: str, reason: str) -> list[int]:
    """Put failed submissions back to pending, each in its next generation and due to be sent.

    What is not failed (any more) is left as it is, so that a repetition does nothing. The failure stays
    readable: ``db.history``.

    Returns:
      The task ids of those that were put back.
    """
    redriven = sorted(connection.execute(_REDRIVE, {"task_ids": sorted(set(task_ids))}).scalars())
    if redriven:
        said = {"task_ids": redriven, "by": storable(by), "reason": storable(reason)}
        connection.execute(_SAY_WHY, said)
    return redriven


def read_generations(connection: Connection, message_ids: Iterable[str]) -> dict[str, int]:
    """Return the generations of the submissions that these messages have, by message id."""
    given = {storable(message_id): message_id for message_id in message_ids}
    rows = connection.execute(
        select(moderation_results.c.message_id, moderation_results.c.generation).where(
            moderation_results.c.message_id == func.any(list(given))
        )
    )
    return {given[row.message_id]: row.generation for row in rows}
