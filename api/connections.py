"""A limit on connections: one too many is told so and closed, before it costs memory."""

import asyncio
import logging
import resource
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from sanic.server.protocols.http_protocol import HttpProtocol

from api.problems import problem

logger = logging.getLogger(__name__)

#: File descriptors for everything that is no client: PostgreSQL, Kafka, logs, and clients being told to go.
OTHER_FILES = 200
#: Who is told to go may read that for so long.
GOODBYE_S = 1.0


def limited(max_connections: int) -> Callable[..., asyncio.Protocol]:
    """Make the factory of connections' protocols: Sanic's, and for one too many, a 503."""

    def protocol(*, connections: set[Any], **more: Any) -> asyncio.Protocol:
        if len(connections) >= max_connections:
            return _Goodbye()
        return cast(asyncio.Protocol, HttpProtocol(connections=connections, **more))

    return protocol


def allowed_by_system(wanted: int) -> int:
    """Return how many connections there can be, at most ``wanted``; raises the process's limit if it may.

    A server that runs out of file descriptors does not even refuse: it stops accepting.
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


class _Goodbye(asyncio.Protocol):
    """Says 503, whatever is asked, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        said = problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; come again later")
        body = said.body or b""
        headers = {**said.headers, "content-type": said.content_type, "content-length": len(body)}
        lines = [
            "HTTP/1.1 503 Service Unavailable",
            *(f"{name}: {value}" for name, value in headers.items()),
            "connection: close",
        ]
        writing = cast(asyncio.WriteTransport, transport)
        writing.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        # Closing at once would reset the connection if a request is on its way, and the answer be lost.
        asyncio.get_running_loop().call_later(GOODBYE_S, writing.abort)
