"""Cancelling a submission."""

from sqlalchemy import Connection, text

from db.locks import BRIEFLY
from db.outcome_notifications import CHANNEL

# The message may still run: its outcome meets a row that is not pending, and changes nothing.
_CANCEL = text(
    f"""{BRIEFLY}
    WITH cancelled AS (
        UPDATE moderation_results SET status = 'cancelled', processed_at = now(), publish_after = NULL
        WHERE id = :task_id AND status = 'pending'
            AND (CAST(:client_id AS bigint) IS NULL OR client_id = :client_id)
        RETURNING id
    )
    SELECT pg_notify('{CHANNEL}', CAST(id AS text)) FROM cancelled
    """
)


def cancel(connection: Connection, task_id: int, *, client_id: int | None = None) -> bool:
    """Cancel the submission if it is pending; return whether it was.

    Parameters:
      client_id: Only a submission of this client; any one when None.

    Raises:
      RowLocked: Another transaction keeps its row locked.
    """
    return connection.execute(_CANCEL, {"task_id": task_id, "client_id": client_id}).one_or_none() is not None
