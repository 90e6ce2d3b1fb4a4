"""The web console beside a large state: its pages, its memory, and 50 browsers at once."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import psutil

from bench.command import say
from bench.console_client import Crowd, Visitor
from bench.console_state import (
    create_topics,
    fill_cache,
    workers_report,
    write_dead_letters,
    write_history,
)
from bench.ground import Ground
from bench.place import Place
from bench.row import Contestant, Measured, Metric, Row, percentile
from bench.sizes import Sizes
from bench.systems import OURS
from broker import KafkaBroker
from dev.child import Child
from dev.ports import free_port, is_listening
from dev.stack import ROOT
from dev.waiting import wait_until

PASSWORD = "bench"  # it listens on this machine alone
START_TIMEOUT_S, FILL_TIMEOUT_S = 120.0, 1_800.0
#: The loads of each page.
LOADS = 40
#: The events that happen while the console runs, as many as it reads in a round. The others are in its cache.
EVENTS_AT_ONCE = 20_000
MEMORY_INTERVAL_S = 0.2
#: The interval in which a page is asked for whether it shows what is awaited.
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class _Seen:
    """The resources of the console's process since some moment.

    Attributes:
      peak_bytes: The largest resident memory.
      cores: The share of a core that it used.
    """

    peak_bytes: int
    cores: float


class _Console(Row):
    def __init__(self) -> None:
        super().__init__(
            "console",
            "Web console",
            [Contestant("kafka", "this broker, Kafka", OURS.server)],
            [
                Metric("p95_ms", "a page, p95 ms", better="less"),
                Metric("p50_ms", "p50 ms", better="less"),
                Metric("worst_p95_ms", "the slowest page, p95 ms", better="less"),
                Metric("rss_mb", "highest RSS MB", better="less"),
                Metric("data_s", "s from the start to a page with data", better="less", digits=1),
                Metric("read_s", "s to the end of the first reading", better="less", digits=1),
                Metric("filled_s", "s to all dead letters", better="less", digits=1),
                Metric("alone_cores", "its cores without a browser", better="less", digits=2),
                Metric("crowd_p95_ms", "browsers at once, p95 ms", better="less"),
                Metric("crowd_p50_ms", "p50 ms", better="less"),
                Metric("crowd_rss_mb", "highest RSS MB", better="less"),
                Metric("crowd_cores", "its cores", better="less", digits=2),
                Metric("crowd_loads_per_s", "their loads/s", digits=1),
                Metric("others_cores", "cores used by others", better="less", digits=2),
            ],
            most_rounds=1,
        )

    def work(self, sizes: Sizes) -> str:
        return (
            f"{sizes.console_queues} queues, {sizes.backlog:,} waiting messages, "
            f"{sizes.dead:,} dead letters, {sizes.events:,} events of the history; "
            f"{sizes.browsers} browsers on the overview"
        )

    def measure(self, ground: Ground, sizes: Sizes, key: str) -> Measured:
        with ground.place(OURS, queues=sizes.console_queues) as place:
            queues = ["work", *(f"work-{number}" for number in range(2, sizes.console_queues + 1))]
            with closing(KafkaBroker(place.address, namespace=f"{place.queue}-", middleware=[])) as broker:
                create_topics(broker, queues)
                ground.send(OURS, place, sizes.backlog)
                write_dead_letters(broker, queues, sizes.dead)
                known = max(0, sizes.events - EVENTS_AT_ONCE)
                fill_cache(_data_of(ground, place) / "cache.sqlite", queues, known)
                with workers_report(broker, queues), _console(ground, place) as child:
                    return _measured(broker, queues, child, sizes)


def _data_of(ground: Ground, place: Place) -> Path:
    """The directory of the console's cache."""
    return ground.home / f"console-{place.queue}" / "data"


class _ConsoleChild(Child):
    """The console as an operator starts it.

    Attributes:
      port: Its port.
    """

    def __init__(self, ground: Ground, place: Place) -> None:
        data = _data_of(ground, place)
        self.port = free_port()
        command = [sys.executable, "-m", "broker.console", OURS.module, "console"]
        super().__init__(
            "the console",
            [*command, "--port", str(self.port), "--data", data],
            log=data.parent / "console.log",
            env={
                **os.environ,
                **place.env(),
                "BENCH_TALLY": "",
                "PYTHONPATH": str(ROOT),
                "DKB_CONSOLE_PASSWORD": PASSWORD,
            },
            cwd=ROOT,
        )

    def listens(self) -> bool:
        self.check()
        return is_listening(self.port)


@contextmanager
def _console(ground: Ground, place: Place) -> Iterator[_ConsoleChild]:
    child = _ConsoleChild(ground, place)
    child.start()
    try:
        yield child
    finally:
        child.kill()


