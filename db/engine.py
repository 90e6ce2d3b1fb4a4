"""The engine and its transactions."""

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import STATUS_READY
from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.engine import URL

from db.errors import from_driver, from_sqlalchemy
from db.limits import Limits
from db.timing import time_statements
from db.waiting import ANSWER_RESERVE_S, connections_with_deadline, is_readable

# The limit, about 15 s, within which a silent server (pulled cable, paused machine) is noticed.
_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3}
_TCP_USER_TIMEOUT_MS = 15_000
# A connection that was idle for longer is pinged: a firewall may have dropped it.
_TRUSTED_IDLE_S = 10.0
# An execution option: statements get their limits although each is committed by itself.
_LIMITED = "moderation_limited"


def make_engine(
    url: str,
    *,
    pool_size: int = 10,
    connect_timeout_s: int = 3,
    statement_timeout_s: float = 10.0,
    application_name: str = "moderation",
    lock_timeout_s: float | None = None,
) -> Engine:
    """Make an engine for psycopg2. It connects when it is first used, also after a fork.

    Parameters:
      url: ``postgresql://...`` of PostgreSQL or of a pooler in session or transaction mode; a parameter of
        its query (``?connect_timeout=9``) wins over the arguments.
      pool_size: The largest number of connections; a thread waits ``statement_timeout_s`` for a free one.
      statement_timeout_s: PostgreSQL cancels a statement after this time. A frozen server cannot: its
        connection is closed a little later.
      lock_timeout_s: A statement waits for a lock no longer; None for as long as for anything else.

    Raises:
      ValueError: The URL is not one of PostgreSQL.
    """
    target = psycopg2_url(url)
    engine = create_engine(
        target,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=statement_timeout_s,
        connect_args=driver_arguments(target, connect_timeout_s, statement_timeout_s, application_name),
    )
    _switch_autocommit_without_asking(engine)
    _limit_transactions(engine, Limits.of(target, statement_timeout_s, lock_timeout_s))
    _replace_broken_connections(engine)
    _forget_connections_in_children(engine)
    time_statements(engine)
    return engine


def driver_arguments(
    target: URL, connect_timeout_s: int, statement_timeout_s: float, application_name: str
) -> dict[str, object]:
    """Return psycopg2's arguments besides the URL, whose parameters win.

    PostgreSQL gets none of them but the name: poolers refuse ``options``.
    """
    wanted: dict[str, object] = {
        "connect_timeout": connect_timeout_s,
        "application_name": application_name,
        "tcp_user_timeout": _TCP_USER_TIMEOUT_MS,
        "connection_factory": connections_with_deadline(statement_timeout_s + ANSWER_RESERVE_S),
        **_KEEPALIVES,
    }
    return {key: value for key, value in wanted.items() if key not in target.query}


def psycopg2_url(url: str) -> URL:
    """Return the URL with psycopg2 as its driver: SQLAlchemy 2.1 takes ``postgresql://`` for psycopg 3.

    Raises:
      ValueError: It is not a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise ValueError("is no URL; one looks like postgresql://user@host:5432/database") from error
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg2"):
        raise ValueError(f"is a URL of {parsed.drivername!r}; only postgresql:// through psycopg2 is known")
    return parsed.set(drivername="postgresql+psycopg2")


def autocommitting(engine: Engine) -> Engine:
    """Return the engine, with its pool, on which PostgreSQL commits each statement by itself.

    Statements that PostgreSQL refuses in a transaction (VACUUM) need SQLAlchemy's AUTOCOMMIT, which has no
    limits, instead.
    """
    return engine.execution_options(isolation_level="AUTOCOMMIT", **{_LIMITED: True})


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Open one transaction: committed at the end of the block, rolled back when the block raises.

    Raises:
      DatabaseError: One of ``db.errors``, for every error of SQLAlchemy and PostgreSQL.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except exc.SQLAlchemyError as error:
        raise from_sqlalchemy(error) from error
    except psycopg2.Error as error:  # of the pool, which does not translate it
        raise from_driver(error) from error


def _switch_autocommit_without_asking(engine: Engine) -> None:
    """Switch a connection between AUTOCOMMIT and transactions without a round trip.

    SQLAlchemy switches back at each check-in, with psycopg2's ``set_isolation_level``, which sends a SET. A
    server that did not answer it failed a block whose statements were committed, and the pool lost its
    connection for good, as an error leaves
    ``_ConnectionRecord.checkin`` of SQLAlchemy 2.1.9 (lib/sqlalchemy/pool/base.py).
    """

    def switch(connection: Any, level: str) -> None:
        if not connection.closed:
            connection.autocommit = level == "AUTOCOMMIT"

    engine.dialect.set_isolation_level = switch  # type: ignore[method-assign,assignment]


def _limit_transactions(engine: Engine, limits: Limits) -> None:
    """Send the limits with the first statement of each transaction: that costs no round trip."""

    def needed(cursor: Any, context: Any) -> str:
        if cursor.connection.autocommit:
            return limits.of_a_statement if context.execution_options.get(_LIMITED) else ""
        # When it is ready, psycopg2 sends BEGIN with this statement.
        return limits.of_a_transaction if cursor.connection.status == STATUS_READY else ""

    @event.listens_for(engine, "do_execute")
    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        cursor.execute(needed(cursor, context) + statement, parameters)
        return True  # SQLAlchemy need not execute it

    @event.listens_for(engine, "do_execute_no_params")
    def execute_without_parameters(cursor: Any, statement: str, context: Any) -> bool:
        cursor.execute(needed(cursor, context) + statement)
        return True

    @event.listens_for(engine, "do_executemany")
    def prepare(cursor: Any, _: str, __: Any, context: Any) -> None:
        if before := needed(cursor, context):
            cursor.execute(before)


def _replace_broken_connections(engine: Engine) -> None:
    """Replace a connection that broke in the pool at its checkout.

    Otherwise the first statements after a restart of PostgreSQL would fail. ``pool_pre_ping`` needs a round
    trip for each checkout. A check of the socket is cheaper: a server that ends closes its sockets, and an
    idle connection whose socket has nothing to read still works.
    """

    @event.listens_for(engine, "checkin")
    def note(_: Any, record: Any) -> None:
        record.info["idle_since_s"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def look(connection: Any, record: Any, _: Any) -> None:
        idle_since_s = record.info.pop("idle_since_s", None)
        if idle_since_s is None:  # a new connection
            return
        if time.monotonic() - idle_since_s < _TRUSTED_IDLE_S and not is_readable(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise exc.InvalidatePoolError from error


def _forget_connections_in_children(engine: Engine) -> None:
    """Drop the connections in a forked child: using or closing them would break the parent's sessions."""
    reference = weakref.ref(engine)

    def forget() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
