"""The verbs that send, hasten and drop messages: enqueue, retry, cancel, abort, purge."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from dramatiq.message import Message

from .. import (
    AbortOutcome,
    EnqueueFailed,
    EventKind,
    HistoryEvent,
    NotAuthorized,
    Outcome,
    TopicMisconfigured,
)
from ..process import clock
from . import texts
from .confirm import confirm_count
from .documents import AbortRow, RetryRow
from .exits import ExitCode
from .output import Answer, Column, Table
from .queue_rows import Served
from .session import Refused, Session, ending

#: The interval in which the history is read while the caller waits for an abort.
ABORT_POLL_S = 0.5


def register(app: typer.Typer) -> None:
    app.command("enqueue")(enqueue)
    app.command("cancel")(cancel)
    app.command("retry")(retry)
    app.command("abort")(abort)
    app.command("purge")(purge)


def enqueue(
    context: typer.Context,
    actor: Annotated[str, typer.Argument(help="The actor.")],
    arguments: Annotated[
        str,
        typer.Argument(metavar="[ARGS]", help="A JSON list of arguments, or an object of keyword arguments."),
    ] = "[]",
    kwargs: Annotated[str, typer.Option(metavar="JSON", help="Keyword arguments, beside a list.")] = "{}",
    queue: Annotated[
        str | None,
        typer.Option(help="The queue; by default the actor's, or default without the application."),
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Run it after that time: 90s, 2h.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Its partition key.")] = None,
) -> None:
    """Send a message to an actor, and print its id.

    \b
    Examples:
      dkb shop.tasks enqueue resize '["a.png", 200]' --delay 15m
      dkb --bootstrap kafka:9092 --group shop enqueue resize '{"path": "a.png"}' --queue images
    """
    with ending(context) as session:
        args, named = _arguments(arguments, kwargs)
        options = {} if key is None else {"partition_key": key}
        message = message_to(session, actor, args, named, queue, options)
        delay_ms = None if delay is None else int(texts.parse_duration(delay).total_seconds() * 1000)
        try:
            sent = session.broker.enqueue(message, delay=delay_ms)
        except EnqueueFailed as e:
            raise _refused_for_certain(e) or e from e
        session.output.show(
            Answer(
                "enqueue",
                {
                    "message_id": sent.message_id,
                    "actor": sent.actor_name,
                    "queue": sent.queue_name,
                    "delay_s": None if delay_ms is None else delay_ms / 1000,
                },
                lines=[sent.message_id],
            )
        )


def _refused_for_certain(failed: EnqueueFailed) -> Exception | None:
    """The error of a message that Kafka has certainly not taken; None when it may have."""
    (reason,) = failed.failures.values()
    if isinstance(reason, NotAuthorized | TopicMisconfigured):
        return reason
    return Refused(str(failed)) if failed.is_final else None


def _arguments(arguments: str, kwargs: str) -> tuple[list[Any], dict[str, Any]]:
    positional, named = _json(arguments, "ARGS"), _json(kwargs, "--kwargs")
    if not isinstance(named, dict):
        raise Refused("--kwargs is no JSON object.")
    if isinstance(positional, dict):
        if twice := sorted(positional.keys() & named.keys()):
            raise Refused(f"ARGS and --kwargs both have {twice[0]!r}: keep one of them.")
        return [], {**positional, **named}
    if not isinstance(positional, list):
        raise Refused('ARGS is neither a JSON list nor a JSON object: write ["a.png"] for one argument.')
    return positional, named


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise Refused(f"{name} is not JSON: {e}") from e


def message_to(
    session: Session,
    actor: str,
    args: list[Any],
    kwargs: dict[str, Any],
    queue: str | None,
    options: dict[str, Any],
) -> Message[Any]:
    """The message. The application's actor adds its own options."""
    broker = session.broker
    if actor in broker.actors:
        message = broker.actors[actor].message_with_options(args=tuple(args), kwargs=kwargs, **options)
        return message if queue is None else message.copy(queue_name=queue)
    if broker.actors:
        raise Refused(f"The application has no actor {actor!r}: it has {', '.join(sorted(broker.actors))}.")
    # Without the application nobody knows whether its workers have the actor.
    name = queue or "default"
    try:
        session.declared(name)
    except Refused as e:
        if queue is not None:
            raise
        raise Refused(f"{e} Name the queue of {actor!r} with --queue.", e.code) from e
    return Message(queue_name=name, actor_name=actor, args=tuple(args), kwargs=kwargs, options=options)


