"""How verdicts were reached: the model, its thresholds, the decision, and what a shadow model says."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from sqlalchemy import Connection, select, text

from db.submissions import storable
from db.tables import judgements, moderation_results

Decision = Literal["approve", "review", "reject"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One row of ``judgements``; what the shadow model said is None where there was none."""

    message_id: str
    generation: int
    model_version: str
    threshold: float
    approve_below: float
    reject_from: float
    decision: Decision
    shadow_version: str | None = None
    shadow_is_violation: bool | None = None
    shadow_probability: float | None = None
    shadow_decision: Decision | None = None


_NAMES = tuple(field.name for field in fields(Judgement))
_KINDS = {
    "generation": "integer",
    "threshold": "double precision",
    "approve_below": "double precision",
    "reject_from": "double precision",
    "shadow_is_violation": "boolean",
    "shadow_probability": "double precision",
}
_WRITE = text(
    f"""
    INSERT INTO judgements ({", ".join(_NAMES)})
    SELECT * FROM unnest({", ".join(f"CAST(:{name} AS {_KINDS.get(name, 'text')}[])" for name in _NAMES)})
    ON CONFLICT (message_id) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "message_id")}
    WHERE judgements.generation < excluded.generation
    """
)
_READ = (
    select(*(judgements.c[name] for name in _NAMES))
    .join(moderation_results, moderation_results.c.message_id == judgements.c.message_id)
    .where(moderation_results.c.generation == judgements.c.generation)
)


def write_judgements(connection: Connection, rows: Sequence[Judgement]) -> None:
    """Write how the verdicts of messages were reached, each message named once, in the transaction that wrote
    the verdicts. An older generation's changes nothing."""
    ordered = sorted(rows, key=lambda row: row.message_id)
    values: dict[str, list[object]] = {name: [getattr(row, name) for row in ordered] for name in _NAMES}
    values["message_id"] = [storable(row.message_id) for row in ordered]
    connection.execute(_WRITE, values)


def read_judgement(connection: Connection, task_id: int) -> Judgement | None:
    """Return how a submission's verdict was reached; None where no judgement of it was kept."""
    row = connection.execute(_READ.where(moderation_results.c.id == task_id)).one_or_none()
    return None if row is None else Judgement(*tuple(row))
