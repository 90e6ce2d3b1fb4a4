"""Serves the console until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sanic import Sanic

from .collector import Collector

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: The time in which the collector may end its round.
STOP_TIMEOUT_S = 5.0


def listener_of(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      OSError: When the address cannot be bound.
    """
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def serve(
    app: Sanic[Any, Any], listener: socket.socket, collector: Collector, on_ready: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT. The collector reads meanwhile on a thread of its own."""
    thread = threading.Thread(target=collector.run, name="console-collector", daemon=True)
    thread.start()
    try:
        asyncio.run(_serve(app, listener, on_ready))
    finally:
        collector.stop()
        thread.join(STOP_TIMEOUT_S)


async def _serve(app: Sanic[Any, Any], listener: socket.socket, on_ready: Callable[[], None]) -> None:
    told_to_stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    async with served(app, listener):
        on_ready()
        await told_to_stop.wait()


@asynccontextmanager
async def served(app: Sanic[Any, Any], listener: socket.socket) -> AsyncIterator[None]:
    """Serve on a listener within the block. Its end cuts off the event streams."""
    server: Any = await app.create_server(
        sock=listener, access_log=False, asyncio_server_kwargs={"start_serving": False}
    )
    assert server is not None  # only ever None with an argument that is not given
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    try:
        yield
    finally:
        await server.before_stop()
        server.close()
        for one in list(server.connections):
            one.abort()
        await server.after_stop()
