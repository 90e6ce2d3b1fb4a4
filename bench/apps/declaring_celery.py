"""Lets a running Celery worker consume a new queue, and prints the seconds to the first task on it.

    python -m bench.apps.declaring_celery MODULE

MODULE is one of the apps with Celery.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from typing import Any

from celery.signals import worker_ready

from bench.place import Place
from bench.systems import BY_KEY

TIMEOUT_S = 60.0


def main() -> None:
    app: Any = importlib.import_module(sys.argv[1]).celery
    began = threading.Event()
    queue_name = f"{Place.from_env().queue}-new"

    @app.task(name="new")
    def task() -> None:
        began.set()

    def declare(consumer: Any) -> None:
        declared_s = time.monotonic()
        consumer.call_soon(consumer.add_task_queue, queue_name)
        task.apply_async(queue=queue_name)
        if began.wait(TIMEOUT_S):
            # Celery writes what is printed to its log.
            print(time.monotonic() - declared_s, file=sys.__stdout__, flush=True)
        os._exit(0 if began.is_set() else 1)

    @worker_ready.connect(weak=False)
    def ready(sender: Any, **_: object) -> None:
        threading.Thread(target=declare, args=(sender,), daemon=True).start()

    system = next(system for system in BY_KEY.values() if system.module == sys.argv[1])
    app.worker_main(system.workers(1, 8)[0][5:])


if __name__ == "__main__":
    main()
