"""Statements from an event loop, without a thread.

A thread that uses PostgreSQL needs Python's lock for every step, and a busy event loop releases it late: a
call then takes several times as long as PostgreSQL itself. The loop can drive psycopg2 directly, see
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
from db.limits import Limits
from db.timing import timed
from db.waiting import answered, is_readable

_DIALECT = PGDialect_psycopg2()


class Statement:
    """A statement with a constant text, compiled once."""

    def __init__(self, clause: TextClause) -> None:
        self.sql = str(clause.compile(dialect=_DIALECT))


class LoopConnections:
    """The connections of one event loop. It keeps as many as were in use at the same time.

    Parameters:
      connect: Begins to connect and returns psycopg2's asynchronous connection. It is called in a thread,
        because libpq resolves host names in it.
      limits: Sent with each statement.
    """

    def __init__(self, connect: Callable[[], Any], limits: Limits) -> None:
        self._begin_to_connect = connect
        self._limits = limits
        self._idle: list[Any] = []

    async def execute(self, statement: Statement, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows. It is committed when this returns.

        Raises:
          DatabaseError: As ``db.engine.transaction`` does. A late or cancelled statement may have been
            executed.
        """
        try:
            connection = self._take() or await self._connect()
            try:
                cursor = connection.cursor()
                with timed(statement.sql):
                    cursor.execute(self._limits.of_a_statement + statement.sql, parameters)
                    await answered(connection)
                rows: list[tuple[Any, ...]] = cursor.fetchall()
            except BaseException:
                connection.close()  # its state is unknown
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
        """Return a working idle connection, or None."""
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
    lock_timeout_s: float | None = None,
) -> LoopConnections:
    """Make connections as :func:`db.engine.make_engine` does. The first statement connects.

    Raises:
      ValueError: The URL is not one of PostgreSQL.
    """
    target = psycopg2_url(url)
    ours = driver_arguments(target, connect_timeout_s, statement_timeout_s, application_name)
    given, named = _DIALECT.create_connect_args(target)
    return LoopConnections(
        lambda: psycopg2.connect(*given, **{**named, **ours}, async_=True),
        Limits.of(target, statement_timeout_s, lock_timeout_s),
    )
