"""What a submission's earlier generations came to. PostgreSQL writes it down itself, see migration V05."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from db.tables import submission_history


@dataclass(frozen=True, slots=True)
class PastOutcome:
    """The outcome of one generation of a submission that a later generation took the place of.

    ``redriven_by`` and ``reason`` say who redrove it and why; both are None where a dead letter was put back
    on its queue, of which PostgreSQL learns only by the new verdict.
    """

    generation: int
    status: str
    is_violation: bool | None
    probability: float | None
    error_message: str | None
    processed_at: datetime | None
    replaced_at: datetime
    redriven_by: str | None
    reason: str | None


# In the order of PastOutcome's fields.
_READ = select(
    submission_history.c.task_id,
    submission_history.c.generation,
    submission_history.c.status,
    submission_history.c.is_violation,
    submission_history.c.probability,
    submission_history.c.error_message,
    submission_history.c.processed_at,
    submission_history.c.replaced_at,
    submission_history.c.redriven_by,
    submission_history.c.reason,
).order_by(submission_history.c.task_id, submission_history.c.generation)


def read_history(connection: Connection, task_ids: Iterable[int]) -> dict[int, list[PastOutcome]]:
    """Return the past outcomes of submissions, oldest first, by task id; only of those that have any."""
    history: dict[int, list[PastOutcome]] = {}
    for row in connection.execute(_READ.where(submission_history.c.task_id == func.any(list(task_ids)))):
        task_id, *fields = row
        history.setdefault(task_id, []).append(PastOutcome(*fields))
    return history