def cancel(
    context: typer.Context,
    message_id: Annotated[str, typer.Argument(help="The message.")],
    wait: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="The time to wait for the decision of a worker.")
    ] = 10.0,
    reason: Annotated[str, typer.Option(help="Why, for task show.")] = "",
    by: Annotated[str | None, typer.Option(help="Who; by default this user and host.")] = None,
) -> None:
    """Drop a delayed message, or one that waits for its retry. A worker must run: it decides.

    Exit code 1: it has run or is about to, or nobody knows it. Exit code 5: undecided, the request stands.

    \b
    Example:
      dkb shop.tasks cancel 7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51
    """
    with ending(context) as session:
        outcome = session.broker.cancel(message_id, timeout_s=wait, reason=reason, by=by)
        told = {
            Outcome.CANCELLED: "is cancelled",
            Outcome.TOO_LATE: "was forwarded to its queue before: it is too late to cancel it",
            Outcome.UNKNOWN: "is not among the delayed messages",
        }
        session.output.show(
            Answer(
                "cancel",
                {"message_id": message_id, "outcome": outcome.value},
                lines=[f"{message_id} {told.get(outcome, outcome.value)}."],
            )
        )
        if outcome is not Outcome.CANCELLED:
            raise typer.Exit(ExitCode.FINDING)


def abort(
    context: typer.Context,
    message_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The messages.")],
    reason: Annotated[str, typer.Option(help="Why, for the log of the worker. It is needed.")],
    by: Annotated[str | None, typer.Option(help="Who; by default this user and host.")] = None,
    expires: Annotated[
        str, typer.Option(metavar="DURATION", help="The time for which the abort stands.")
    ] = "7d",
    wait: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="The time to wait until workers say so.")
    ] = 10.0,
) -> None:
    """Let messages not run, wherever they are: on their queue, delayed, or running. Nothing is retried.

    A running task is interrupted. Exit code 1: one had ended before, by the history of the last day; its
    abort stands, should it run again. Exit code 5: an abort stands, and no worker has said so yet, as for a
    message that is delayed or unknown.

    \b
    Example:
      dkb shop.tasks abort 7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51 --reason "the file is too large"
    """
    with ending(context) as session:
        began = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)
        ends = texts.parse_end(expires, began)
        wanted = list(dict.fromkeys(message_ids))
        for message_id in wanted:
            session.broker.abort(message_id, reason=reason, by=by, expires_at=ends)
        found = _ends_of(session, wanted, began, clock.monotonic_s() + wait)
        rows = [_abort_row(one, found.get(one)) for one in wanted]
        session.output.show(Answer("abort", {"messages": rows}, [Table(RETRY_COLUMNS, rows)]))
        outcomes = {row["outcome"] for row in rows}
        if AbortOutcome.RECORDED.value in outcomes:
            raise typer.Exit(ExitCode.UNDECIDED)
        if HAD_ENDED in outcomes:
            raise typer.Exit(ExitCode.FINDING)


def _ends_of(
    session: Session, wanted: list[str], began: datetime, deadline_s: float
) -> dict[str, HistoryEvent]:
    """The ends of messages, as the history has them by the deadline: those before the abort, and after it."""
    found = _ends(session, wanted, began - ENDS_KNOWN)
    while len(found) < len(wanted) and clock.monotonic_s() < deadline_s:
        clock.sleep(ABORT_POLL_S)
        found |= _ends(session, wanted, began - CLOCK_SKEW)
    return found


def _ends(session: Session, wanted: list[str], since: datetime) -> dict[str, HistoryEvent]:
    """The last event of each message whose run has ended for good."""
    only = wanted[0] if len(wanted) == 1 else None
    events = session.broker.history(message_id=only, since=since, limit=100_000)
    last = {event.message_id: event for event in events if event.message_id in wanted}
    return {
        message_id: event
        for message_id, event in last.items()
        if event.kind in ENDS and not _is_redriven(session, event)
    }


def _is_redriven(session: Session, event: HistoryEvent) -> bool:
    """Whether a dead letter of the history was put back on its queue since."""
    return event.kind == EventKind.DEAD_LETTERED and any(
        one.action.value == "redrive"
        and one.timestamp >= event.at_ms - CLOCK_SKEW / timedelta(milliseconds=1)
        and event.message_id in one.dead_letters.values()
        for one in session.broker.dead_letter_queue.history(event.queue_name)
    )


def _abort_row(message_id: str, end: HistoryEvent | None) -> AbortRow:
    if end is None:
        outcome, meaning = AbortOutcome.RECORDED.value, "the abort stands, and no worker has said so yet"
    elif end.kind == EventKind.ABORTED:
        outcome, meaning = AbortOutcome.ABORTED.value, "it did not run, or its run was ended"
    else:
        outcome = HAD_ENDED
        meaning = (
            f"it had ended before: {end.kind} at {texts.moment(end.at_ms)}; the abort stands, should it run "
            "again"
        )
    return AbortRow(message_id=message_id, outcome=outcome, meaning=meaning)


