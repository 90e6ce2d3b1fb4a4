"""The commands: show, redrive, requeue, stats."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from dramatiq.errors import BrokerConnectionError
from typer.core import TyperGroup

from broker.console import texts
from broker.console.confirm import confirm_count
from broker.console.counts import COUNT_COLUMNS, counts
from broker.console.dead_letter_copies import detail_lines, detail_of
from broker.console.exits import ExitCode
from broker.console.output import Answer, Output, Table
from broker.console.session import Refused
from db.history import read_history
from db.judgements import read_judgement
from db.submissions import is_id, read_by_task_ids
from db.totals import read_totals
from submissions.console.rows import (
    DECISION_COLUMNS,
    FAILURE_COLUMNS,
    PAST_COLUMNS,
    PENDING_COLUMNS,
    PERIOD_COLUMNS,
    QUEUE_COLUMNS,
    STATUS_COLUMNS,
    QueueNumbers,
    decision_rows,
    failure_rows,
    judgement_row,
    past_row,
    pending_row,
    period_row,
    status_rows,
    submission_lines,
    submission_row,
)
from submissions.console.session import Session, configure_logging, ending
from submissions.message import QUEUE
from submissions.redrive import Redriven, Redriver, Selection
from submissions.requeuing import Requeued, Requeuer

#: The number of rows of a table.
SHOWN = 100
COMMON = ("--json", "--verbose")

Tasks = Annotated[
    list[int] | None, typer.Argument(metavar="[TASK_ID...]", help="The submissions, by their task ids.")
]
All = Annotated[bool, typer.Option("--all", help="All that match, instead of named ones.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do it. Without, it is a dry run.")]
Author = Annotated[str | None, typer.Option(help="The author; by default this user and host.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for the number of submissions.")]


class Commands(TyperGroup):
    """The group of the commands. The common options may follow the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        common = [argument for argument in args if argument in COMMON]
        return super().parse_args(ctx, common + [argument for argument in args if argument not in COMMON])


app = typer.Typer(
    name="submissions",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The exit codes are those of dkb: see docs/console.md.",
)


@app.callback()
def common_options(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what the clients do, to stderr.")] = False,
) -> None:
    """Shows submissions, and redrives or requeues them. The settings of the service name the servers.

    \b
    Examples:
      python -m submissions stats
      python -m submissions show 17 --json
    """
    configure_logging(verbose=verbose)
    context.obj = Output(as_json=as_json)


def _check(task_ids: list[int] | None, everything: bool) -> list[int] | None:
    """The named task ids, or None for all of them."""
    if bool(task_ids) == everything:
        raise Refused("Name the submissions by their task ids, or say --all.")
    for task_id in task_ids or ():
        if not is_id(task_id):
            raise Refused(f"{task_id} is no task id.")
    return task_ids or None


def _moment(text: str | None) -> datetime | None:
    return None if text is None else texts.parse_moment(text, datetime.now(UTC))


@app.command()
def show(
    context: typer.Context, task_id: Annotated[int, typer.Argument(metavar="TASK_ID", help="The submission.")]
) -> None:
    """Show a submission: its verdict, its earlier outcomes, and its dead letters.

    dkb task show has the runs of its message.

    \b
    Example:
      python -m submissions show 17
    """
    with ending(context) as session:
        _check([task_id], False)
        with session.database.transaction() as connection:
            found = read_by_task_ids(connection, [task_id]).get(task_id)
            judgement = read_judgement(connection, task_id)
            past_outcomes = read_history(connection, [task_id]).get(task_id, [])
        if found is None:
            raise Refused(f"There is no submission {task_id}.", ExitCode.FINDING)
        row = submission_row(found)
        judged = None if judgement is None else judgement_row(judgement)
        history = [past_row(past) for past in past_outcomes]
        missing: list[str] = []
        dead = []
        try:
            dead = [detail_of(one) for one in session.broker.dead_letters(QUEUE, message_id=found.message_id)]
        except BrokerConnectionError as error:
            missing.append(f"dead letters: {error}")
        lines = submission_lines(row, judged)
        for one in dead:
            lines += ["", *detail_lines(one)]
        session.output.show(
            Answer(
                "show",
                {
                    "submission": row,
                    "judgement": judged,
                    "history": history,
                    "dead_letters": dead,
                    "missing": missing,
                },
                [Table(PAST_COLUMNS, history)],
                lines,
            )
        )
        for sentence in missing:
            session.output.say(f"Incomplete: {sentence}")


@app.command()
def redrive(
    context: typer.Context,
    task_ids: Tasks = None,
    everything: All = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Failed since then: 2h, or an ISO 8601 time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Failed before then: 2h, or an ISO 8601 time.")
    ] = None,
    is_applied: Apply = False,
    is_confirmed: Yes = False,
    reason: Annotated[str, typer.Option(help="The reason, which the history keeps. --apply needs it.")] = "",
    by: Author = None,
) -> None:
    """Have failed submissions moderated again. A dry run, unless --apply is given.

    They are pending again, and the history keeps the failure. Their dead letters are discarded. An
    interrupted redrive can be repeated.

    \b
    Examples:
      python -m submissions redrive 17 18
      python -m submissions redrive --all --since 2h --apply --reason "the ads are back"
    """
    with ending(context) as session:
        if is_applied and not reason.strip():
            raise Refused("--apply needs --reason, which the history keeps.")
        selection = Selection(_check(task_ids, everything), _moment(since), _moment(until))
        redriver = Redriver(session.database, session.broker)
        done = redriver.redrive(selection)
        if is_applied:
            if done.task_ids and not is_confirmed:
                noun = texts.plural(len(done.task_ids), "submission")
                confirm_count(session.output, len(done.task_ids), f"redrive {noun}")
            # Those that were confirmed, and no later one. Dead letters of an interrupted redrive go as well.
            chosen = Selection(done.task_ids, selection.since, selection.until)
            done = redriver.redrive(chosen, reason=reason, by=by, dry_run=False)
        _show_redriven(session, done, task_ids or ())


