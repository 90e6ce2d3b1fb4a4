"""A worker of the measurements of keys: ``python -m bench.keys.worker BOOTSTRAP NAMESPACE FILE``.

It appends a line for each run to the file: the label of the message, the time at which the run began, and the
time for which the message was on its queue, both in ms.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import dramatiq
from dramatiq.middleware import CurrentMessage

from broker import KafkaBroker, default_middleware
from broker.deliveries.delivery import Delivery

QUEUE = "keyed"
THREADS = 8


def declare(broker: KafkaBroker) -> dramatiq.Actor[[str, float], None]:
    """The actor of the measurements, which sleeps for so many ms."""

    @dramatiq.actor(broker=broker, queue_name=QUEUE, actor_name="task", max_retries=0)
    def task(label: str, sleep_ms: float) -> None:
        began_ms = time.time() * 1000
        message = CurrentMessage.get_current_message()
        queued_ms = began_ms - message.queued_ms if isinstance(message, Delivery) else 0.0
        if sleep_ms:
            time.sleep(sleep_ms / 1000)
        runs.append(f"{label} {began_ms:.3f} {queued_ms:.3f}\n")

    return task


runs: list[str] = []


def main() -> None:
    bootstrap_servers, namespace, path = sys.argv[1:]
    broker = KafkaBroker(
        bootstrap_servers, namespace=namespace, middleware=[*default_middleware(), CurrentMessage()]
    )
    declare(broker)
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    worker.start()
    while True:
        is_over = ended.wait(0.2)
        count = len(runs)
        with Path(path).open("a", encoding="ascii") as file:
            file.writelines(runs[:count])
        del runs[:count]
        if is_over:
            break
    worker.stop()


if __name__ == "__main__":
    main()
