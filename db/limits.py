"""The limits of a transaction, which are sent with it and end with it.

A setting of the session (``options`` of the connection, SET) does not survive a pooler: PgBouncer refuses
``options``, and in transaction mode the next transaction has another session, and another client this one.
Statements in one message are one transaction, so a ``SET LOCAL`` in front of a statement is in force for it,
and costs no round trip.
"""

from dataclasses import dataclass
from typing import Self

from sqlalchemy.engine import URL

# A connection whose process hangs must not hold its locks for ever.
_IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Limits:
    """SQL in front of a statement.

    Attributes:
      of_a_statement: For a statement that PostgreSQL commits by itself.
      of_a_transaction: For the first statement after BEGIN.
    """

    of_a_statement: str
    of_a_transaction: str

    @classmethod
    def of(cls, target: URL, statement_timeout_s: float, lock_timeout_s: float | None = None) -> Self:
        """Return the limits for connections to ``target``; a limit in its ``options`` wins.

        Parameters:
          lock_timeout_s: None for none but that of the statement.
        """
        given = str(target.query.get("options", ""))
        statement = _set_local("statement_timeout", int(statement_timeout_s * 1000), given)
        if lock_timeout_s is not None:
            statement += _set_local("lock_timeout", int(lock_timeout_s * 1000), given)
        idle = _set_local("idle_in_transaction_session_timeout", _IDLE_IN_TRANSACTION_TIMEOUT_MS, given)
        return cls(statement, statement + idle)


def _set_local(name: str, milliseconds: int, given: str) -> str:
    return "" if name in given else f"SET LOCAL {name} = {milliseconds}; "
