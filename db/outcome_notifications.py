"""Notifications of outcomes, through PostgreSQL's LISTEN and NOTIFY.

The statements that write an outcome notify, so a notification is sent with their COMMIT and never before the
row is visible. A notification is a hint: one that is lost with its connection is still in the rows.

LISTEN belongs to a session. A pooler in transaction mode gives each transaction any session: notifications
would reach nobody, and LISTEN would stay in a session of others. There, :func:`with_outcome` asks the rows.
"""

import re
from collections.abc import Sequence
from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, exc, text

from db.engine import autocommitting
from db.errors import DatabaseAway, from_sqlalchemy
from db.sessions import require_own_session

#: Payloads are task ids, separated by commas.
CHANNEL = "moderation_outcomes"
#: A payload holds 8,000 bytes at most, and an id with its comma takes up to twenty.
IDS_IN_A_PAYLOAD = 390
#: Anyone can NOTIFY any text, also more digits than int() accepts.
_TASK_ID = re.compile(r"[0-9]{1,19}", re.ASCII)


_WITH_OUTCOME = text(
    "SELECT id FROM moderation_results WHERE id = ANY (CAST(:task_ids AS bigint[])) AND status <> 'pending'"
)


class OutcomeListener:
    """A listening connection outside the pool. For one thread or event loop.

    Raises:
      DatabaseError: It cannot connect.
      SessionsAreShared: The connection has no session of its own. It has not executed LISTEN then.
    """

    def __init__(self, engine: Engine) -> None:
        try:
            # Without limits before it, LISTEN is the query by which pg_stat_activity names the connection.
            connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                # SQLAlchemy neither closes nor counts a detached connection.
                connection.detach()
                require_own_session(connection, autocommitting(engine))
                connection.execute(text(f"LISTEN {CHANNEL}"))
                connection.commit()
            except BaseException:
                connection.close()
                raise
            self._driver: Any = connection.connection.dbapi_connection
        except exc.SQLAlchemyError as error:
            raise from_sqlalchemy(error) from error

    def fileno(self) -> int:
        """Return the socket. It is readable when there are notifications or the connection broke."""
        number: int = self._driver.fileno()
        return number

    def read(self) -> list[int]:
        """Return the task ids with an outcome since the last call, without waiting.

        Raises:
          DatabaseAway: The connection broke.
        """
        try:
            self._driver.poll()
        except psycopg2.Error as error:
            raise DatabaseAway(str(error).strip() or "the connection broke") from error
        payloads = ",".join(notification.payload for notification in self._driver.notifies)
        self._driver.notifies.clear()
        return [int(task_id) for task_id in payloads.split(",") if _TASK_ID.fullmatch(task_id)]

    def close(self) -> None:
        self._driver.close()


def with_outcome(connection: Connection, task_ids: Sequence[int]) -> list[int]:
    """Return those of the submissions that are not pending."""
    return list(connection.scalars(_WITH_OUTCOME, {"task_ids": list(task_ids)}))
