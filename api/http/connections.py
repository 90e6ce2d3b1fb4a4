"""A limit on connections: further ones get a 503 and are closed before they cost memory."""

import asyncio
import logging
import resource
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from sanic.server.protocols.http_protocol import HttpProtocol

from api.http.problems import problem

logger = logging.getLogger(__name__)

#: File descriptors for everything else: PostgreSQL, Kafka, logs, and refused connections.
OTHER_FILES = 200
#: The time in which a refused client can read its answer.
REFUSAL_S = 1.0


def limited(max_connections: int) -> Callable[..., asyncio.Protocol]:
    """Return a factory of protocols: Sanic's, and a refusal beyond ``max_connections``."""

    def protocol(*, connections: set[Any], **more: Any) -> asyncio.Protocol:
        if len(connections) >= max_connections:
            return _Refusal()
        return cast(asyncio.Protocol, HttpProtocol(connections=connections, **more))

    return protocol


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


class _Refusal(asyncio.Protocol):
    """Answers every request with a 503, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        refusal = problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; come again later")
        body = refusal.body or b""
        headers = {**refusal.headers, "content-type": refusal.content_type, "content-length": len(body)}
        lines = [
            "HTTP/1.1 503 Service Unavailable",
            *(f"{name}: {value}" for name, value in headers.items()),
            "connection: close",
        ]
        writing = cast(asyncio.WriteTransport, transport)
        writing.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        # An immediate close would reset a connection whose request is in flight, and lose the answer.
        asyncio.get_running_loop().call_later(REFUSAL_S, writing.abort)
