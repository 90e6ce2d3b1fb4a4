"""Waiting for PostgreSQL with a deadline of our own, as libpq has none for an answer.

``statement_timeout`` is the server's word. A server that is frozen keeps its connections and never answers: a
thread in libpq would wait for it as long as that takes, deaf to everything else. psycopg2's wait callback
waits in Python instead, see
https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries .
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

#: For an answer, beyond what PostgreSQL gives itself for the statement.
ANSWER_RESERVE_S = 2.0

_CONNECTED = (STATUS_READY, STATUS_BEGIN, STATUS_PREPARED)
_EVENTS = {POLL_READ: select.POLLIN, POLL_WRITE: select.POLLOUT}


def connections_that_wait(answer_timeout_s: float) -> type[Psycopg2Connection]:
    """Return the class of psycopg2's connections that give an answer ``answer_timeout_s``, then break."""
    set_wait_callback(_wait)

    class Impatient(_Impatient):
        pass

    Impatient.answer_timeout_s = answer_timeout_s
    return Impatient


class _Impatient(Psycopg2Connection):
    answer_timeout_s: float


def _wait(connection: Psycopg2Connection) -> None:
    """Wait until what psycopg2 does on the connection is done. What is raised here breaks the connection."""
    timeout_s = _timeout_s(connection)
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    while (state := connection.poll()) != POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), _EVENTS[state])
        left_ms = None if deadline_s is None else max(0.0, deadline_s - time.monotonic()) * 1000
        if not poller.poll(left_ms):
            raise psycopg2.OperationalError(f"PostgreSQL did not answer within {timeout_s:g} s")


async def answered(connection: Psycopg2Connection) -> None:
    """The same for an asynchronous connection and from an event loop.

    Raises:
      psycopg2.Error: what PostgreSQL says, or that it did not in time. The connection is then of no more use.
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
    """Whether an idle connection's socket can be read: it ended, or says what nobody asked for."""
    if connection.closed:
        return True
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    return bool(poller.poll(0))


def _timeout_s(connection: Psycopg2Connection) -> float | None:
    if connection.status not in _CONNECTED:
        # libpq's own reading of it: none, or 0, is no deadline.
        return float(parse_dsn(connection.dsn).get("connect_timeout", 0)) or None
    return getattr(connection, "answer_timeout_s", None)
