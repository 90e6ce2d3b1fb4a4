"""Submissions: inserting them, writing their outcomes, reading them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal, TypeGuard, get_args

from sqlalchemy import Connection, func, select, text

from db.in_loop import LoopConnections, Statement
from db.locks import BRIEFLY
from db.outcome_notifications import CHANNEL, IDS_IN_A_PAYLOAD
from db.tables import moderation_results

#: PostgreSQL's ``bigint``: the range of every id.
MAX_ID = 9_223_372_036_854_775_807
#: PostgreSQL's ``integer``: the range of every other number.
MAX_INTEGER = 2_147_483_647
#: The longest stored error. The dead letter has the traceback.
MAX_ERROR_CHARACTERS = 2_000

Status = Literal["pending", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """A submission to insert, with the id of its message.

    Attributes:
      client_id, key_id: Of the request's key; None without one.
    """

    message_id: str
    item_id: int
    client_id: int | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """One row of ``moderation_results``.

    ``is_violation`` and ``probability`` are set exactly for completed submissions, ``error_message`` exactly
    for failed ones, and ``publish_after`` until Kafka is known to have the message. ``client_id`` is that of
    the client that handed it in; None for a request without a key.

    Each field but ``task_id`` is read from the column of the same name.
    """

    task_id: int
    item_id: int
    status: Status
    is_violation: bool | None
    probability: float | None
    error_message: str | None
    message_id: str
    generation: int
    created_at: datetime
    processed_at: datetime | None
    publish_after: datetime | None
    client_id: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a message: a verdict or an error (exactly one of the two).

    ``generation`` is the number of the message's redrives.
    """

    message_id: str
    generation: int
    item_id: int
    is_violation: bool | None = None
    probability: float | None = None
    error_message: str | None = None


_INSERT_PENDING = text(
    """
    INSERT INTO moderation_results (item_id, message_id, publish_after)
    SELECT new.item_id, new.message_id, now() + make_interval(secs => :lease_s)
    FROM unnest(CAST(:item_ids AS bigint[]), CAST(:message_ids AS text[]))
        WITH ORDINALITY AS new (item_id, message_id, position)
    JOIN items ON items.id = new.item_id
    ORDER BY new.position
    RETURNING id, message_id
    """
)

# With the clients of the submissions, and one row of the audit log for each key.
_INSERT_PENDING_OF_CLIENTS = text(
    """
    WITH new AS (
        SELECT * FROM unnest(
            CAST(:item_ids AS bigint[]), CAST(:message_ids AS text[]), CAST(:client_ids AS bigint[]),
            CAST(:key_ids AS text[])
        ) WITH ORDINALITY AS t (item_id, message_id, client_id, key_id, position)
    ), inserted AS (
        INSERT INTO moderation_results (item_id, message_id, client_id, publish_after)
        SELECT new.item_id, new.message_id, new.client_id, now() + make_interval(secs => :lease_s)
        FROM new JOIN items ON items.id = new.item_id
        ORDER BY new.position
        RETURNING id, message_id
    ), audited AS (
        INSERT INTO audit_log (action, key_id, client_id, task_ids)
        SELECT 'submit', key_id, client_id, array_agg(id)
        FROM inserted JOIN new USING (message_id) WHERE key_id IS NOT NULL GROUP BY key_id, client_id
    )
    SELECT id, message_id FROM inserted
    """
)

_INSERT_PENDING_IN_LOOP = Statement(_INSERT_PENDING)
_INSERT_PENDING_OF_CLIENTS_IN_LOOP = Statement(_INSERT_PENDING_OF_CLIENTS)

