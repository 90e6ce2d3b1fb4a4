"""A worker that one kind of message kills.

    python -m ...worker_with_poison BOOTSTRAP_SERVERS NAMESPACE LEDGER

LEDGER gets a line for each task that is done, and for each dead letter that is told.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import dramatiq
from dramatiq import Worker

from broker import DeadLetter, KafkaBroker, default_middleware


def main(bootstrap_servers: str, namespace: str, ledger: str) -> None:
    def write(line: str) -> None:
        with Path(ledger).open("a") as lines:
            lines.write(f"{line}\n")

    def told(dead_letter: DeadLetter) -> None:
        write(f"told {dead_letter.error_type}")

    broker = KafkaBroker(
        bootstrap_servers,
        namespace=namespace,
        group_id=f"{namespace}workers",
        session_timeout_ms=6_000,
        delay_index_dir=tempfile.mkdtemp(prefix=f"{namespace}index-"),
        middleware=default_middleware(on_dead_letter=told),
    )

    @dramatiq.actor(broker=broker)
    def task(name: str) -> None:
        if name == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        write(f"done {name}")

    Worker(broker, worker_timeout=100, worker_threads=4).start()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
