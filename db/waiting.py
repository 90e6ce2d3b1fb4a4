"""Waiting for PostgreSQL with a client-side deadline, which libpq does not have.

The server enforces ``statement_timeout``. A frozen server keeps its connections and never answers: a thread
in libpq would wait for ever, and could not be interrupted. psycopg2's wait callback waits in Python instead,
see https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries .
"""

import asyncio
import select
import time
from typing import Any

import psycopg2
from psycopg2.extensions import (
    POLL_OK,
    POLL_READ,
    POLL_WRITE,
    STATUS_BEGIN,
    STATUS_PREPARED,
    STATUS_READY,
    parse_dsn,
    set_wait_callback,
)
from psycopg2.extensions import connection as Psycopg2Connection

#: The time for an answer beyond PostgreSQL's own timeout of the statement.
ANSWER_RESERVE_S = 2.0

_CONNECTED = (STATUS_READY, STATUS_BEGIN, STATUS_PREPARED)
_EVENTS = {POLL_READ: select.POLLIN, POLL_WRITE: select.POLLOUT}


def connections_with_deadline(answer_timeout_s: float) -> type[Psycopg2Connection]:
    """Return a class of psycopg2's connections that break without an answer after ``answer_timeout_s``."""
    set_wait_callback(_wait)

    class WithDeadline(_WithDeadline):
        pass

    WithDeadline.answer_timeout_s = answer_timeout_s
    return WithDeadline


class _WithDeadline(Psycopg2Connection):
    answer_timeout_s: float


def _wait(connection: Psycopg2Connection) -> None:
    """Wait until psycopg2's operation on the connection is done. An exception breaks the connection."""
    timeout_s = _timeout_s(connection)
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while (state := connection.poll()) != POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), _EVENTS[state])
        left_ms = None if deadline_s is None else max(0.0, deadline_s - time.monotonic()) * 1000
        if not poller.poll(left_ms):
            raise psycopg2.OperationalError(f"PostgreSQL did not answer within {timeout_s:g} s")


async def answered(connection: Psycopg2Connection) -> None:
    """Wait in an event loop until the operation on an asynchronous connection is done.

    Raises:
      psycopg2.Error: PostgreSQL's error, or no answer in time. The connection cannot be used any more.
    """
    timeout_s = _timeout_s(connection)
    try:
        async with asyncio.timeout(timeout_s):
            while (state := connection.poll()) != POLL_OK:
                await _socket_is_ready(connection.fileno(), state)
    except TimeoutError as error:
        raise psycopg2.OperationalError(f"PostgreSQL did not answer within {timeout_s:g} s") from error


async def _socket_is_ready(socket: int, state: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        if not ready.done():
            ready.set_result(None)

    watch, forget = {
        POLL_READ: (loop.add_reader, loop.remove_reader),
        POLL_WRITE: (loop.add_writer, loop.remove_writer),
    }[state]
    watch(socket, note)
    try:
        await ready
    finally:
        forget(socket)


def is_readable(connection: Any) -> bool:
    """Return whether an idle connection's socket can be read: it ended, or has an unexpected message."""
    if connection.closed:
        return True
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _timeout_s(connection: Psycopg2Connection) -> float | None:
    if connection.status not in _CONNECTED:
        # As libpq reads it: without a value, or with 0, there is no deadline.
        return float(parse_dsn(connection.dsn).get("connect_timeout", 0)) or None
    return getattr(connection, "answer_timeout_s", None)