# The first writer of a generation wins, and a redrive's generation is newer. The upsert alone would suffice,
# but every attempt to insert uses up an id: therefore the UPDATE comes first. A row with an outcome no
# longer needs its message: therefore publish_after becomes NULL. NOTIFY reaches the waiting clients at
# COMMIT. All rows are locked in one order before the first is written: an UPDATE locks them in the order of
# its plan, and two batches with common messages would deadlock.
_WITH_WRITTEN = """
    WITH outcome AS (
        SELECT *, CASE WHEN error_message IS NULL THEN 'completed' ELSE 'failed' END AS status FROM unnest(
            CAST(:message_ids AS text[]), CAST(:generations AS integer[]), CAST(:item_ids AS bigint[]),
            CAST(:is_violations AS boolean[]), CAST(:probabilities AS double precision[]),
            CAST(:error_messages AS text[])
        ) AS t (message_id, generation, item_id, is_violation, probability, error_message)
    ), locked AS (
        SELECT row.id, outcome.*
        FROM outcome JOIN moderation_results AS row ON row.message_id = outcome.message_id
        WHERE {is_open}
        ORDER BY row.message_id
        FOR UPDATE OF row {skip_locked}
    ), updated AS (
        UPDATE moderation_results AS row
        SET generation = outcome.generation, status = outcome.status, is_violation = outcome.is_violation,
            probability = outcome.probability, error_message = outcome.error_message, processed_at = now(),
            publish_after = NULL
        FROM locked AS outcome
        WHERE row.id = outcome.id
        RETURNING row.message_id, row.id
    ), upserted AS (
        INSERT INTO moderation_results AS row (
            message_id, generation, item_id, status, is_violation, probability, error_message, processed_at,
            publish_after
        )
        SELECT message_id, generation, item_id, status, is_violation, probability, error_message, now(), NULL
        FROM outcome WHERE message_id NOT IN ({present})
        ORDER BY message_id
        ON CONFLICT (message_id) DO UPDATE
        SET generation = excluded.generation, status = excluded.status, is_violation = excluded.is_violation,
            probability = excluded.probability, error_message = excluded.error_message, processed_at = now(),
            publish_after = NULL
        WHERE row.generation = excluded.generation AND row.status = 'pending'
            OR row.generation < excluded.generation
        RETURNING row.message_id, row.id
    ), written AS (
        SELECT message_id, id, row_number() OVER () / {ids_in_a_payload} AS payload
        FROM (SELECT * FROM updated UNION ALL SELECT * FROM upserted) AS row
    ), told AS (
        SELECT pg_notify('{channel}', string_agg(CAST(id AS text), ',')) FROM written GROUP BY payload
    )
"""


def is_open(generation: str) -> str:
    """Return the condition that a ``row`` takes an outcome of this generation, an expression of SQL."""
    return f"""(row.generation = {generation} AND row.status = 'pending'
            OR row.generation < {generation})"""


_IS_OPEN = is_open("outcome.generation")
_PLACES = {"is_open": _IS_OPEN, "ids_in_a_payload": IDS_IN_A_PAYLOAD, "channel": CHANNEL}

#: The beginnings of statements that write outcomes. The first waits for locked rows, the second only for a
#: moment, and the third writes the rows that nobody has locked.
WITH_WRITTEN = _WITH_WRITTEN.format(skip_locked="", present="SELECT message_id FROM updated", **_PLACES)
WITH_BRIEFLY_WRITTEN = BRIEFLY + WITH_WRITTEN
WITH_UNLOCKED_WRITTEN = BRIEFLY + _WITH_WRITTEN.format(
    skip_locked="SKIP LOCKED",
    present="SELECT row.message_id FROM moderation_results AS row JOIN outcome USING (message_id)",
    **_PLACES,
)
#: The ends of these statements: the ids of the messages whose outcome was written; for the third, also those
#: whose row is locked.
SELECT_WRITTEN = "SELECT message_id FROM written CROSS JOIN (SELECT count(*) FROM told) AS told"
SELECT_UNLOCKED_WRITTEN = f"""
    SELECT message_id, true AS is_written FROM written CROSS JOIN (SELECT count(*) FROM told) AS told
    UNION ALL
    SELECT message_id, false FROM outcome JOIN moderation_results AS row USING (message_id)
    WHERE {_IS_OPEN} AND message_id NOT IN (SELECT message_id FROM locked)
"""
_WRITE_OUTCOMES = text(f"{WITH_WRITTEN} {SELECT_WRITTEN}")
_WRITE_OUTCOMES_BRIEFLY = text(f"{WITH_BRIEFLY_WRITTEN} {SELECT_WRITTEN}")

