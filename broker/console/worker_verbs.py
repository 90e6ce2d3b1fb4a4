"""The verbs about workers: workers, actors, top."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from .. import NotAuthorized, PauseResult, WorkerInfo, WorkerState
from ..process import clock
from . import texts
from .documents import RunningRow
from .live import watch
from .output import Answer, Table
from .pauses import disobedience
from .session import ending
from .worker_rows import (
    ACTOR_COLUMNS,
    RUNNING_COLUMNS,
    WORKER_COLUMNS,
    actor_rows,
    running_rows,
    worker_rows,
)

NO_WORKER = "No worker has reported within that time."

Within = Annotated[
    str, typer.Option(metavar="DURATION", help="Workers that were silent or gone for longer are left out.")
]


def register(app: typer.Typer) -> None:
    app.command("workers")(workers)
    app.command("actors")(actors)
    app.command("top")(top)


def workers(
    context: typer.Context,
    state: Annotated[
        list[WorkerState] | None, typer.Option(help="Only workers in that state; may be repeated.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Only workers of this queue.")] = None,
    within: Within = "1h",
) -> None:
    """List the workers, each with its state and the reason: busy, idle, stuck, silent or gone.

    Nobody asks a worker: its reports, its goodbye or death note, and the members of its groups decide.

    \b
    Examples:
      dkb shop.tasks workers
      dkb shop.tasks workers --state stuck --state silent
    """
    with ending(context) as session:
        found = session.broker.workers(within_s=texts.parse_duration(within).total_seconds())
        try:
            pauses: Mapping[str, PauseResult] = session.broker.pauses()
        except NotAuthorized as e:
            session.output.say(f"Incomplete: whether the workers obey pauses is not known: {e}")
            pauses = {}
        rows = [
            row
            for row in worker_rows(found, pauses)
            if (not state or row["state"] in state) and (queue is None or queue in row["queues"])
        ]
        session.output.show(
            Answer(
                "workers",
                {"workers": rows},
                [Table(WORKER_COLUMNS, rows, empty=NO_WORKER)],
                list(_disobedience(found, pauses)),
            )
        )


def _disobedience(workers: Iterable[WorkerInfo], pauses: Mapping[str, PauseResult]) -> Iterator[str]:
    """Sentences about members of the groups of paused queues that are no row, as they are in no report."""
    reported = {worker.worker_id for worker in workers}
    for name, pause in sorted(pauses.items()):
        if not reported.issuperset(pause.unknown):
            yield disobedience(name, pause)


def actors(context: typer.Context, within: Within = "1h") -> None:
    """List the actors: their runs, errors and durations since their workers' boots.

    \b
    Example:
      dkb shop.tasks actors
    """
    with ending(context) as session:
        found = session.broker.workers(within_s=texts.parse_duration(within).total_seconds())
        rows = actor_rows(found, session.broker.actors)
        session.output.show(Answer("actors", {"actors": rows}, [Table(ACTOR_COLUMNS, rows, empty=NO_WORKER)]))


class Sort(StrEnum):
    """The order of ``top``: the longest run first, or by a name."""

    AGE = "age"
    ACTOR = "actor"
    QUEUE = "queue"
    WORKER = "worker"


def top(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only tasks of this actor.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only tasks of this queue.")] = None,
    worker: Annotated[str | None, typer.Option(help="Only workers whose id contains this.")] = None,
    over: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Only tasks that run for longer.")
    ] = None,
    sort: Annotated[Sort, typer.Option(help="The order.")] = Sort.AGE,
    limit: Annotated[int, typer.Option(min=1, help="The number of rows.")] = 50,
    interval: Annotated[
        float, typer.Option(min=0.2, metavar="SECONDS", help="The interval of the view.")
    ] = 2.0,
    is_single: Annotated[
        bool, typer.Option("--once", help="Print it once; the default without a terminal.")
    ] = False,
) -> None:
    """Show the running tasks: which message runs where, and for how long.

    \b
    Examples:
      dkb shop.tasks top
      dkb shop.tasks top --once --actor resize --over 5m
    """
    with ending(context) as session:
        over_s = 0.0 if over is None else texts.parse_duration(over).total_seconds()

        def is_wanted(row: RunningRow) -> bool:
            return (
                (actor is None or row["actor"] == actor)
                and (queue is None or row["queue"] == queue)
                and (worker is None or worker in row["worker"])
                and row["for_s"] >= over_s
            )

        def answer() -> Answer:
            rows = [row for row in running_rows(session.broker.workers()) if is_wanted(row)]
            rows.sort(key=lambda row: -row["for_s"])
            if sort is not Sort.AGE:
                rows.sort(key=lambda row: row[sort.value])  # type: ignore[literal-required]
            left_out = len(rows) - limit
            return Answer(
                "top",
                {"at_ms": clock.wall_ms(), "running": rows[:limit], "count": len(rows)},
                [Table(RUNNING_COLUMNS, rows[:limit], empty="No task runs.")],
                [f"{left_out:,} more"] if left_out > 0 else [],
            )

        if is_single or not session.output.is_terminal:
            session.output.show(answer())
        else:
            watch(session.output, answer, interval)
