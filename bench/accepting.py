"""The API's own processor time for a submission: ``python -m bench.accepting``.

Requests go through the whole API in one process, from the bytes of a request to the bytes of its answer, on
connections in memory. PostgreSQL is a pause of 1.5 ms, and nothing is published. So the figure holds on a
busy machine, and compares changes of a few microseconds. The least of several rounds counts.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import uvloop
from sanic import Sanic

from api.app import create_app
from api.http.authentication import Access
from api.http.connections import Connections
from api.services.async_application import AsyncApplication
from api.services.key_ring import KeyRing
from db.api_keys import ApiKey
from db.in_loop import LoopConnections
from settings import get_settings
from submissions.application import Application
from submissions.callers import new_key
from submissions.outbox import Outbox

CONNECTIONS = 64
REQUESTS = 100
ROUNDS = 7
STATEMENT_S = 0.0015


class Transport(asyncio.Transport):
    """A connection of a client that reads answers immediately."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[bytes] | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: Any) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return False


class OneKey:
    """The table of a single key."""

    def __init__(self, key: ApiKey) -> None:
        self._key = key

    async def fingerprint(self) -> tuple[str | None, datetime]:
        return "", datetime.now(UTC)

    async def keys(self) -> Sequence[ApiKey]:
        return [self._key]


async def measure() -> None:
    """Print the least processor time of a submission, without a key and with one."""
    app = await _application()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(CONNECTIONS):
        transport = Transport()
        protocol: Any = app.ctx.connections.protocol(
            loop=loop, app=app, connections=set(), state={"requests_count": 0}
        )
        protocol.connection_made(transport)
        clients.append((protocol, transport))

    async def ask(protocol: Any, transport: Transport, request: bytes) -> None:
        for _ in range(REQUESTS):
            transport.answer = loop.create_future()
            protocol.data_received(request)
            answer = await transport.answer
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())

    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for kind, rate in (("no key", None), ("a key", 0), ("a key with a rate", 10**9)):
            header = "" if rate is None else _use_key(app, rate or None)
            request = f"POST /async_predict?item_id=17 HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode()
            began_s = time.process_time()
            await asyncio.gather(*(ask(*client, request) for client in clients))
            each_us = (time.process_time() - began_s) / (CONNECTIONS * REQUESTS) * 1e6
            best[kind] = min(each_us, best.get(kind, each_us))
    for kind, each_us in best.items():
        print(f"{kind:20} {each_us:6.1f} µs")
    sys.stdout.flush()
    os._exit(0)  # nothing is to be ended in order


async def _application() -> Sanic:
    app = create_app("127.0.0.1")
    settings = get_settings()
    application = Application(settings)
    app.ctx.calls = AsyncApplication(application, settings)
    app.ctx.access = Access(app.ctx.calls.key_ring, is_required=False)
    app.ctx.connections = Connections(
        CONNECTIONS, max_of_client=CONNECTIONS, first_byte_timeout_s=3600, request_timeout_s=3600
    )
    ids = itertools.count(1)

    async def execute(_: LoopConnections, __: object, parameters: Mapping[str, Any]) -> list[tuple[int, str]]:
        await asyncio.sleep(STATEMENT_S)
        return [(next(ids), message_id) for message_id in parameters["message_ids"]]

    LoopConnections.execute = execute  # type: ignore[method-assign, assignment]
    Outbox.hand_over = lambda *_: True  # type: ignore[method-assign]
    await app._startup()  # what Sanic's server does before it serves
    return app


def _use_key(app: Sanic, rate: int | None) -> str:
    """Let the API know a single key; return the header of its requests."""
    text, kept = new_key()
    key = ApiKey(
        key_id=kept.key_id,
        client_id=1,
        client="bench",
        digest=kept.digest,
        scopes=("submit",),
        rate_requests=rate,
        rate_window_s=None if rate is None else 1,
        quota_per_day=None,
        created_at=datetime.now(UTC),
        created_by="bench",
        expires_at=None,
        revoked_at=None,
        revoked_by=None,
        reason=None,
    )
    app.ctx.access = Access(KeyRing(OneKey(key)), is_required=False)
    return f"Authorization: Bearer {text}\r\n"


if __name__ == "__main__":
    uvloop.run(measure())
