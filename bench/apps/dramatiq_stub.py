"""Dramatiq's StubBroker: a queue in the memory of one process, so the upper bound of Dramatiq's workers.

`python -m bench.apps.dramatiq_stub THREADS` gives itself the tasks and runs them until it is killed.
"""

from __future__ import annotations

import json
import signal
import sys

from dramatiq.brokers.stub import StubBroker
from dramatiq.worker import Worker

from bench.apps.dramatiq_tasks import DramatiqApp
from bench.place import Place


def main(threads: int) -> None:
    place = Place.from_env()
    broker = StubBroker()
    app = DramatiqApp(broker, queue_name=place.queue)
    args = tuple(json.loads(place.args))
    app.send_many(place.task, (args for _ in range(place.preload)))
    Worker(broker, worker_threads=threads).start()
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]))
