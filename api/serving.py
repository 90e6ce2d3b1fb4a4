"""Running the application in this process, or in several that share the listening socket.

Sanic's own runners are not used. They ignore SIGTERM for a moment after they begin to accept connections.
While they stop, they wait until the timeout for a connection that turns idle. Their manager of several
processes hangs when it is stopped with a request in flight.
"""

import asyncio
import gc
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from multiprocessing import connection, get_context, parent_process
from types import FrameType
from typing import Any, cast

import uvloop
from sanic.server import AsyncioServer

from api.app import create_app
from api.http.connections import Connections, allowed_by_system
from api.services.metrics import SHARED_DIRECTORY
from settings import get_settings

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: The pause between two searches for answered connections while the server stops.
DRAIN_INTERVAL_S = 0.05
#: The time in which the 503 of an unanswered request may reach its client.
REFUSAL_TIMEOUT_S = 0.5
#: The time in which threads may end after the last answer.
THREADS_TIMEOUT_S = 1.0


def serve(listener: socket.socket) -> None:
    """Serve on the listener in this process until SIGTERM or SIGINT; requests in flight are answered."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Sanic logs the URL of a client that is gone, which may have what no log should.
    logging.getLogger("sanic.root").setLevel(logging.WARNING)
    uvloop.run(_serve(listener))
    _leave_hanging_threads()


async def _serve(listener: socket.socket) -> None:
    told_to_stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    app = create_app(listener.getsockname()[0])
    settings = get_settings()
    app.ctx.connections = Connections(
        allowed_by_system(settings.api_max_connections),
        max_of_client=settings.api_max_connections_per_client,
        first_byte_timeout_s=settings.api_first_byte_timeout_s,
        request_timeout_s=settings.api_request_timeout_s,
    )
    server = await app.create_server(
        sock=listener,
        access_log=False,
        # Sanic only calls it, so a factory does as well as a class.
        protocol=cast(Any, app.ctx.connections.protocol),
        asyncio_server_kwargs={"start_serving": False},
    )
    assert server is not None  # only ever None with an argument that is not given
    await server.startup()
    await server.before_start()
    gc.collect()
    gc.freeze()  # the loaded objects stay: collecting them again would stop the loop
    await server.start_serving()
    await server.after_start()
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    logger.info("Serving on %s, described at %s/docs", address, address)
    if app.ctx.needs_keys:
        logger.info("Requests need an API key: python -m submissions.keys create --help")
    else:
        logger.warning("API keys are off: anybody who reaches %s may use all of it (API_KEYS)", address)
    await told_to_stop.wait()
    logger.info("Stopping")
    await server.before_stop()
    server.close()
    timeout_s = get_settings().api_shutdown_timeout_s
    await _drain(server, timeout_s=timeout_s)
    if server.connections:
        logger.warning("%d requests are unanswered after %.0f s", len(server.connections), timeout_s)
        app.ctx.calls.fail_waiting()
        await _drain(server, timeout_s=REFUSAL_TIMEOUT_S)
    for one in list(server.connections):
        one.abort()
    await server.after_stop()


async def _drain(server: AsyncioServer, *, timeout_s: float) -> None:
    """Close each connection once its request is answered, until none is left or the timeout is over."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while True:
        await asyncio.sleep(DRAIN_INTERVAL_S)  # first of all: a connection just accepted is not listed yet
        for one in list(server.connections):
            one.close_if_idle()
        if not server.connections or loop.time() >= deadline_s:
            break


def _leave_hanging_threads() -> None:
    """End the process if a hanging server still blocks a thread; Python would wait for that thread."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(THREADS_TIMEOUT_S)
            if thread.is_alive():
                logger.warning("%s still waits for a server; the process ends without it", thread.name)
                logging.shutdown()
                os._exit(0)


def serve_in_processes(listener: socket.socket, count: int) -> str | None:
    """Serve on the listener in ``count`` processes until SIGTERM or SIGINT; when one ends, stop the others.

    Returns:
      An error in a sentence; None after an orderly stop.
    """
    context = get_context("spawn")
    shared = tempfile.mkdtemp(prefix="moderation-metrics-")
    os.environ[SHARED_DIRECTORY] = shared  # before a child imports prometheus_client
    children = [context.Process(target=_serve_as_child, args=(listener,)) for _ in range(count)]
    stopping = False

    def stop(*_: int | FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            if child.pid is not None:
                child.terminate()

    for child in children:
        child.start()
    listener.close()  # the children have copies: the port becomes free when the last child stops
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    connection.wait([child.sentinel for child in children])
    died = not stopping
    stop()
    for child in children:
        child.join()
    shutil.rmtree(shared, ignore_errors=True)
    return "An API process ended by itself; the others were stopped" if died else None


def _serve_as_child(listener: socket.socket) -> None:
    """Serve until a signal or the death of the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent stops its children
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    serve(listener)


def _stop_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