#: The columns of Submission's fields, in their order.
READ = select(
    moderation_results.c.id,
    *(moderation_results.c[field.name] for field in fields(Submission) if field.name != "task_id"),
)


def insert_pending(
    connection: Connection, submissions: Sequence[NewSubmission], *, lease_s: float
) -> dict[str, int]:
    """Insert a pending row for each submission whose ad exists; the audit log records those of a key.

    Parameters:
      lease_s: The time in which only the caller publishes the messages.

    Returns:
      The new rows' task ids by message id.
    """
    parameters = _pending(submissions, lease_s)
    statement = _INSERT_PENDING_OF_CLIENTS if "key_ids" in parameters else _INSERT_PENDING
    rows = connection.execute(statement, parameters)
    return {row.message_id: row.id for row in rows}


async def insert_pending_in_loop(
    connections: LoopConnections, submissions: Sequence[NewSubmission], *, lease_s: float
) -> dict[str, int]:
    """Do the work of :func:`insert_pending` from an event loop. The rows are committed when it returns."""
    parameters = _pending(submissions, lease_s)
    statement = _INSERT_PENDING_OF_CLIENTS_IN_LOOP if "key_ids" in parameters else _INSERT_PENDING_IN_LOOP
    rows = await connections.execute(statement, parameters)
    return {message_id: task_id for task_id, message_id in rows}


def _pending(submissions: Sequence[NewSubmission], lease_s: float) -> dict[str, object]:
    parameters: dict[str, object] = {
        "lease_s": lease_s,
        "item_ids": [submission.item_id for submission in submissions],
        "message_ids": [storable(submission.message_id) for submission in submissions],
    }
    if any(submission.key_id is not None for submission in submissions):
        parameters["client_ids"] = [submission.client_id for submission in submissions]
        parameters["key_ids"] = [submission.key_id for submission in submissions]
    return parameters


def write_outcomes(connection: Connection, outcomes: Sequence[Outcome], *, briefly: bool = False) -> set[str]:
    """Write the outcomes of messages. Each generation's first outcome is kept; later writes change nothing.

    An older generation changes nothing, either. A message without a row gets one. No message may occur twice.

    Parameters:
      briefly: Whether to wait for a locked row only for a moment.

    Returns:
      The ids of the messages whose outcome this call wrote.

    Raises:
      RowLocked: With ``briefly``: a row stayed locked. Nothing was written.
    """
    statement = _WRITE_OUTCOMES_BRIEFLY if briefly else _WRITE_OUTCOMES
    return set(connection.execute(statement, arrays_of(outcomes)).scalars())


def arrays_of(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Return the parameters of :data:`WITH_WRITTEN`."""
    return {
        "message_ids": [storable(outcome.message_id) for outcome in outcomes],
        "generations": [outcome.generation for outcome in outcomes],
        "item_ids": [outcome.item_id for outcome in outcomes],
        "is_violations": [outcome.is_violation for outcome in outcomes],
        "probabilities": [outcome.probability for outcome in outcomes],
        "error_messages": [_readable(outcome.error_message) for outcome in outcomes],
    }


def read_by_task_ids(connection: Connection, task_ids: Iterable[int]) -> dict[int, Submission]:
    """Return the submissions that exist, by task id."""
    rows = connection.execute(READ.where(moderation_results.c.id == func.any(list(task_ids))))
    return {row.id: Submission(*tuple(row)) for row in rows}


def read_by_message_id(connection: Connection, message_id: str) -> Submission | None:
    """Return the submission of a message; None while it has none."""
    row = connection.execute(
        READ.where(moderation_results.c.message_id == storable(message_id))
    ).one_or_none()
    return None if row is None else Submission(*tuple(row))


def storable(value: str) -> str:
    """Return the text with NUL and lone surrogates escaped, which PostgreSQL cannot store."""
    return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _readable(error_message: str | None) -> str | None:
    return None if error_message is None else storable(error_message)[:MAX_ERROR_CHARACTERS]


def is_id(value: object) -> TypeGuard[int]:
    """Return whether the value can be an id: an integer, no bool, from 1 to :data:`MAX_ID`."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ID
