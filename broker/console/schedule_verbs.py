"""The verbs about schedules: schedules list, pause, resume, run, delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from .. import Schedule
from ..process import clock
from . import texts
from .confirm import confirm_count
from .documents import ScheduleRow
from .exits import ExitCode
from .output import Answer, Column, Table
from .session import Refused, Session, ending

NO_SCHEDULE = "There is no schedule."

Name = Annotated[str, typer.Argument(help="The schedule.")]
By = Annotated[str | None, typer.Option(help="The author; by default this user and host.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show and control schedules.")
    group.command("list")(list_schedules)
    group.command("pause")(pause)
    group.command("resume")(resume)
    group.command("run")(run)
    group.command("delete")(delete)
    app.add_typer(group, name="schedules")


def schedule_row(schedule: Schedule) -> ScheduleRow:
    return ScheduleRow(
        schedule=schedule.name,
        actor=schedule.actor_name,
        queue=schedule.queue_name,
        timing=str(schedule.timing),
        args=list(schedule.args),
        kwargs=dict(schedule.kwargs),
        source=schedule.source,
        by=schedule.by,
        next_ms=_ms(schedule.next_run),
        last_ms=_ms(schedule.last_run),
        missed=schedule.missed,
        paused=schedule.is_paused,
        paused_by=schedule.paused_by or None,
        pause_reason=schedule.pause_reason or None,
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _next(row: ScheduleRow) -> str:
    if row["paused"]:
        return "paused"
    if row["next_ms"] is not None and row["next_ms"] < clock.wall_ms():
        return f"overdue since {texts.moment(row['next_ms'])}"
    return texts.moment(row["next_ms"])


SCHEDULE_COLUMNS: Sequence[Column] = (
    Column("SCHEDULE", lambda r: r["schedule"]),
    Column("TIMES", lambda r: r["timing"]),
    Column("ACTOR", lambda r: r["actor"]),
    Column("QUEUE", lambda r: r["queue"]),
    Column("NEXT", _next, style=lambda r: "yellow" if _next(r).startswith("overdue") else ""),
    Column("LAST", lambda r: texts.moment(r["last_ms"])),
    Column("MISSED", lambda r: texts.number(r["missed"]), is_number=True),
    Column("SOURCE", lambda r: r["source"]),
    Column("BY", lambda r: r["by"]),
)


def _existing(session: Session, name: str) -> Schedule:
    """The schedule of that name.

    Raises:
      Refused: When no schedule has that name.
    """
    found = session.broker.schedules.get(name)
    if found is None:
        there = ", ".join(schedule.name for schedule in session.broker.schedules.list()) or "none"
        raise Refused(f"There is no schedule {name!r}; there are: {there}.", ExitCode.FINDING)
    return found


def list_schedules(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only schedules of this actor.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only schedules of this queue.")] = None,
) -> None:
    """List the schedules with their times, the next and the last run, and how often one was missed.

    A next run in the past says that no worker enqueues schedules now.

    \b
    Example:
      dkb shop.tasks schedules list
    """
    with ending(context) as session:
        rows = [
            schedule_row(one)
            for one in session.broker.schedules.list()
            if (actor is None or one.actor_name == actor) and (queue is None or one.queue_name == queue)
        ]
        lines = [
            f"{row['schedule']} is paused by {row['paused_by']}: {row['pause_reason'] or texts.NONE}"
            for row in rows
            if row["paused"]
        ]
        session.output.show(
            Answer(
                "schedules list",
                {"schedules": rows},
                [Table(SCHEDULE_COLUMNS, rows, empty=NO_SCHEDULE)],
                lines,
            )
        )


def pause(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why. It is needed.")],
    by: By = None,
) -> None:
    """Let a schedule enqueue nothing until resume. It outlives workers and new declarations.

    \b
    Example:
      dkb shop.tasks schedules pause morning_report --reason "the numbers are wrong"
    """
    with ending(context) as session:
        _existing(session, name)
        session.broker.schedules.pause(name, reason=reason, by=by)
        _show_changed(session, "pause", name, f"The schedule {name!r} is paused.")


def resume(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    by: By = None,
) -> None:
    """End the pause of a schedule. The occurrences of the pause do not run.

    \b
    Example:
      dkb shop.tasks schedules resume morning_report
    """
    with ending(context) as session:
        was_paused = _existing(session, name).is_paused
        session.broker.schedules.resume(name, reason=reason, by=by)
        text = f"The schedule {name!r} is resumed." if was_paused else f"{name!r} was not paused."
        _show_changed(session, "resume", name, text)


def _show_changed(session: Session, verb: str, name: str, text: str) -> None:
    row = schedule_row(_existing(session, name))
    session.output.show(Answer(f"schedules {verb}", {"schedule": row}, lines=[text]))


def run(context: typer.Context, name: Name) -> None:
    """Enqueue a message of a schedule now, beside its occurrences, and print its id. A paused one runs, too.

    \b
    Example:
      dkb shop.tasks schedules run morning_report
    """
    with ending(context) as session:
        schedule = _existing(session, name)
        # The message needs its queue, whose code this process may not have.
        session.declared(schedule.queue_name)
        sent = session.broker.schedules.run_now(name)
        document = {
            "schedule": name,
            "message_id": sent.message_id,
            "actor": sent.actor_name,
            "queue": sent.queue_name,
        }
        session.output.show(Answer("schedules run", document, lines=[str(sent.message_id)]))


def delete(
    context: typer.Context,
    name: Name,
    is_confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask for the number.")] = False,
) -> None:
    """Delete a schedule. One that code declares comes back with the next start of a worker: pause it instead.

    \b
    Example:
      dkb shop.tasks schedules delete "digest of user 7"
    """
    with ending(context) as session:
        row = schedule_row(_existing(session, name))
        if not is_confirmed:
            confirm_count(session.output, 1, f"delete the schedule {name!r}")
        session.broker.schedules.delete(name)
        again = " Code declares it: the next start of a worker writes it again." * (row["source"] == "code")
        text = f"The schedule {name!r} is deleted.{again}"
        session.output.show(Answer("schedules delete", {"schedule": row}, lines=[text]))
