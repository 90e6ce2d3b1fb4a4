"""Declares an actor on a new queue while a worker runs, and prints the seconds to its first run.

    python -m bench.apps.declaring MODULE

MODULE is one of the apps with a Dramatiq broker.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from typing import Any

import dramatiq
from dramatiq.broker import Broker
from dramatiq.worker import Worker

from bench.place import Place

THREADS = 8
TIMEOUT_S = 60.0


def main() -> None:
    app: Any = importlib.import_module(sys.argv[1])
    worker = Worker(app.broker, worker_threads=THREADS)
    worker.start()
    try:
        _first_run_s(app.broker, "running")  # until here the worker boots
        print(_first_run_s(app.broker, "new"))
    finally:
        worker.stop()
        app.close()


def _first_run_s(broker: Broker, name: str) -> float:
    began = threading.Event()
    declared_s = time.monotonic()
    queue_name = f"{Place.from_env().queue}-{name}"

    @dramatiq.actor(actor_name=name, queue_name=queue_name, broker=broker)
    def task() -> None:
        began.set()

    task.send()
    if not began.wait(TIMEOUT_S):
        raise TimeoutError(f"the task of {queue_name!r} did not run")
    return time.monotonic() - declared_s


if __name__ == "__main__":
    main()
