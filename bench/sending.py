"""Sends tasks from a separate process and reports the duration.

    python -m bench.sending MODULE HOW COUNT THREADS TASK ARGS

HOW is one of
  bulk     the fastest way the system has for many;
  awaited  one by one in each of THREADS threads, each only after the system has answered for the one before;
  spaced   one every 50 to 150 ms, each with the time of its sending as argument;
  numbered one after another, each with a number of its own: ARGS begins with the first;
  due      one each STEP seconds from FIRST_DUE on, numbered: ARGS is [NUMBER, GATE, FIRST_DUE, STEP];
  delayed  as many within the place's window, each with the time it is due as argument, as many in an hour.
Writes one JSON object to standard output.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

from bench import stages
from bench.place import Place

#: The time in which all threads must connect.
CONNECT_TIMEOUT_S = 60.0
HOUR_S = 3600.0
DELAYED_BATCH = 1_000


def main() -> None:
    module, how, count, threads, task, args = sys.argv[1:]
    app = importlib.import_module(module)
    arguments = tuple(json.loads(args))
    began_s = time.monotonic()
    latencies_s: list[float] = []
    if how == "bulk":
        began_s = _bulk(app, int(count), task, arguments)
    elif how == "awaited":
        began_s, latencies_s = _awaited(app, int(count), int(threads), task, arguments)
    elif how == "spaced":
        _spaced(app, int(count), task)
    elif how == "numbered":
        first, *others = arguments
        for number in range(int(count)):
            app.send(task, (first + number, *others))
    elif how == "due":
        _due(app, int(count), task, *arguments)
    else:
        _delayed(app, int(count), task, Place.from_env().window_s)
    seconds = time.monotonic() - began_s
    app.close()
    print(json.dumps({"seconds": seconds, "latencies_s": latencies_s}))


def _bulk(app: ModuleType, count: int, task: str, args: tuple[Any, ...]) -> float:
    app.send_many(task, [args])  # connects, and creates missing topics and queues
    began_s = time.monotonic()
    app.send_many(task, [args] * (count - 1))
    return began_s


def _awaited(
    app: ModuleType, count: int, threads: int, task: str, args: tuple[Any, ...]
) -> tuple[float, list[float]]:
    ready = threading.Barrier(threads + 1)

    def run() -> list[float]:
        app.send(task, args)  # this thread's connection, if the system has one for each thread
        ready.wait(CONNECT_TIMEOUT_S)
        latencies_s = []
        for _ in range(count // threads):
            began_s = time.perf_counter()
            app.send(task, args)
            latencies_s.append(time.perf_counter() - began_s)
        return latencies_s

    with ThreadPoolExecutor(threads) as pool:
        senders = [pool.submit(run) for _ in range(threads)]
        ready.wait(CONNECT_TIMEOUT_S)
        began_s = time.monotonic()
        latencies_s = [latency_s for sender in senders for latency_s in sender.result()]
        return began_s, latencies_s


def _spaced(app: ModuleType, count: int, task: str) -> None:
    app.send("noop", ())  # connects
    for _ in range(count):
        time.sleep(random.uniform(0.05, 0.15))
        stages.note(stages.Stage.CALLED)
        app.send(task, (time.monotonic(),))
        stages.note(stages.Stage.ACKNOWLEDGED)


def _due(app: ModuleType, count: int, task: str, first: int, gate: str, due_s: float, step_s: float) -> None:
    times = {first + number: due_s + number * step_s for number in range(count)}
    app.send_due(task, {(number, gate): at_s for number, at_s in times.items()})


def _delayed(app: ModuleType, count: int, task: str, window_s: float) -> None:
    # The first is due when the last can have been sent.
    first_due_s = time.monotonic() + window_s
    for begin in range(0, count, DELAYED_BATCH):
        numbers = range(begin, min(count, begin + DELAYED_BATCH))
        app.send_delayed(task, [first_due_s + number * window_s / count for number in numbers])
        app.send_delayed(task, [first_due_s + HOUR_S for _ in numbers])


if __name__ == "__main__":
    main()
