"""No broker at all: threads that take tasks from a counter. `python -m bench.apps.bare_threads THREADS`."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading

from bench.place import Place
from bench.work import TASKS


def main(threads: int) -> None:
    place = Place.from_env()
    task, args = TASKS[place.task], json.loads(place.args)
    task_numbers = itertools.count(1)

    def run() -> None:
        while next(task_numbers) <= place.preload:
            task(*args)

    for _ in range(threads):
        threading.Thread(target=run, daemon=True).start()
    signal.pause()


if __name__ == "__main__":
    main(int(sys.argv[1]))
