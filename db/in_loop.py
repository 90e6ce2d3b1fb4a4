"""Statements from an event loop, without a thread.

A thread that talks to PostgreSQL needs Python's lock for every step, and a busy event loop lends it out late:
it takes several times as long as PostgreSQL does. psycopg2 can be driven by the loop itself, see
https://www.psycopg.org/docs/advanced.html#asynchronous-support .
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import psycopg2
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from db.engine import driver_arguments, psycopg2_url
from db.errors import from_driver
from db.waiting import answered, is_readable

_DIALECT = PGDialect_psycopg2()


class Statement:
    """A statement that is always sent in the same words; compiled once."""

    def __init__(self, clause: TextClause) -> None:
        self.sql = str(clause.compile(dialect=_DIALECT))


class LoopConnections:
    """Connections of one event loop, as many as are in use at the same time; they are kept.

    Parameters:
      connect: begins to connect and returns psycopg2's asynchronous connection; called in a thread, as libpq
        looks up names there.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._begin_to_connect = connect
        self._idle: list[Any] = []

    async def execute(self, statement: Statement, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Execute a statement that stands for itself: it is committed once this returns its rows.

        Raises:
          DatabaseError: as ``db.engine.transaction`` does. Late or cancelled, it may have happened.
        """
        try:
            connection = self._take() or await self._connect()
            try:
                cursor = connection.cursor()
                cursor.execute(statement.sql, parameters)
                await answered(connection)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
            except BaseException:
                connection.close()  # nobody knows what it would say next
                raise
        except psycopg2.Error as error:
            raise from_driver(error) from error
        self._idle.append(connection)
        return rows

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Any:
        """Return a connection that is as good as it was; None when there is none."""
        while self._idle:
            connection = self._idle.pop()
            if not is_readable(connection):
                return connection
            connection.close()  # PostgreSQL ended it
        return None

    async def _connect(self) -> Any:
        connection = await asyncio.to_thread(self._begin_to_connect)
        try:
            await answered(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def make_loop_connections(
    url: str,
    *,
    connect_timeout_s: int = 3,
    statement_timeout_s: float = 10.0,
    application_name: str = "moderation",
) -> LoopConnections:
    """Connect as :func:`db.engine.make_engine` does, once a statement needs it.

    Raises:
      ValueError: when the URL is not one of PostgreSQL.
    """
    target = psycopg2_url(url)
    ours = driver_arguments(target, connect_timeout_s, statement_timeout_s, application_name)
    given, named = _DIALECT.create_connect_args(target)
    return LoopConnections(lambda: psycopg2.connect(*given, **{**named, **ours}, async_=True))