def _show_redriven(session: Session, done: Redriven, asked_for: Any) -> None:
    count = texts.plural(len(done.task_ids), "submission")
    letters = texts.plural(done.dead_letters, "dead letter")
    lines = [
        f"Would redrive {count}, and discard {letters}."
        if done.dry_run
        else f"Redriven: {count}. Discarded: {letters}."
    ]
    not_failed = sorted(set(asked_for) - set(done.task_ids))
    if not_failed:
        lines.append(f"Not failed, and left as they are: {', '.join(map(str, not_failed))}.")
    document = {
        "dry_run": done.dry_run,
        "task_ids": done.task_ids,
        "errors": dict(done.errors),
        "dead_letters": done.dead_letters,
        "not_failed": not_failed,
    }
    session.output.show(
        Answer("redrive", document, [Table(COUNT_COLUMNS["error"], counts(done.errors))], lines)
    )
    _say_dry_run(session, done.task_ids if done.dry_run else ())


@app.command()
def requeue(
    context: typer.Context,
    task_ids: Tasks = None,
    everything: All = False,
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="Only submissions of that age.")
    ] = "10m",
    is_applied: Apply = False,
    is_confirmed: Yes = False,
    by: Author = None,
) -> None:
    """Publish pending submissions again whose messages Kafka has lost. A dry run, unless --apply is given.

    A deleted topic, a purge or an unclean election loses messages. The queue, the delays and the dead letters
    are read, and submissions whose messages are there are left alone.

    \b
    Example:
      python -m submissions requeue --all --apply
    """
    with ending(context) as session:
        chosen = _check(task_ids, everything)
        older_than_s = texts.parse_duration(older_than).total_seconds()
        requeuer = Requeuer(session.database, session.broker)
        progress = session.output.progress(f"reading {QUEUE}")
        try:
            done = requeuer.requeue(chosen, older_than_s=older_than_s, on_progress=progress)
        finally:
            progress.close()
        if is_applied and done.lost:
            if not is_confirmed:
                noun = texts.plural(len(done.lost), "submission")
                confirm_count(session.output, len(done.lost), f"publish {noun} again")
            lost, left = [row.task_id for row in done.lost], done.left
            done = requeuer.requeue(lost, older_than_s=older_than_s, by=by, dry_run=False)
            done.left += left
        _show_requeued(session, done, is_applied=is_applied)


def _show_requeued(session: Session, done: Requeued, *, is_applied: bool) -> None:
    rows = [pending_row(row) for row in done.lost]
    count = texts.plural(len(done.task_ids if is_applied else done.lost), "submission")
    line = f"Due to be published again: {count}." if is_applied else f"Would publish {count} again."
    document = {
        "dry_run": not is_applied,
        "lost": rows,
        "task_ids": done.task_ids,
        "left": dict(done.left),
    }
    tables = [
        Table(PENDING_COLUMNS, rows[:SHOWN], title="Without a message in Kafka"),
        Table(COUNT_COLUMNS["skipped"], counts(done.left), title="Left alone"),
    ]
    session.output.show(Answer("requeue", document, tables, [line]))
    _say_dry_run(session, () if is_applied else rows)


def _say_dry_run(session: Session, changes: Any) -> None:
    if changes:
        session.output.say("A dry run: nothing was changed. --apply does it.")


@app.command()
def stats(
    context: typer.Context,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="The begin of the period: 24h, or an ISO 8601 time.")
    ] = "24h",
) -> None:
    """Show the numbers of submissions by status, error and decision, and the state of their queue.

    \b
    Example:
      python -m submissions stats --since 1h
    """
    with ending(context) as session:
        begin = _moment(since)
        assert begin is not None
        with session.database.transaction() as connection:
            found = read_totals(connection, since=begin)
        statuses, period = status_rows(found), period_row(found, begin)
        failures, decisions = failure_rows(found), decision_rows(found)
        missing: list[str] = []
        queue = _queue_numbers(session, missing)
        document: Mapping[str, Any] = {
            "statuses": statuses,
            "period": period,
            "errors": failures,
            "decisions": decisions,
            "queue": queue,
            "missing": missing,
        }
        tables = [
            Table(STATUS_COLUMNS, statuses, title="Submissions", empty="There is no submission."),
            Table(PERIOD_COLUMNS, [period], title=f"Since {texts.moment(period['since_ms'])}"),
            Table(DECISION_COLUMNS, decisions, title="Decisions since then"),
            Table(FAILURE_COLUMNS, failures, title="Failed, by error"),
            Table(QUEUE_COLUMNS, [] if queue is None else [queue], title="Their queue in Kafka"),
        ]
        session.output.show(Answer("stats", document, tables))
        for sentence in missing:
            session.output.say(f"Incomplete: {sentence}")


def _queue_numbers(session: Session, missing: list[str]) -> QueueNumbers | None:
    try:
        (state,) = session.broker.queues(QUEUE)
    except BrokerConnectionError as error:
        missing.append(f"the queue: {error}")
        return None
    return QueueNumbers(
        waiting=state.waiting + state.in_lanes,
        running=state.incomplete,
        delayed=state.delayed,
        dead=state.dead,
    )