#: The outcome of an abort that comes after the end of its message.
HAD_ENDED = "ended"
#: The events after which a message does not run again by itself.
ENDS = frozenset(
    {
        EventKind.SUCCEEDED,
        EventKind.FAILED,
        EventKind.SKIPPED,
        EventKind.ABORTED,
        EventKind.EXPIRED,
        EventKind.DUPLICATE,
        EventKind.DEAD_LETTERED,
    }
)
#: The history that Kafka keeps by default.
ENDS_KNOWN = timedelta(days=1)
#: The clock of a worker may be behind that of an operator by so much.
CLOCK_SKEW = timedelta(minutes=1)

RETRIED = {
    Outcome.FORWARDED: "is on its queue",
    Outcome.TOO_LATE: "was forwarded to its queue before",
    Outcome.UNKNOWN: "is not among the delayed messages",
    Outcome.CANCELLED: "was dropped meanwhile",
    None: "is about to be forwarded: no worker has done it yet, and the request stands",
}

RETRY_COLUMNS = (
    Column("MESSAGE", lambda r: r["message_id"], is_id=True),
    Column("OUTCOME", lambda r: r["outcome"]),
    Column("MEANING", lambda r: r["meaning"]),
)


def retry(
    context: typer.Context,
    message_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The messages.")],
    wait: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="The time to wait for a worker.")
    ] = 10.0,
) -> None:
    """Run messages now that are delayed or wait for their retry. A worker must run: it forwards them.

    A dead letter is redriven instead: see dlq redrive. Exit code 1: one is not delayed. Exit code 5: a worker
    has not forwarded one yet, and the request stands.

    \b
    Example:
      dkb shop.tasks retry 7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51
    """
    with ending(context) as session:
        outcomes = session.broker.run_now(*message_ids, timeout_s=wait)
        rows = [
            RetryRow(
                message_id=message_id,
                outcome="undecided" if outcome is None else outcome.value,
                meaning=RETRIED[outcome],
            )
            for message_id, outcome in outcomes.items()
        ]
        session.output.show(Answer("retry", {"messages": rows}, [Table(RETRY_COLUMNS, rows)]))
        if None in outcomes.values():
            raise typer.Exit(ExitCode.UNDECIDED)
        if any(outcome is not Outcome.FORWARDED for outcome in outcomes.values()):
            raise typer.Exit(ExitCode.FINDING)


def purge(
    context: typer.Context,
    queue: Annotated[str, typer.Argument(help="The queue.")],
    is_applied: Annotated[bool, typer.Option("--apply", help="Do it. Without, it is a dry run.")] = False,
    is_confirmed: Annotated[
        bool, typer.Option("--yes", help="Do not ask for the number of messages.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for status.")] = "",
) -> None:
    """Drop all messages of a queue that wait or are delayed. Running tasks continue; dead letters stay.

    They cannot be restored, and completed messages cannot be replayed any more. The records of running tasks
    are deleted, too: the tasks end, and do not run again when their workers are killed. A dry run, unless
    --apply is given.

    \b
    Example:
      dkb shop.tasks purge mail --apply --reason "the addresses were wrong"
    """
    with ending(context) as session:
        broker = session.declared(queue)
        session.warn_of_groups([queue])
        (state,) = broker.queues(queue)
        try:
            workers = broker.workers()
        except NotAuthorized:
            workers = []  # the commits tell what workers have
        found = Served(workers).of_queue(state)
        waiting, running = found.waiting, found.running
        count = waiting + running + state.delayed + state.in_lanes
        what = f"drop {texts.plural(count, 'message')} of {queue!r} for good"
        if running:
            what += f", {running:,} of them running"
        if is_applied and count and not is_confirmed:
            confirm_count(session.output, count, what)
        # A flush deletes the log, with the completed messages that a replay could run again.
        if is_applied and count:
            broker.flush(queue, reason=reason)
        document = {
            "queue": queue,
            "dry_run": not is_applied,
            "waiting": waiting,
            "running": running,
            "delayed": state.delayed,
            "in_lanes": state.in_lanes,
            "completed": state.counts.kept_completed if count else 0,
        }
        text = f"Dropped the messages of {queue!r}; it had {count:,}." if is_applied else f"Would {what}."
        if not count:
            text = f"Nothing of {queue!r} waits or is delayed: there is nothing to drop, and its log is kept."
        session.output.show(Answer("purge", document, lines=[text]))
        if count and (kept := state.counts.kept_completed):
            done = "deleted" if is_applied else "would delete"
            records = texts.plural(kept, "completed record")
            session.output.say(f"It {done} {records} of its log, too: a replay does not find them any more.")
        if running:
            verb = ("has" if running == 1 else "have") if is_applied else "would have"
            task = "the task" if running == 1 else "each task"
            messages = texts.plural(running, "running message")
            session.output.say(
                f"{messages} {verb} no record any more: {task} continues, and does not run again when its "
                "worker is killed."
            )
        if not is_applied:
            session.output.say("A dry run: nothing was changed. --apply does it.")
