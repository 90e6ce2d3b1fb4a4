"""The state that the web console shows in a measurement, written with the encoders of the broker."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dramatiq import Message

from broker import KafkaBroker
from broker.console.web.store import StateCache
from broker.dead_letters.record_format import dead_letter_record
from broker.deliveries.delivery import Origin
from broker.produce.record import Record
from broker.reports.counters import ActorCounters
from broker.reports.histogram import Histogram
from broker.reports.history_event import EventKind, HistoryEvent
from broker.reports.history_format import MAX_BATCH, encode_batch
from broker.reports.report import RunningTask, WorkerReport, encode_report

ACTORS, ERRORS, WORKERS = 60, 20, 8
THREADS = 8
#: The records of one call of the publisher.
BATCH = 1_000
#: The events of one transaction of the cache, and the time that they are of.
CACHE_BATCH, CACHED_HOURS = 20_000, 23
REPORT_INTERVAL_S = 2.0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def create_topics(broker: KafkaBroker, queues: Iterable[str]) -> None:
    """Create all topics that an application with these queues has."""
    broker.apply_topics(broker.plan_topics(*queues))


def _publish(broker: KafkaBroker, records: Iterable[Record]) -> None:
    iterator = iter(records)
    while batch := list(itertools.islice(iterator, BATCH)):
        if failures := broker.parts.publisher.publish(batch):
            raise RuntimeError(f"Kafka did not take {len(failures)} records: {next(iter(failures.values()))}")


# Dead letters


def write_dead_letters(broker: KafkaBroker, queues: list[str], count: int) -> None:
    """Write dead letters of ERRORS errors in turn, each with a traceback."""
    errors = [_failure(type(f"Error{number}", (Exception,), {})) for number in range(ERRORS)]
    _publish(broker, _dead_letters(broker, queues, count, errors))


def _failure(kind: type[Exception], depth: int = 12) -> Exception:
    """An error as a task has raised it, some calls deep."""

    def call(left: int) -> None:
        if left:
            call(left - 1)
        raise kind("the order 4711 of the customer 0815 was refused: " + "details " * 20)

    try:
        call(depth)
    except kind as e:
        return e
    raise AssertionError("it raises")


def _dead_letters(
    broker: KafkaBroker, queues: list[str], count: int, errors: list[Exception]
) -> Iterator[Record]:
    topics = broker.parts.topics
    for number in range(count):
        queue, error = queues[number % len(queues)], errors[number % ERRORS]
        message: Message[None] = Message(
            queue, f"actor-{number % ACTORS}", (number, "an argument"), {"amount": number}, {"retries": 3}
        )
        origin = Origin(topics.queue(queue), 0, number)
        yield dead_letter_record(
            topics, queue_name=queue, origin=origin, raw=message.encode(), error=error, message=message
        )


# The history


def write_history(broker: KafkaBroker, queues: list[str], first: int, count: int) -> None:
    """Write events that end now, the numbers of whose messages begin with ``first``."""
    numbers = range(first, first + count)
    records = []
    for begin in range(0, count, MAX_BATCH):
        events = [_event(number, queues) for number in numbers[begin : begin + MAX_BATCH]]
        value = encode_batch(_worker(begin // MAX_BATCH % WORKERS), events, unrecorded={}, dropped=0)
        records.append(Record(broker.parts.topics.history, value))
    _publish(broker, records)


def fill_cache(path: Path, queues: list[str], count: int) -> None:
    """Write events of the last CACHED_HOURS hours into the cache of a console that does not run, as a console
    that ran meanwhile has them: to write them to Kafka at the pace of its rounds takes most of an hour.
    """
    begin_ms, step_ms = _now_ms() - CACHED_HOURS * 3_600_000, CACHED_HOURS * 3_600_000 / max(1, count)
    with closing(StateCache(path)) as store:
        for first in range(0, count, CACHE_BATCH):
            numbers = range(first, min(count, first + CACHE_BATCH))
            store.add_events(_event(number, queues, int(begin_ms + number * step_ms)) for number in numbers)


def _event(number: int, queues: list[str], at_ms: int | None = None) -> HistoryEvent:
    has_failed = number % 10 == 0
    return HistoryEvent(
        EventKind.FAILED if has_failed else EventKind.SUCCEEDED,
        f"00000000-0000-4000-8000-{number:012}",
        f"actor-{number % ACTORS}",
        queues[number % len(queues)],
        1,
        _now_ms() if at_ms is None else at_ms,
        _worker(number // MAX_BATCH % WORKERS),
        (number % 997) / 1000,
        (number % 89) / 10,
        f"Error{number % ERRORS}" if has_failed else None,
        "the order was refused" if has_failed else None,
        None,
    )


# Workers


def _worker(number: int) -> str:
    return f"host-{number}:{1000 + number}:{number:08x}"


@contextmanager
def workers_report(broker: KafkaBroker, queues: list[str]) -> Iterator[None]:
    """Let workers report every REPORT_INTERVAL_S seconds within the block. All their threads run tasks."""
    ended, booted_ms = threading.Event(), _now_ms()

    def report() -> None:
        for tick in itertools.count(1):
            _publish(broker, (_report(broker, number, tick, booted_ms, queues) for number in range(WORKERS)))
            if ended.wait(REPORT_INTERVAL_S):
                return

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(broker: KafkaBroker, number: int, tick: int, booted_ms: int, queues: list[str]) -> Record:
    times = Histogram(-10, (tick * 10, tick * 30, tick * 5), tick * 1.5)
    counters = {
        f"actor-{actor}": ActorCounters(
            started=tick * 50,
            succeeded=tick * 45,
            failed={f"Error{error}": tick for error in range(5)},
            retried=tick,
            run_time=times,
            queue_time=times,
            queue_name=queues[actor % len(queues)],
        )
        for actor in range(ACTORS)
    }
    running = tuple(
        RunningTask(
            f"running-{number}-{thread}", f"actor-{thread}", queues[number % len(queues)], 1, _now_ms() - 500
        )
        for thread in range(THREADS)
    )
    report = WorkerReport(
        worker_id=_worker(number),
        host=f"host-{number}",
        pid=1000 + number,
        at_ms=_now_ms(),
        booted_ms=booted_ms,
        next_s=10.0,
        queues=tuple(queues),
        threads=THREADS,
        running=running,
        running_count=THREADS,
        ended_ms=_now_ms(),
        actors=counters,
        rss_bytes=80_000_000,
        cpu_s=tick * 0.7,
    )
    return Record(broker.parts.topics.workers, encode_report(report), key=report.worker_id.encode())
