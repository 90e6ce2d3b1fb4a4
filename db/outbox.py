"""The outbox: which submissions' messages Kafka does not have yet, and who may send them now.

``publish_after`` says it all: NULL when Kafka has the message, else when the relay may send it. Whoever is
about to send moves that time into the future first (a lease), commits, and sends without a lock.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.submissions import storable


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A submission whose message is to be sent."""

    message_id: str
    generation: int
    item_id: int


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

# By generation, so that the late word of an earlier send does not hide a redrive that is still to be sent.
# Waits for nobody, so it is in no deadlock: whoever has locked a row writes its outcome, redrives it or sends
# it again, and after each of these there is nothing to note.
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

_PUBLISH_AGAIN = text(
    "UPDATE moderation_results SET publish_after = now() WHERE status = 'pending' AND publish_after IS NULL"
)


def claim_due(connection: Connection, *, limit: int, lease_s: float) -> list[Unpublished]:
    """Take up to ``limit`` submissions whose lease has run out, and lease them to the caller for ``lease_s``.

    Rows that another relay is taking at this moment are left to it.
    """
    rows = connection.execute(_CLAIM, {"limit": limit, "lease_s": lease_s})
    return [Unpublished(row.message_id, row.generation, row.item_id) for row in rows]


def mark_published(connection: Connection, sent: Iterable[Unpublished]) -> None:
    """Note that Kafka has these messages."""
    ordered = sorted(sent, key=lambda one: one.message_id)
    connection.execute(
        _MARK_PUBLISHED,
        {
            "message_ids": [storable(one.message_id) for one in ordered],
            "generations": [one.generation for one in ordered],
        },
    )


def publish_pending_again(connection: Connection) -> int:
    """Have every pending submission's message sent anew, for a Kafka that lost its log; return their number.

    Reads the whole table: meant for the embedded stack, whose Kafka forgets everything when it restarts.
    """
    return connection.execute(_PUBLISH_AGAIN).rowcount
