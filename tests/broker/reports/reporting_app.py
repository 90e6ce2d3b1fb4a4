"""A worker in a process of its own that reports often, and that can be stopped in many ways.

python -m tests.broker.reports.reporting_app BOOTSTRAP_SERVERS NAMESPACE [PROXY_URL]
"""

from __future__ import annotations

import ctypes
import signal
import sys
import tempfile
import threading
import time
from typing import Any

import dramatiq
from dramatiq import Worker

from broker import KafkaBroker, current_task
from broker.reports import reporter

#: The intervals of reports, shortened so that a test need not wait for their silence.
BUSY_INTERVAL_S, IDLE_INTERVAL_S = 0.5, 2.0
TIME_LIMIT_MS = 1_000
SESSION_TIMEOUT_MS = 6_000

#: It calls C functions without giving up the GIL.
_holding_the_gil = ctypes.PyDLL(None)


def new_broker(bootstrap_servers: str, namespace: str, **settings: Any) -> KafkaBroker:
    return KafkaBroker(
        bootstrap_servers,
        namespace=namespace,
        group_id=f"{namespace}workers",
        session_timeout_ms=SESSION_TIMEOUT_MS,
        delay_index_dir=tempfile.mkdtemp(prefix=f"{namespace}index-"),
        app_version="1.2.3",
        **settings,
    )


def declare(broker: KafkaBroker) -> dict[str, dramatiq.Actor[[float], None]]:
    """The actors; each takes a duration in seconds."""

    @dramatiq.actor(broker=broker, max_retries=0)
    def work(duration_s: float) -> None:
        current_task.progress(0.4, "reading page 12")
        time.sleep(duration_s)

    @dramatiq.actor(broker=broker, max_retries=0, time_limit=TIME_LIMIT_MS)
    def hang(duration_s: float) -> None:
        time.sleep(duration_s)  # an interrupt waits for its end

    @dramatiq.actor(broker=broker, max_retries=0)
    def hold_gil(duration_s: float) -> None:
        _holding_the_gil.usleep(int(duration_s * 1e6))

    return {actor.actor_name: actor for actor in (work, hang, hold_gil)}


def main(bootstrap_servers: str, namespace: str, proxy_url: str | None = None) -> None:
    reporter.BUSY_INTERVAL_S, reporter.IDLE_INTERVAL_S = BUSY_INTERVAL_S, IDLE_INTERVAL_S
    broker = new_broker(bootstrap_servers, namespace, client_options={"proxy_url": proxy_url})
    declare(broker)
    for middleware in broker.middleware:
        middleware.after_process_boot(broker)  # as the command line does; the time limits begin with it
    worker = Worker(broker, worker_timeout=100, worker_threads=2)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    worker.start()
    ended.wait()
    worker.stop()
    broker.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
