"""The outbox: the submissions whose messages Kafka does not have yet, and their leases.

``publish_after`` is NULL when Kafka has the message; otherwise it is the time from which a relay may send
it. A sender first moves that time into the future (a lease), commits, and then sends without a lock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from db.submissions import storable


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A submission whose message must be sent.

    ``traceparent`` is the trace of its request. The row has none, so a relay begins another.
    """

    message_id: str
    generation: int
    item_id: int
    traceparent: str = ""


_CLAIM = text(
    """
    WITH due AS (
        SELECT id FROM moderation_results
        WHERE publish_after <= now()
        ORDER BY publish_after
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE moderation_results AS row
        SET publish_after = CASE WHEN row.status = 'pending' THEN now() + make_interval(secs => :lease_s) END
        FROM due
        WHERE row.id = due.id
        RETURNING row.message_id, row.generation, row.item_id, row.status
    )
    SELECT message_id, generation, item_id FROM claimed WHERE status = 'pending'
    """
)

# The generation matters: the late mark of an earlier send must not hide an unpublished redrive.
# The statement waits for no lock, so it takes part in no deadlock. A transaction that holds the lock of a
# row writes its outcome, redrives it or sends it again, and each of these makes the mark needless.
_MARK_PUBLISHED = text(
    """
    WITH noted AS (
        SELECT row.id
        FROM unnest(CAST(:message_ids AS text[]), CAST(:generations AS integer[])) AS sent (id, generation)
        JOIN moderation_results AS row ON row.message_id = sent.id AND row.generation = sent.generation
        WHERE row.publish_after IS NOT NULL
        FOR UPDATE OF row SKIP LOCKED
    )
    UPDATE moderation_results AS row SET publish_after = NULL FROM noted WHERE row.id = noted.id
    """
)

# As a mark does, this waits for no lock: whoever holds it makes the release needless.
_RELEASE = text(
    """
    WITH unsent AS (
        SELECT row.id
        FROM unnest(CAST(:message_ids AS text[]), CAST(:generations AS integer[])) AS unsent (id, generation)
        JOIN moderation_results AS row ON row.message_id = unsent.id AND row.generation = unsent.generation
        WHERE row.publish_after > now() AND row.status = 'pending'
        FOR UPDATE OF row SKIP LOCKED
    )
    UPDATE moderation_results AS row SET publish_after = now() FROM unsent WHERE row.id = unsent.id
    """
)

_PUBLISH_AGAIN = text(
    "UPDATE moderation_results SET publish_after = now() WHERE status = 'pending' AND publish_after IS NULL"
)


_READ_PUBLISHED = text(
    """
    SELECT id, message_id, generation, item_id, created_at FROM moderation_results
    WHERE status = 'pending' AND publish_after IS NULL AND id > :after
        AND (CAST(:task_ids AS bigint[]) IS NULL OR id = ANY (:task_ids))
        AND created_at < now() - make_interval(secs => :older_than_s)
    ORDER BY id LIMIT :limit
    """
)

_COUNT_YOUNGER = text(
    """
    SELECT count(*) FROM moderation_results
    WHERE status = 'pending' AND publish_after IS NULL
        AND (CAST(:task_ids AS bigint[]) IS NULL OR id = ANY (:task_ids))
        AND created_at >= now() - make_interval(secs => :than_s)
    """
)

_PUBLISH_THESE_AGAIN = text(
    """
    WITH chosen AS (
        SELECT id FROM moderation_results
        WHERE id = ANY (:task_ids) AND status = 'pending' AND publish_after IS NULL
        ORDER BY message_id  -- the order in which writers of outcomes lock them
        FOR UPDATE
    )
    UPDATE moderation_results AS row SET publish_after = now()
    FROM chosen WHERE row.id = chosen.id
    RETURNING row.id
    """
)


@dataclass(frozen=True, slots=True)
class Published:
    """A pending submission whose message Kafka has had."""

    task_id: int
    message_id: str
    generation: int
    item_id: int
    created_at: datetime


def read_published(
    connection: Connection,
    *,
    task_ids: Iterable[int] | None = None,
    older_than_s: float,
    after: int = 0,
    limit: int,
) -> list[Published]:
    """Return pending submissions that are marked as published, in the order of their task ids.

    Parameters:
      task_ids: Only these; all when None.
      older_than_s: Only submissions of that age.
      after: Only higher task ids: the last one of the previous page.
      limit: Submissions at most.
    """
    parameters = {
        "task_ids": None if task_ids is None else list(task_ids),
        "older_than_s": older_than_s,
        "after": after,
        "limit": limit,
    }
    return [Published(*row) for row in connection.execute(_READ_PUBLISHED, parameters)]


def count_younger(connection: Connection, *, task_ids: Iterable[int] | None = None, than_s: float) -> int:
    """The number of submissions that :func:`read_published` leaves out for their age."""
    parameters = {"task_ids": None if task_ids is None else list(task_ids), "than_s": than_s}
    return int(connection.execute(_COUNT_YOUNGER, parameters).scalar_one())


def publish_again(connection: Connection, task_ids: Iterable[int]) -> list[int]:
    """Make pending submissions that are marked as published due again; return their task ids."""
    found = connection.execute(_PUBLISH_THESE_AGAIN, {"task_ids": sorted(set(task_ids))})
    return sorted(found.scalars())


def claim_due(connection: Connection, *, limit: int, lease_s: float) -> list[Unpublished]:
    """Take up to ``limit`` submissions with an expired lease, and lease them to the caller for ``lease_s``.

    Rows that another relay takes at the same time are skipped.
    """
    rows = connection.execute(_CLAIM, {"limit": limit, "lease_s": lease_s})
    return [Unpublished(row.message_id, row.generation, row.item_id) for row in rows]


def mark_published(connection: Connection, sent: Iterable[Unpublished]) -> None:
    """Mark the rows of these messages as published."""
    connection.execute(_MARK_PUBLISHED, _keys(sent))


def release(connection: Connection, unsent: Iterable[Unpublished]) -> None:
    """End the leases of these submissions: any relay may send them at once."""
    connection.execute(_RELEASE, _keys(unsent))


def publish_pending_again(connection: Connection) -> int:
    """Make every pending submission due again, for a Kafka that lost its log; return their number.

    It reads the whole table. The embedded stack needs it: its Kafka is empty after a restart.
    """
    return connection.execute(_PUBLISH_AGAIN).rowcount


def _keys(submissions: Iterable[Unpublished]) -> dict[str, object]:
    ordered = sorted(submissions, key=lambda one: one.message_id)
    return {
        "message_ids": [storable(one.message_id) for one in ordered],
        "generations": [one.generation for one in ordered],
    }
