"""Limits of connections and of their clients' time.

A client that is slow, or says nothing, may not take the place of others: a request has one deadline from its
first byte to its last, and a connection one for its first. While there is no room, the connection that has
waited longest for bytes makes room for a new one.
"""

import asyncio
import logging
import re
import resource
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast

from sanic.exceptions import RequestTimeout, SanicException, ServiceUnavailable
from sanic.http import Http, Stage
from sanic.server.protocols.http_protocol import HttpProtocol

from api.http.problems import problem
from api.services.hang_up import HangUp

logger = logging.getLogger(__name__)

#: File descriptors for everything else: PostgreSQL, Kafka, logs, and refused connections.
OTHER_FILES = 200
#: The time in which a refused client can read its answer.
REFUSAL_S = 1.0
#: The time from the last byte of a request to its answer. PostgreSQL has shorter deadlines, unless it hangs.
RESPONSE_TIMEOUT_S = 15.0
#: The time from an answer to the next request on its connection.
KEEP_ALIVE_TIMEOUT_S = 60.0
#: The time in which a client reads the answer that ends its request before its time. Then it is cut off.
LAST_ANSWER_TIMEOUT_S = 5.0
#: The pause between two searches for deadlines that are over.
CHECK_INTERVAL_S = 1.0
#: A connection that has waited for bytes for so long may have to make room for another.
GRACE_S = 1.0


class Connections:
    """The connections of one event loop.

    Parameters:
      max_connections: At the same time; a further one gets a 503, unless another makes room.
      max_of_client: Those of one address.
      first_byte_timeout_s: The time from the connection to its first byte.
      request_timeout_s: The time from the first byte of a request to its last.
    """

    def __init__(
        self,
        max_connections: int,
        *,
        max_of_client: int,
        first_byte_timeout_s: float,
        request_timeout_s: float,
    ) -> None:
        self.first_byte_timeout_s = first_byte_timeout_s
        self.request_timeout_s = request_timeout_s
        self._max = max_connections
        self._max_of_client = max_of_client
        self._of_client: dict[str, set[LimitedProtocol]] = {}
        self._count = 0
        self._check: asyncio.TimerHandle | None = None

    def protocol(self, **arguments: Any) -> asyncio.Protocol:
        """Make the protocol of a new connection, as Sanic asks for it."""
        return cast(asyncio.Protocol, LimitedProtocol(self, **arguments))

    def add(self, protocol: "LimitedProtocol") -> str | None:
        """Count a connection, or return why it is refused."""
        mine = self._of_client.setdefault(protocol.client, set())
        if len(mine) >= self._max_of_client and not self._make_room(mine):
            return "Too many connections of one client; come again later"
        if self._count >= self._max and not self._make_room(
            *sorted(self._of_client.values(), key=len, reverse=True)
        ):
            self.remove(protocol)
            return "Too many connections; come again later"
        self._of_client.setdefault(protocol.client, set()).add(protocol)
        self._count += 1
        if self._check is None:
            self._check = asyncio.get_running_loop().call_later(CHECK_INTERVAL_S, self._check_deadlines)
        return None

    def remove(self, protocol: "LimitedProtocol") -> None:
        mine = self._of_client.get(protocol.client, set())
        if protocol in mine:
            mine.discard(protocol)
            self._count -= 1
        if not mine:
            self._of_client.pop(protocol.client, None)

    def drop_a_slow_body(self) -> bool:
        """End the slowest request whose body arrives, of the client with the most bytes; or return False."""
        now_s = time.perf_counter()
        held = {client: sum(one.body_bytes for one in mine) for client, mine in self._of_client.items()}
        for client in sorted(held, key=lambda one: -held[one]):
            slow = [one for one in self._of_client[client] if one.body_bytes and one.waits_s(now_s) > GRACE_S]
            if slow:
                max(slow, key=lambda one: one.waits_s(now_s)).end(
                    RequestTimeout("The body arrives too slowly while others wait for its place")
                )
                return True
        return False

    def _make_room(self, *choices: Iterable["LimitedProtocol"]) -> bool:
        now_s = time.perf_counter()
        for connections in choices:
            waiting = [one for one in connections if one.waits_s(now_s) > GRACE_S]
            if waiting:
                slowest = max(waiting, key=lambda one: one.waits_s(now_s))
                slowest.cut_off()
                self.remove(slowest)
                return True
        return False

    def _check_deadlines(self) -> None:
        now_s = time.perf_counter()
        for mine in list(self._of_client.values()):
            for protocol in list(mine):
                protocol.check(now_s)
        self._check = None
        if self._count:
            self._check = asyncio.get_running_loop().call_later(CHECK_INTERVAL_S, self._check_deadlines)


# int() also reads "0x5" and the digits of other scripts. A proxy in front may read them otherwise, and take a
# part of the body for another request: RFC 9112 wants them refused.
_LENGTHS = {10: re.compile(r"[0-9]+[ \t]*"), 16: re.compile(r"[0-9A-Fa-f]+[ \t]*")}


class _TimedHttp(Http):
    """Sanic's requests of one connection; it tells its protocol where each begins."""

    @staticmethod
    def _safe_int(value: str, base: int = 10) -> int:
        """Read a Content-Length or the size of a chunk.

        Raises:
          ValueError: It has anything but digits. Sanic answers with 400.
        """
        if not _LENGTHS[base].fullmatch(value):
            raise ValueError("not a length")
        return int(value, base)

    def init_for_request(self) -> None:
        super().init_for_request()
        cast(LimitedProtocol, self.protocol).expect_request(bool(self.recv_buffer))


