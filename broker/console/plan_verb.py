"""The verb plan."""

from __future__ import annotations

from typing import Annotated

import typer

from . import texts
from .capacity import Load, plan, time_to_drain_s
from .documents import SizeRow
from .output import Answer, Column, Table
from .session import Refused, ending

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


def plan_queue(
    context: typer.Context,
    rate: Annotated[
        float, typer.Option(min=0.001, metavar="PER_SECOND", help="Messages a second, at the peak.")
    ],
    task_ms: Annotated[float, typer.Option(min=0.001, help="The duration of a task.")],
    cpu_ms: Annotated[
        float, typer.Option(min=0.0, help="Its processor time in Python; tasks that wait have little.")
    ] = 0.0,
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
            min=0.0, metavar="PER_SECOND", help="Messages that arrive meanwhile; by default half the rate."
        ),
    ] = None,
) -> None:
    """Compute threads, processes, partitions and disk for a load, with the reasons. It needs no Kafka.

    \b
    Example:
      dkb plan --rate 5000 --task-ms 20 --cpu-ms 0.2
    """
    with ending(context) as session:
        kept_s = texts.parse_duration(retention).total_seconds()
        if arriving is not None and backlog is None:
            raise Refused("--arriving needs --backlog.")
        load = Load(rate, task_ms, cpu_ms, threads, utilization, message_bytes, kept_s, replication)
        rows = plan(load)
        drain_s, lines = None, []
        if backlog is not None:
            arrives = rate / 2 if arriving is None else arriving
            drain_s = time_to_drain_s(backlog, arrives, load)
            text = "is never worked off" if drain_s is None else f"is worked off in {texts.age(drain_s)}"
            lines = [f"A backlog of {backlog:,} {text} while {arrives:g}/s arrive."]
        session.output.show(
            Answer(
                "plan",
                {"sizes": rows, "backlog": backlog, "drain_s": drain_s},
                [Table(SIZE_COLUMNS, rows)],
                lines,
            )
        )
