"""The verbs about messages: task show, tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from dramatiq.message import Message

from .. import NotAuthorized, WorkerState
from ..process import clock
from ..process.strict_json import dumps
from . import task_search, texts
from .dead_letter_copies import detail_lines, detail_of
from .dead_letter_rows import resolution_row
from .documents import MessageRow, ResolutionRow, RunningRow, TaskRow
from .exits import ExitCode
from .output import Answer, Table
from .session import Refused, Session, ending
from .task_life import EVENT_COLUMNS, STATUSES, Traces, decoded, event_rows
from .worker_rows import left_partitions, running_rows

#: The history that Kafka keeps by default.
HISTORY = "24h"
SCAN_LIMIT = 1_000_000


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Show one message.")
    group.command("show")(show)
    app.add_typer(group, name="task")
    app.command("tasks")(tasks)


def _since(text: str) -> datetime:
    return texts.parse_moment(text, datetime.fromtimestamp(clock.wall_ms() / 1000, UTC))


def show(
    context: typer.Context,
    message_id: Annotated[str, typer.Argument(help="The message.")],
    queue: Annotated[str | None, typer.Option(help="Search in this queue only.")] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="The part of the history to read.")] = HISTORY,
    is_deep: Annotated[
        bool, typer.Option("--log", help="Search the completed records of the queue's log, too.")
    ] = False,
    scan: Annotated[
        int, typer.Option(min=1, help="The number of records to read at most, by queue.")
    ] = SCAN_LIMIT,
) -> None:
    """Show the whole life of a message: its runs, errors, retries, dead letters, and where it is now.

    \b
    Example:
      dkb shop.tasks task show 7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51
    """
    with ending(context) as session:
        session.warn_of_groups(None if queue is None else [queue])
        traces = _trace(session, message_id, queue, _since(since), is_deep, scan)
        if traces.is_empty:
            reasons = "; ".join(traces.missing)
            raise Refused(
                f"Nothing is known of {message_id}" + (f": {reasons}." if reasons else "."),
                ExitCode.FORBIDDEN if traces.is_denied else ExitCode.FINDING,
            )
        session.output.show(_life(traces))
        for sentence in traces.missing:
            session.output.say(f"Incomplete: {sentence}.")


def _trace(
    session: Session, message_id: str, queue: str | None, since: datetime, is_deep: bool, scan: int
) -> Traces:
    broker, traces = session.broker, Traces(message_id)
    workers = _tolerating(traces, broker.workers) or []
    traces.running = [row for row in running_rows(workers) if row["message_id"] == message_id]
    now_ms = clock.wall_ms()
    traces.ends = {
        worker.worker_id: (now_ms - int(worker.silent_s * 1000), worker.reason)
        for worker in workers
        if worker.state is WorkerState.GONE
    }
    traces.left = left_partitions(workers)
    if (
        history := _tolerating(traces, lambda: broker.history(message_id=message_id, since=since))
    ) is not None:
        traces.history = list(history)
        traces.missing += history.missing
    names = session.queue_names(None if queue is None else [queue])
    traces.cancellations = broker.cancellations(message_id)
    if queue is None and (
        told := {row["queue"] for row in traces.running}
        | {event.queue_name for event in traces.history}
        | {one.queue_name for one in traces.cancellations if one.queue_name}
    ):
        names = [name for name in names if name in told]
    for name in names:
        traces.dead_letters += broker.dead_letters(name, message_id=message_id)
        traces.resolutions += _resolutions(session, name, message_id)
        pending = session.declared(name).delayed(name, limit=sys.maxsize)
        traces.delayed += [one for one in pending.messages if one.message_id == message_id]
        _find(session, traces, name, is_deep, scan)
    if traces.is_empty and not is_deep:
        # Its run may be complete and not in the history: successes beyond a rate are only counted.
        for name in names:
            _find(session, traces, name, True, scan)
    return traces


def _find(session: Session, traces: Traces, queue: str, is_deep: bool, scan: int) -> None:
    """Search the log of a queue, with a progress bar."""
    progress = session.output.progress(f"reading {queue}")
    try:
        found = session.broker.find(
            queue,
            message_id=traces.message_id,
            completed=is_deep,
            scan_limit=scan,
            on_progress=progress,
        )
    finally:
        progress.close()
    traces.records += found.records
    if not found.is_complete and not found.records:
        traces.missing.append(
            f"{found.scanned:,} of {found.total:,} records of {queue!r} were read; see --scan"
        )


def _tolerating(traces: Traces, question: Callable[[], Any]) -> Any:
    """The answer, or None without the right to it: the other places may still tell."""
    try:
        return question()
    except NotAuthorized as e:
        traces.missing.append(str(e).rstrip("."))
        traces.is_denied = True
        return None


def _resolutions(session: Session, queue: str, message_id: str) -> Iterator[ResolutionRow]:
    for one in session.broker.dead_letter_queue.history(queue):
        if message_id in one.dead_letters.values():
            yield {**resolution_row(queue, one), "message_ids": [message_id]}


def _life(traces: Traces) -> Answer:
    message = traces.message()
    rows, status = event_rows(traces), traces.status()
    told: list[Any] = [*traces.running, *traces.history, *traces.delayed, *traces.cancellations]
    actor = message.actor_name if message else _first(told, "actor", "actor_name")
    queue = message.queue_name if message else _first(told, "queue", "queue_name")
    dead = [detail_of(one) for one in traces.dead_letters]
    document = {
        "message_id": traces.message_id,
        "status": status,
        "actor": actor,
        "queue": queue,
        "message": _message_row(message),
        "events": rows,
        "running": traces.running,
        "dead_letters": dead,
        "missing": traces.missing,
    }
    name = actor or "The message"
    lines = [f"{name} {traces.message_id} of {queue!r}: {status}: {STATUSES.get(status, 'see the events')}."]
    if message is not None:
        shown = [*map(_json, message.args), *(f"{k}={_json(v)}" for k, v in message.kwargs.items())]
        lines.append(f"Called as {actor}({', '.join(shown)}).")
    for row in traces.running:
        if row["progress"] is not None:
            lines.append(f"Progress: {row['progress']:.0%} {row['progress_text'] or ''}".rstrip())
    for one in dead:
        lines += ["", *detail_lines(one)]
    return Answer("task show", document, [Table(EVENT_COLUMNS, rows)], lines)


def _first(told: list[Any], key: str, attribute: str) -> str | None:
    for one in told:
        value = one[key] if isinstance(one, dict) else getattr(one, attribute, None)
        if value:
            return str(value)
    return None


def _message_row(message: Message[Any] | None) -> MessageRow | None:
    if message is None:
        return None
    return MessageRow(args=list(message.args), kwargs=dict(message.kwargs), options=dict(message.options))


def _json(value: Any) -> str:
    return dumps(value)


def tasks(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Only messages of this actor.")] = None,
    queue: Annotated[
        list[str] | None, typer.Option(help="Only messages of this queue; may be repeated.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(task_search.STATUSES)}; may be repeated."),
    ] = None,
    error: Annotated[str | None, typer.Option(metavar="CLASS", help="The name of the error's class.")] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="The earliest time: 2h, or ISO 8601.")] = "1h",
    arg: Annotated[
        str | None,
        typer.Option(
            metavar="[NAME=]VALUE",
            help="An argument. The history has none: only messages in Kafka are found.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of rows, the latest ones.")] = 100,
    scan: Annotated[
        int, typer.Option(min=1, help="The number of records to read at most, by queue.")
    ] = SCAN_LIMIT,
) -> None:
    """Search for messages: in the history, among the running and the dead ones, and in the queues.

    Queues and delays are read with --arg, and with --status waiting, taken or delayed.

    \b
    Examples:
      dkb shop.tasks tasks --actor resize --error MemoryError --since 24h
      dkb shop.tasks tasks --arg order_id=42
    """
    with ending(context) as session:
        if unknown := set(status or ()) - set(task_search.STATUSES):
            raise Refused(f"{min(unknown)!r} is no status: they are {', '.join(task_search.STATUSES)}.")
        wanted = set(status or task_search.STATUSES)
        session.warn_of_groups(queue)
        search = _Search(session, session.queue_names(queue), actor, error, _since(since), arg, scan)
        rows = [
            row
            for row in task_search.latest(search.rows(wanted, is_narrow=bool(status)))
            if row["status"] in wanted
            and (actor is None or row["actor"] == actor)
            and (error is None or row["error_type"] == error)
            and (not queue or row["queue"] in queue)
        ]
        left_out = max(0, len(rows) - limit)
        shown = rows[left_out:]
        session.output.show(
            Answer(
                "tasks",
                {"tasks": shown, "count": len(rows), "missing": search.missing},
                [Table(task_search.TASK_COLUMNS, shown, empty="No message was found.")],
                [f"{left_out:,} earlier ones are left out; see --limit."] if left_out else [],
            )
        )
        for sentence in search.missing:
            session.output.say(f"Incomplete: {sentence}.")


class _Search:
    """One search.

    Attributes:
      missing: Sentences that say why messages may be missing.
    """

    def __init__(
        self,
        session: Session,
        names: list[str],
        actor: str | None,
        error: str | None,
        since: datetime,
        arg: str | None,
        scan: int,
    ) -> None:
        self._session = session
        self._names = names
        self._actor = actor
        self._error = error
        self._since = since
        self._scan = scan
        self._argument = None if arg is None else task_search.argument_condition(arg)
        self.missing: list[str] = []

    def rows(self, wanted: set[str], *, is_narrow: bool) -> Iterator[TaskRow]:
        """The rows of all places that can have a message of a wanted status.

        Parameters:
          is_narrow: Whether the operator has named statuses. Queues are read for them only.
        """
        reads_all = is_narrow or self._argument is not None
        if self._argument is None and wanted & {*task_search.PAST}:
            yield from self._past()
        if self._argument is None and "running" in wanted:
            yield from map(task_search.of_running, self._running())
        for name in self._names:
            if "dead" in wanted:
                yield from self._dead(name)
            if reads_all and self._error is None and wanted & {"waiting", "taken"}:
                yield from self._in_log(name)
            if reads_all and self._error is None and "delayed" in wanted:
                yield from self._delayed(name)

    def _is_wanted(self, message: Message[Any]) -> bool:
        return (self._actor is None or message.actor_name == self._actor) and (
            self._argument is None or self._argument(message)
        )

    def _past(self) -> Iterator[TaskRow]:
        # An error alone would leave out the later success of its message.
        found = self._session.broker.history(actor=self._actor, since=self._since, limit=100_000)
        self.missing += found.missing
        yield from map(task_search.of_event, found)

    def _running(self) -> list[RunningRow]:
        return running_rows(self._session.broker.workers())

    def _dead(self, name: str) -> Iterator[TaskRow]:
        for one in self._session.broker.dead_letters(name, since=self._since):
            if (one.message is None and self._argument is None) or (
                one.message is not None and self._is_wanted(one.message)
            ):
                yield task_search.of_dead_letter(one)

    def _in_log(self, name: str) -> Iterator[TaskRow]:
        progress = self._session.output.progress(f"reading {name}")
        try:
            found = self._session.broker.find(
                name, where=self._is_wanted, limit=10_000, scan_limit=self._scan, on_progress=progress
            )
        finally:
            progress.close()
        if not found.is_complete:
            self.missing.append(
                f"{found.scanned:,} of {found.total:,} records of {name!r} were read; see --scan"
            )
        yield from map(task_search.of_record, found.records)

    def _delayed(self, name: str) -> Iterator[TaskRow]:
        for one in self._session.declared(name).delayed(name, limit=self._scan).messages:
            message = decoded(one)
            if message is None:
                # An unreadable one may be the wanted one, unless a condition on its content excludes it.
                if self._actor is None and self._argument is None:
                    yield task_search.of_delayed(one, None)
            elif self._is_wanted(message):
                yield task_search.of_delayed(one, message)
