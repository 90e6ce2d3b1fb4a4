"""The engine and its transactions."""

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.engine import URL

from db.errors import from_sqlalchemy
from db.waiting import ANSWER_RESERVE_S, connections_that_wait, is_readable

# A server that vanishes without a word (pulled cable, paused machine) is noticed within about 15 s.
_KEEPALIVES = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3}
_TCP_USER_TIMEOUT_MS = 15_000
# A connection that holds locks while its process hangs must not hold them for good.
_IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000
# A connection that was idle for longer is asked for a sign of life: a firewall may have forgotten it.
_TRUSTED_IDLE_S = 10.0


def make_engine(
    url: str,
    *,
    pool_size: int = 10,
    connect_timeout_s: int = 3,
    statement_timeout_s: float = 10.0,
    application_name: str = "moderation",
) -> Engine:
    """Make an engine for psycopg2. Connects to nothing until it is used, also after a fork.

    Parameters:
      url: ``postgresql://...``; a parameter that its query names (``?connect_timeout=9``) wins over ours.
      pool_size: connections at most; a thread that finds none free waits ``statement_timeout_s``.
      statement_timeout_s: after which PostgreSQL cancels a statement. One that does not even do that, because
        it is frozen, loses the connection a little later.

    Raises:
      ValueError: when the URL is not one of PostgreSQL.
    """
    target = psycopg2_url(url)
    engine = create_engine(
        target,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=statement_timeout_s,
        connect_args=driver_arguments(target, connect_timeout_s, statement_timeout_s, application_name),
    )
    _look_at_connections(engine)
    _forget_connections_in_children(engine)
    return engine


def driver_arguments(
    target: URL, connect_timeout_s: int, statement_timeout_s: float, application_name: str
) -> dict[str, object]:
    """What psycopg2 is told besides the URL, which wins where it names the same."""
    options = (
        f"-c statement_timeout={int(statement_timeout_s * 1000)}"
        f" -c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_TIMEOUT_MS}"
    )
    wanted: dict[str, object] = {
        "connect_timeout": connect_timeout_s,
        "application_name": application_name,
        "options": options,
        "tcp_user_timeout": _TCP_USER_TIMEOUT_MS,
        "connection_factory": connections_that_wait(statement_timeout_s + ANSWER_RESERVE_S),
        **_KEEPALIVES,
    }
    return {key: value for key, value in wanted.items() if key not in target.query}


def psycopg2_url(url: str) -> URL:
    """Return the URL with psycopg2 as its driver: SQLAlchemy 2.1 takes ``postgresql://`` for psycopg 3.

    Raises:
      ValueError: when it is not a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise ValueError("is no URL; one looks like postgresql://user@host:5432/database") from error
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg2"):
        raise ValueError(f"is a URL of {parsed.drivername!r}; only postgresql:// through psycopg2 is known")
    return parsed.set(drivername="postgresql+psycopg2")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed at the end of the block, rolled back when it raises.

    Raises:
      DatabaseError: one of ``db.errors``, for whatever SQLAlchemy or PostgreSQL has to say.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except exc.SQLAlchemyError as error:
        raise from_sqlalchemy(error) from error


def _look_at_connections(engine: Engine) -> None:
    """Have a connection that broke in the pool replaced when it is taken out, for else the first statements
    after PostgreSQL's restart would fail.

    ``pool_pre_ping`` does so with a round trip for each. But a server that ends closes its sockets, and the
    socket of an idle connection that has nothing to read is as good as it was: it costs a look at the socket.
    """

    @event.listens_for(engine, "checkin")
    def note(_: Any, record: Any) -> None:
        record.info["idle_since_s"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def look(connection: Any, record: Any, _: Any) -> None:
        idle_since_s = record.info.pop("idle_since_s", None)
        if idle_since_s is None:  # just made
            return
        if time.monotonic() - idle_since_s < _TRUSTED_IDLE_S and not is_readable(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise exc.InvalidatePoolError from error


def _forget_connections_in_children(engine: Engine) -> None:
    """A forked child that used, or even closed, its parent's sockets would break its sessions."""
    reference = weakref.ref(engine)

    def forget() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