class LimitedProtocol(HttpProtocol):
    """Sanic's protocol with the deadlines of this module.

    Attributes:
      client: The client's address.
      body_bytes: The bytes of a body that still arrives.
      hang_up: Whether the client sends no more bytes.
    """

    # Sanic's metaclass gives no instance a dictionary.
    __slots__ = (
        "_all",
        "_began_s",
        "_ended_s",
        "_has_answered",
        "_idle_since_s",
        "_is_receiving",
        "_is_refused",
        "_received_s",
        "body_bytes",
        "client",
        "hang_up",
    )

    HTTP_CLASS = _TimedHttp

    def __init__(self, all_connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.client = ""
        self.hang_up = HangUp()
        self.body_bytes = 0
        self._all = all_connections
        self._is_refused = False
        self._has_answered = False
        self._http: Http | None = None
        self._idle_since_s = time.perf_counter()
        self._began_s: float | None = None  # the first byte of the request
        self._received_s = 0.0  # the last byte of its body
        self._is_receiving = False
        self._ended_s: float | None = None

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""
        if refusal := self._all.add(self):
            self._is_refused = True
            _refuse(transport, refusal)
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_refused:
            self._all.remove(self)
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        if self._began_s is None:
            self._began_s = time.perf_counter()
        super().data_received(data)

    def eof_received(self) -> bool:
        """Keep the connection open for the answer, if the client has closed its sending side only.

        A client that has closed all of it looks the same until the answer cannot be sent. A request that is
        not complete gets no answer.
        """
        self.hang_up.note()
        # Sanic clears it while it waits for bytes.
        return not self._is_refused and self._data_received.is_set()

    async def receive_more(self) -> None:
        """Wait for bytes, or close the connection: none will come."""
        if self.hang_up.is_over:
            self.close()
            await asyncio.get_running_loop().create_future()  # connection_lost() cancels this task
        await super().receive_more()

    def check_timeouts(self) -> None:
        """Do nothing: :class:`Connections` checks all of them."""

    def expect_request(self, has_bytes: bool) -> None:
        """Note that the next request may begin."""
        now_s = time.perf_counter()
        self._has_answered = self._began_s is not None
        self._idle_since_s = now_s
        self._began_s = now_s if has_bytes else None
        self._is_receiving = False
        self.body_bytes = 0

    def receive(self, *, is_receiving: bool) -> None:
        """Note that the body of the request begins to arrive, or is complete."""
        self._is_receiving = is_receiving
        self._received_s = time.perf_counter()
        self.body_bytes = 0

    def waits_s(self, now_s: float) -> float:
        """Return for how long this connection has waited for the client's bytes; 0 while the API works."""
        stage = Stage.IDLE if self._http is None else self._http.stage
        if self._ended_s is not None:
            return 0.0
        if self._is_receiving or stage in (Stage.IDLE, Stage.REQUEST):
            return now_s - (self._began_s or self._idle_since_s)
        return 0.0

    def check(self, now_s: float) -> None:
        """End the request, or the connection, whose deadline is over."""
        if self._ended_s is not None:
            if now_s - self._ended_s > LAST_ANSWER_TIMEOUT_S:
                self.cut_off()
        elif waited_s := self.waits_s(now_s):
            if self._began_s is not None:
                if waited_s > self._all.request_timeout_s:
                    self.end(RequestTimeout("The request did not arrive in time"))
            elif waited_s > (KEEP_ALIVE_TIMEOUT_S if self._has_answered else self._all.first_byte_timeout_s):
                self.close()
        elif self._http is None:
            return
        elif now_s - max(self._http.perft0 or 0.0, self._received_s) > RESPONSE_TIMEOUT_S:
            self.end(ServiceUnavailable("The server did not answer in time; ask again later"))

    def end(self, error: SanicException) -> None:
        """Answer the request with the error, if it can still be answered, and close the connection."""
        self._ended_s = time.perf_counter()
        if self._http is not None and self._task is not None:
            self._http.exception = error
            self._task.cancel()
        else:
            self.cut_off()

    def cut_off(self) -> None:
        """Close the connection without an answer."""
        if self.transport is not None:
            self.transport.abort()


def allowed_by_system(wanted: int) -> int:
    """Return the possible number of connections, at most ``wanted``. Raises the process's limit if allowed.

    A server without free file descriptors cannot even refuse: it stops accepting.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = max(1, min(wanted, soft - OTHER_FILES))
    if allowed < wanted:
        logger.warning(
            "Only %d of API_MAX_CONNECTIONS=%d: the system allows %d open files (ulimit -n)",
            allowed,
            wanted,
            soft,
        )
    return allowed


def _refuse(transport: asyncio.WriteTransport, detail: str) -> None:
    """Answer with a 503 before the request is read, and close."""
    refusal = problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    body = refusal.body or b""
    headers = {**refusal.headers, "content-type": refusal.content_type, "content-length": len(body)}
    lines = [
        "HTTP/1.1 503 Service Unavailable",
        *(f"{name}: {value}" for name, value in headers.items()),
        "connection: close",
    ]
    transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    # An immediate close would reset a connection whose request is in flight, and lose the answer.
    asyncio.get_running_loop().call_later(REFUSAL_S, transport.abort)
