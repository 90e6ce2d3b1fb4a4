"""The verb plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from .. import Arrivals, WorkerState
from ..process import clock
from . import texts
from .capacity import Load, drain_time_s, plan, time_to_drain_s
from .documents import MeasuredRow, SizeRow
from .exits import ExitCode
from .output import Answer, Column, Table
from .session import Refused, Session, ending

#: The events of the history that are read for the mean duration of a run.
MAX_EVENTS = 100_000
#: A queue without arrivals, and a run that takes no time, are planned as these.
LEAST_RATE = 0.001
LEAST_TASK_MS = 0.001
#: The highest rate and the longest duration that are planned. Sizes of an infinite one have no number.
MAX = 1e9

SIZE_COLUMNS = (
    Column("SIZE", lambda r: r["size"]),
    Column("VALUE", lambda r: value_text(r), is_number=True),
    Column("WHY", lambda r: r["why"]),
)


def register(app: typer.Typer) -> None:
    app.command("plan")(plan_queue)


def value_text(row: SizeRow) -> str:
    """The value with its unit."""
    if row["size"].endswith("_s"):
        return texts.age(row["value"])
    if row["size"] == "disk_bytes":
        return f"{row['value'] / 1024**3:,.1f} GiB"
    return f"{row['value']:,g}"


@dataclass(frozen=True, slots=True)
class Measured:
    """The load of a queue, as its log, the history and the reports of its workers have it.

    Attributes:
      task_s: The mean duration of a run; None when the history has none.
      runs: The number of runs in that mean.
      threads: The threads of the living workers of the queue. They may serve other queues, too.
      backlog: The messages that wait or run.
    """

    arrivals: Arrivals
    task_s: float | None
    runs: int
    threads: int
    backlog: int

    def row(self) -> MeasuredRow:
        return MeasuredRow(
            since_ms=round(self.arrivals.since.timestamp() * 1000),
            arrivals=self.arrivals.count,
            per_s=self.arrivals.per_s,
            peak_per_s=self.arrivals.peak_per_s,
            runs=self.runs,
            task_s=self.task_s,
            threads=self.threads,
            backlog=self.backlog,
        )


def plan_queue(
    context: typer.Context,
    queue: Annotated[
        str | None,
        typer.Argument(help="Measure the load of this queue: arrivals, run times, backlog and threads."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=MAX, metavar="PER_SECOND", help="Messages a second, at the peak."),
    ] = None,
    task_ms: Annotated[float | None, typer.Option(min=0.001, max=MAX, help="The duration of a task.")] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="The period that is measured: 1h, or ISO 8601.")
    ] = "1h",
    cpu_ms: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=MAX,
            help="Its processor time in Python; tasks that wait have little. None is assumed without it.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="The threads of a process (dramatiq --threads).")] = 8,
    utilization: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="The share that is to be busy.")
    ] = 0.7,
    message_bytes: Annotated[int, typer.Option(min=0, help="The bytes of the arguments.")] = 500,
    retention: Annotated[str, typer.Option(metavar="DURATION", help="The retention of the log.")] = "7d",
    replication: Annotated[int, typer.Option(min=1, help="The copies of the log.")] = 3,
    backlog: Annotated[
        int | None, typer.Option(min=0, help="Messages that wait already: the time to work them off.")
    ] = None,
    arriving: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="PER_SECOND",
            help="Messages that arrive meanwhile; by default the measured mean, or half the rate.",
        ),
    ] = None,
) -> None:
    """Compute threads, processes, partitions and disk for a load, with the reasons.

    With a QUEUE the load is that of its last hour, and the time to drain is computed for the workers of
    now, too. With --rate and --task-ms it needs no Kafka.

    \b
    Examples:
      dkb plan --rate 5000 --task-ms 20 --cpu-ms 0.2
      dkb shop.tasks plan mail --since 3h
    """
    with ending(context) as session:
        kept_s = texts.parse_duration(retention).total_seconds()
        measured = None if queue is None else _measure(session, queue, since)
        if measured is not None:
            rate = measured.arrivals.peak_per_s if rate is None else rate
            task_ms = _task_ms(measured, queue) if task_ms is None else task_ms
            backlog = measured.backlog if backlog is None else backlog
            arriving = measured.arrivals.per_s if arriving is None else arriving
        if rate is None or task_ms is None:
            raise Refused("Name a queue, whose load is measured, or give --rate and --task-ms.")
        if arriving is not None and backlog is None:
            raise Refused("--arriving needs --backlog.")
        load = Load(
            max(rate, LEAST_RATE), task_ms, cpu_ms, threads, utilization, message_bytes, kept_s, replication
        )
        rows = plan(load)
        arrives = load.rate / 2 if arriving is None else arriving
        drain_s = None if backlog is None else time_to_drain_s(backlog, arrives, load)
        now_s = None
        lines = [] if measured is None else list(_measured_lines(measured))
        if backlog:
            lines.append(_drain_line("The planned threads", backlog, arrives, drain_s))
        if measured is not None and backlog is not None:
            now_s = drain_time_s(backlog, arrives, measured.threads * 1000 / task_ms)
        if measured is not None and backlog:
            living = f"The {texts.plural(measured.threads, 'thread')} of the living workers"
            lines.append(_drain_line(living, backlog, arrives, now_s))
        document = {
            "sizes": rows,
            "backlog": backlog,
            "drain_s": drain_s,
            "queue": queue,
            "measured": None if measured is None else measured.row(),
            "drain_now_s": now_s,
        }
        session.output.show(Answer("plan", document, [Table(SIZE_COLUMNS, rows)], lines))


def _measure(session: Session, queue: str, since: str) -> Measured:
    session.queue_names([queue])
    session.warn_of_groups([queue])
    broker = session.broker
    begin = texts.parse_moment(since, datetime.fromtimestamp(clock.wall_ms() / 1000, UTC))
    runs = [
        event.run_s
        for event in broker.history(since=begin, limit=MAX_EVENTS)
        if event.queue_name == queue and event.run_s is not None
    ]
    (state,) = broker.queues(queue)
    threads = sum(
        worker.report.threads
        for worker in broker.workers()
        if worker.state is not WorkerState.GONE and worker.report and queue in worker.report.queues
    )
    return Measured(
        broker.arrivals(queue, since=begin),
        sum(runs) / len(runs) if runs else None,
        len(runs),
        threads,
        state.lag,
    )


def _task_ms(measured: Measured, queue: str | None) -> float:
    if measured.task_s is None:
        raise Refused(
            f"The history has no run of {queue!r} in that period: give --task-ms.", ExitCode.FINDING
        )
    return max(measured.task_s * 1000, LEAST_TASK_MS)


def _measured_lines(measured: Measured) -> Iterator[str]:
    arrivals = measured.arrivals
    yield (
        f"Since {texts.moment(round(arrivals.since.timestamp() * 1000))}: "
        f"{texts.plural(arrivals.count, 'arrival')}, {texts.rate(arrivals.per_s)}/s on average and "
        f"{texts.rate(arrivals.peak_per_s)}/s in the busiest minute."
    )
    if measured.task_s is not None:
        yield f"{texts.plural(measured.runs, 'recorded run')} took {texts.short(measured.task_s)} on average."


def _drain_line(who: str, backlog: int, arrives: float, drain_s: float | None) -> str:
    does = "never work off" if drain_s is None else "work off"
    time = "" if drain_s is None else f" in {texts.age(drain_s)}"
    return f"{who} {does} a backlog of {backlog:,}{time} while {texts.rate(arrives)}/s arrive."
