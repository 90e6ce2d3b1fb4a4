"""Whether a connection has a session of PostgreSQL of its own: LISTEN, SET and ``pg_temp`` need one.

``python -m db.sessions URL`` ends with 1 and an explanation where it has none, as behind a pooler in
transaction mode.
"""

import sys

from sqlalchemy import Connection, Engine, text

from db.engine import autocommitting, make_engine, transaction
from db.errors import DatabaseError

#: Other clients can hide from a round that sessions are shared. A fifth of the rounds missed it at most, with
#: up to 80 clients on PgBouncer.
_ROUNDS = 16

_SESSION = text("SELECT pg_backend_pid()")


class SessionsAreShared(Exception):
    """A pooler gives each transaction another session of PostgreSQL."""


def require_own_session(connection: Connection, others: Engine) -> None:
    """Raise unless the connection has a session of PostgreSQL of its own.

    A connection that is open keeps its session, and no other one has it, unless a pooler shares sessions.

    Parameters:
      connection: It commits each statement by itself.
      others: An engine that does so, with the same URL.

    Raises:
      SessionsAreShared: It has none.
    """
    own = connection.scalar(_SESSION)
    for _ in range(_ROUNDS):
        # A pooler gives the session that was used last, or the one that was not used for the longest time.
        with others.connect() as other:
            its = other.scalar(_SESSION)
        if its == own or connection.scalar(_SESSION) != own:
            raise SessionsAreShared


def main(url: str) -> str | None:
    """Return the reason for which migrations cannot be applied through the URL; None when they can."""
    try:
        engine = autocommitting(make_engine(url))
        with transaction(engine) as connection:
            require_own_session(connection, engine)
    except SessionsAreShared:
        return (
            "Migrations need a session of PostgreSQL, and DATABASE_URL names a pooler in transaction mode: "
            "name PostgreSQL itself, or a pooler in session mode"
        )
    except (DatabaseError, ValueError) as error:
        return f"DATABASE_URL: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
