"""A process that enqueues schedules: ``python -m bench.schedules.worker BOOTSTRAP NAMESPACE``."""

from __future__ import annotations

import signal
import sys
import threading

from broker import KafkaBroker


def main() -> None:
    bootstrap_servers, namespace = sys.argv[1:]
    broker = KafkaBroker(bootstrap_servers, namespace=namespace, session_timeout_ms=6_000)
    scheduler = broker.parts.new_scheduler()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    scheduler.start()
    ended.wait()
    scheduler.stop()


if __name__ == "__main__":
    main()
