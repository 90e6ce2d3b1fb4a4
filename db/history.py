"""The outcomes of a submission's earlier generations. A trigger records them, see migration V05."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection, func, select

from db.tables import submission_history


@dataclass(frozen=True, slots=True)
class PastOutcome:
    """The outcome of a generation of a submission that a later generation replaced.

    ``redriven_by`` and ``reason`` name the person and the reason of the redrive. Both are None where a dead
    letter was redriven without its submission: PostgreSQL then learns of the redrive only by the new verdict.
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


# The task id, and the columns of PastOutcome's fields in their order.
_READ = select(
    submission_history.c.task_id,
    *(submission_history.c[field.name] for field in fields(PastOutcome)),
).order_by(submission_history.c.task_id, submission_history.c.generation)


def read_history(connection: Connection, task_ids: Iterable[int]) -> dict[int, list[PastOutcome]]:
    """Return the past outcomes of submissions, oldest first, by task id, for those that have any."""
    history: dict[int, list[PastOutcome]] = {}
    for row in connection.execute(_READ.where(submission_history.c.task_id == func.any(list(task_ids)))):
        task_id, *fields = row
        history.setdefault(task_id, []).append(PastOutcome(*fields))
    return history
