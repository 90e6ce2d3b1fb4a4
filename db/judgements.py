"""Judgements: the model, thresholds and decision of a verdict, and the shadow model's opinion."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from sqlalchemy import Connection, select, text

from db.locks import BRIEFLY
from db.outcome_notifications import CHANNEL
from db.submissions import (
    SELECT_UNLOCKED_WRITTEN,
    SELECT_WRITTEN,
    WITH_BRIEFLY_WRITTEN,
    WITH_UNLOCKED_WRITTEN,
    WITH_WRITTEN,
    Outcome,
    arrays_of,
    is_open,
    storable,
)
from db.tables import judgements, moderation_results

Decision = Literal["approve", "review", "reject"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One row of ``judgements``; the shadow model's fields are None without a shadow model.

    ``ad_hash`` is that of the scored ad, see :func:`db.items.ad_hash`; None for an old verdict.
    """

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
    ad_hash: str | None = None


_NAMES = tuple(field.name for field in fields(Judgement))
_KINDS = {
    "generation": "integer",
    "threshold": "double precision",
    "approve_below": "double precision",
    "reject_from": "double precision",
    "shadow_is_violation": "boolean",
    "shadow_probability": "double precision",
}
# The fields of the judgement alone; its outcome has the others.
_OWN = _NAMES[2:]
_OWN_ARRAYS = ", ".join(f"CAST(:{name}s AS {_KINDS.get(name, 'text')}[])" for name in _OWN)
_OWN_VALUES = ", ".join(f"CAST(:{name} AS {_KINDS.get(name, 'text')})" for name in _OWN)
_REPLACING_OLDER = f"""ON CONFLICT (message_id) DO UPDATE
        SET {", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "message_id")}
        WHERE judgements.generation < excluded.generation"""
# A judgement is written with its verdict, while the submission's row is locked.
_JUDGED = f""", judged AS (
        INSERT INTO judgements ({", ".join(_NAMES)})
        SELECT {", ".join(_NAMES)}
        FROM unnest(CAST(:message_ids AS text[]), CAST(:generations AS integer[]), {_OWN_ARRAYS})
            AS judgement ({", ".join(_NAMES)})
        WHERE message_id IN (SELECT message_id FROM written)
        {_REPLACING_OLDER}
    )
"""
_WRITE_VERDICTS = text(f"{WITH_WRITTEN} {_JUDGED} {SELECT_WRITTEN}")
_WRITE_VERDICTS_BRIEFLY = text(f"{WITH_BRIEFLY_WRITTEN} {_JUDGED} {SELECT_WRITTEN}")
_WRITE_UNLOCKED_VERDICTS = text(f"{WITH_UNLOCKED_WRITTEN} {_JUDGED} {SELECT_UNLOCKED_WRITTEN}")
# One verdict whose row is there, open and not locked, as an idle worker writes it. PostgreSQL needs half the
# time of the statement for many, most of which is planning.
_WRITE_OPEN_VERDICT = text(
    f"""{BRIEFLY}
    WITH locked AS (
        SELECT row.id FROM moderation_results AS row
        WHERE row.message_id = :message_id AND {is_open(":generation")}
        FOR UPDATE SKIP LOCKED
    ), updated AS (
        UPDATE moderation_results AS row
        SET generation = :generation, status = 'completed', is_violation = :is_violation,
            probability = :probability, error_message = NULL, processed_at = now(), publish_after = NULL
        FROM locked WHERE row.id = locked.id
        RETURNING row.message_id, row.id
    ), judged AS (
        INSERT INTO judgements ({", ".join(_NAMES)})
        SELECT message_id, :generation, {_OWN_VALUES}
        FROM updated
        {_REPLACING_OLDER}
    )
    SELECT pg_notify('{CHANNEL}', CAST(id AS text)) FROM updated
    """
)
_READ = (
    select(*(judgements.c[name] for name in _NAMES))
    .join(moderation_results, moderation_results.c.message_id == judgements.c.message_id)
    .where(moderation_results.c.generation == judgements.c.generation)
)


def write_verdicts(
    connection: Connection,
    outcomes: Sequence[Outcome],
    judged: Sequence[Judgement],
    *,
    briefly: bool = False,
) -> set[str]:
    """Write verdicts as :func:`db.submissions.write_outcomes` does, and the judgements of the written ones.

    Both are one statement.

    Parameters:
      judged: The judgement of each outcome, in their order.
      briefly: Whether to wait for a locked row only for a moment.

    Raises:
      RowLocked: With ``briefly``: a row stayed locked. Nothing was written.
    """
    statement = _WRITE_VERDICTS_BRIEFLY if briefly else _WRITE_VERDICTS
    return set(connection.execute(statement, _parameters(outcomes, judged)).scalars())


def write_unlocked_verdicts(
    connection: Connection, outcomes: Sequence[Outcome], judged: Sequence[Judgement]
) -> tuple[set[str], set[str]]:
    """Write verdicts as :func:`write_verdicts` does, without waiting for rows that somebody has locked.

    Returns:
      The ids of the messages whose outcome this call wrote, and of those whose row is locked.

    Raises:
      RowLocked: Something else than a submission's row stayed locked. Nothing was written.
    """
    if len(outcomes) == 1 and _write_open_verdict(connection, outcomes[0], judged[0]):
        return {storable(outcomes[0].message_id)}, set()
    written: set[str] = set()
    locked: set[str] = set()
    for row in connection.execute(_WRITE_UNLOCKED_VERDICTS, _parameters(outcomes, judged)):
        (written if row.is_written else locked).add(row.message_id)
    return written, locked


def _write_open_verdict(connection: Connection, outcome: Outcome, judged: Judgement) -> bool:
    """Write a verdict; return False, with no effect, if its row is missing, locked, or has an outcome."""
    parameters = {
        "message_id": storable(outcome.message_id),
        "generation": outcome.generation,
        "is_violation": outcome.is_violation,
        "probability": outcome.probability,
        **{name: getattr(judged, name) for name in _OWN},
    }
    return bool(connection.execute(_WRITE_OPEN_VERDICT, parameters).all())


def _parameters(outcomes: Sequence[Outcome], judged: Sequence[Judgement]) -> dict[str, object]:
    parameters = arrays_of(outcomes)
    for name in _OWN:
        parameters[f"{name}s"] = [getattr(one, name) for one in judged]
    return parameters


def read_judgement(connection: Connection, task_id: int) -> Judgement | None:
    """Return the judgement of a submission's verdict; None without one."""
    row = connection.execute(_READ.where(moderation_results.c.id == task_id)).one_or_none()
    return None if row is None else Judgement(*tuple(row))