class _Resources:
    """Follows the memory and the processor time of a process, on a thread, within the block."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._peak_bytes = 0
        self._began_s, self._cpu_s = time.monotonic(), self._used_s()
        self._all_s = _busy_s()

    def __enter__(self) -> _Resources:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _used_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def _follow(self) -> None:
        while not self._ended.wait(MEMORY_INTERVAL_S):
            self._peak_bytes = max(self._peak_bytes, self._process.memory_info().rss)

    def seen(self) -> _Seen:
        cores = (self._used_s() - self._cpu_s) / (time.monotonic() - self._began_s)
        return _Seen(max(self._peak_bytes, self._process.memory_info().rss), cores)

    def others_cores(self) -> float:
        """The cores that all other processes used meanwhile."""
        elapsed_s = time.monotonic() - self._began_s
        return (_busy_s() - self._all_s - (self._used_s() - self._cpu_s)) / elapsed_s


def _busy_s() -> float:
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def _measured(broker: KafkaBroker, queues: list[str], child: _ConsoleChild, sizes: Sizes) -> Measured:
    began_s = time.monotonic()
    wait_until(child.listens, deadline_s=START_TIMEOUT_S, what="the console")
    visitor = Visitor(child.port, PASSWORD)
    with closing(visitor), _Resources(child.pid) as resources:
        starting_s = time.monotonic() - began_s
        data_s = starting_s + _seconds_until(lambda: visitor.document("/queues")["queues"], "a queue")
        read_s = data_s + _seconds_until(lambda: visitor.document("/queues")["read_ms"], "a whole reading")
        filled_s = read_s + _seconds_until(
            lambda: visitor.document("/dead-letters")["count"] >= sizes.dead, "all dead letters"
        )
        _read_history(broker, queues, visitor, sizes.events)
        alone = _alone(child, sizes)
        pages = _pages(visitor)
        filling = resources.seen()
        others_cores = resources.others_cores()
    crowd = Crowd(child.port, visitor.cookie)
    with _Resources(child.pid) as resources:
        crowd.look(sizes.browsers, sizes.crowd_s)
        crowded = resources.seen()
    times_s = [one for latencies_s in pages.values() for one in latencies_s]
    return {
        "p95_ms": percentile(times_s, 0.95) * 1000,
        "p50_ms": percentile(times_s, 0.5) * 1000,
        "worst_p95_ms": max(percentile(one, 0.95) for one in pages.values()) * 1000,
        "rss_mb": filling.peak_bytes / 1e6,
        "data_s": data_s,
        "read_s": read_s,
        "filled_s": filled_s,
        "alone_cores": alone.cores,
        "crowd_p95_ms": percentile(crowd.latencies_s, 0.95) * 1000,
        "crowd_p50_ms": percentile(crowd.latencies_s, 0.5) * 1000,
        "crowd_rss_mb": crowded.peak_bytes / 1e6,
        "crowd_cores": crowded.cores,
        "crowd_loads_per_s": len(crowd.latencies_s) / sizes.crowd_s,
        "others_cores": others_cores,
    }


def _seconds_until(condition: Callable[[], object], what: str) -> float:
    """Ask for a page every POLL_S until it shows something; return the seconds that it took.

    A console that is asked without a pause is busy with that.
    """
    began_s = time.monotonic()

    def after_a_pause() -> object:
        time.sleep(POLL_S)
        return condition()

    wait_until(after_a_pause, deadline_s=FILL_TIMEOUT_S, what=f"{what} on a page")
    return time.monotonic() - began_s


def _read_history(broker: KafkaBroker, queues: list[str], visitor: Visitor, count: int) -> None:
    """Let the last of the events happen, and wait until the console has read them."""
    number = min(EVENTS_AT_ONCE, count)
    write_history(broker, queues, count - number, number)
    last = f"00000000-0000-4000-8000-{count - 1:012}"
    path = f"/tasks?{urlencode({'id': last})}"
    _seconds_until(lambda: visitor.document(path)["tasks"], "the events")


def _alone(child: _ConsoleChild, sizes: Sizes) -> _Seen:
    with _Resources(child.pid) as resources:
        time.sleep(sizes.crowd_s)
        return resources.seen()


def _pages(visitor: Visitor) -> dict[str, list[float]]:
    """The durations of each page, by its name. Each page is loaded once before."""
    (letter, *_) = visitor.document("/dead-letters")["dead_letters"]
    (worker, *_) = visitor.document("/workers")["workers"]
    (event, *_) = visitor.document("/tasks?status=failed")["tasks"]
    place = {"action": "redrive", "error": letter["error_type"]}
    paths = {
        "overview": "/",
        "queues": "/queues",
        "queue": "/queues/work",
        "tasks": "/tasks",
        "tasks of an actor": "/tasks?actor=actor-7&since=24h",
        "tasks by the beginning of an id": "/tasks?since=24h&id=00000000-0000-4000-8000-0000000077",
        "task": f"/task?{urlencode({'id': event['message_id']})}",
        "dead letters": "/dead-letters",
        "dead letters of an error": f"/dead-letters?{urlencode({'error': letter['error_type']})}",
        "dead letters by a text": "/dead-letters?text=4711",
        "dead letter": f"/dead-letters/{letter['queue']}/{letter['part']}/{letter['place']}",
        "before a redrive": f"/dead-letters/resolve?{urlencode(place)}",
        "actors": "/actors",
        "actor": "/actor?name=actor-7",
        "workers": "/workers",
        "worker": f"/worker?{urlencode({'id': worker['worker']})}",
        "schedules": "/schedules",
        "audit": "/audit",
        "health": "/health",
    }
    found = {}
    for name, path in paths.items():
        visitor.page(path)
        found[name] = visitor.latencies_s(path, LOADS)
        p50_ms, p95_ms = (percentile(found[name], share) * 1000 for share in (0.5, 0.95))
        say(f"  {name}: p50 {p50_ms:,.0f} ms, p95 {p95_ms:,.0f} ms")
    return found


CONSOLE = _Console()
