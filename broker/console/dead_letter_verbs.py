"""The verbs about dead letters: dlq list, show, errors, history, redrive, discard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated

import typer

from .. import DeadLetter, Resolved
from . import dead_letter_copy_verbs, texts
from .changes import changing
from .confirm import confirm_count
from .dead_letter_copies import detail_lines, detail_of
from .dead_letter_options import (
    ActorName,
    Apply,
    AtMost,
    By,
    Error,
    Everything,
    Ids,
    Queue,
    Queues,
    Reason,
    Since,
    Text,
    Until,
    Yes,
    filter_of,
)
from .dead_letter_rows import (
    DEAD_LETTER_COLUMNS,
    ERROR_COLUMNS,
    RESOLUTION_COLUMNS,
    Counted,
    DeadLetterFilter,
    dead_letter_row,
    error_rows,
    place_of,
    repeated,
    resolution_row,
)
from .documents import DeadLetterRow
from .exits import ExitCode
from .output import Answer, Table
from .session import Refused, Session, ending

NO_DEAD_LETTER = "No dead letter matches."
#: The number of rows of a list, and of message ids in a row.
DEFAULT_LIMIT = 100


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Show, redrive and discard dead letters."
    )
    group.command("list")(list_dead_letters)
    group.command("show")(show)
    group.command("errors")(errors)
    group.command("history")(history)
    group.command("redrive")(redrive)
    group.command("discard")(discard)
    dead_letter_copy_verbs.register(group)
    app.add_typer(group, name="dlq")


def _read(session: Session, names: list[str], wanted: DeadLetterFilter) -> Iterator[DeadLetter]:
    for name in names:
        yield from session.broker.dead_letters(name, where=wanted)


def list_dead_letters(
    context: typer.Context,
    queue: Queues = None,
    ids: Ids = None,
    error: Error = None,
    text: Text = None,
    actor: ActorName = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of rows, the latest ones.")] = DEFAULT_LIMIT,
) -> None:
    """List dead letters, the latest last.

    \b
    Example:
      dkb shop.tasks dlq list mail --error SMTPServerDisconnected --since 2h
    """
    with ending(context) as session:
        wanted = filter_of(ids, error, text, actor, since, until)
        names = session.queue_names(queue)
        dead_letters = list(_read(session, names, wanted))
        rows = [dead_letter_row(found) for found in dead_letters]
        rows.sort(key=lambda row: row["at_ms"])
        left_out = max(0, len(rows) - limit)
        shown = rows[left_out:]
        session.output.show(
            Answer(
                "dlq list",
                {"dead_letters": shown, "count": len(rows)},
                [Table(DEAD_LETTER_COLUMNS, shown, empty=NO_DEAD_LETTER)],
                [f"{left_out:,} earlier ones are left out; see --limit."] if left_out else [],
            )
        )
        if twice := len(repeated(dead_letters)):
            session.output.say(_of_one_failure(twice, "a redrive of both runs it once."))


def show(
    context: typer.Context,
    queue: Queue,
    message_id: Annotated[str, typer.Argument(help="The message.")],
) -> None:
    """Show the dead letters of one message with their tracebacks and arguments.

    \b
    Example:
      dkb shop.tasks dlq show mail 7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51
    """
    with ending(context) as session:
        session.queue_names([queue])
        found = list(session.broker.dead_letters(queue, message_id=message_id))
        if not found:
            raise Refused(f"The queue {queue!r} has no open dead letter of {message_id}.", ExitCode.FINDING)
        document = [detail_of(one) for one in found]
        lines = [text for one in document for text in detail_lines(one)]
        session.output.show(Answer("dlq show", {"dead_letters": document}, lines=lines))


def errors(
    context: typer.Context,
    queue: Queues = None,
    ids: Ids = None,
    error: Error = None,
    text: Text = None,
    actor: ActorName = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option(min=1, help="The number of groups, the largest ones.")
    ] = DEFAULT_LIMIT,
) -> None:
    """Group dead letters by queue, actor and type of error.

    \b
    Example:
      dkb shop.tasks dlq errors
    """
    with ending(context) as session:
        wanted = filter_of(ids, error, text, actor, since, until)
        rows = error_rows(_read(session, session.queue_names(queue), wanted))
        shown, left_out = rows[:limit], len(rows) - limit
        session.output.show(
            Answer(
                "dlq errors",
                {"errors": shown, "count": len(rows)},
                [Table(ERROR_COLUMNS, shown, empty=NO_DEAD_LETTER)],
                [f"{left_out:,} smaller groups are left out; see --limit."] if left_out > 0 else [],
            )
        )


def history(context: typer.Context, queue: Queues = None) -> None:
    """Show who redrove or discarded how many dead letters, when and why.

    \b
    Example:
      dkb shop.tasks dlq history mail
    """
    with ending(context) as session:
        rows = [
            resolution_row(name, one)
            for name in session.queue_names(queue)
            for one in session.broker.dead_letter_queue.history(name)
        ]
        rows.sort(key=lambda row: row["at_ms"])
        session.output.show(
            Answer(
                "dlq history",
                {"resolutions": rows},
                [Table(RESOLUTION_COLUMNS, rows, empty="No dead letter was redriven or discarded.")],
            )
        )


def redrive(
    context: typer.Context,
    queue: Queue,
    ids: Ids = None,
    error: Error = None,
    text: Text = None,
    actor: ActorName = None,
    since: Since = None,
    until: Until = None,
    limit: AtMost = None,
    rate: Annotated[
        float, typer.Option(min=0.0, metavar="PER_SECOND", help="At most so many a second; 0 for no limit.")
    ] = 0.0,
    everything: Everything = False,
    is_applied: Apply = False,
    is_confirmed: Yes = False,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Put dead letters back on their queue. A dry run, unless --apply is given.

    A message keeps its id, and its attempts count from zero. An interrupted redrive can be repeated.

    \b
    Examples:
      dkb shop.tasks dlq redrive mail --error SMTPServerDisconnected
      dkb shop.tasks dlq redrive mail --error SMTPServerDisconnected --rate 50 --apply --reason "it is back"
    """
    with ending(context) as session:
        wanted = filter_of(ids, error, text, actor, since, until)

        def act(where: Callable[[DeadLetter], bool], on_progress: Callable[[int], object]) -> Resolved:
            return session.broker.redrive(
                queue,
                dry_run=not is_applied,
                reason=reason,
                by=by,
                rate_per_s=rate or None,
                where=where,
                on_progress=on_progress,
            )

        _resolve(session, "redrive", queue, wanted, limit, everything, is_applied, is_confirmed, reason, act)


def discard(
    context: typer.Context,
    queue: Queue,
    ids: Ids = None,
    error: Error = None,
    text: Text = None,
    actor: ActorName = None,
    since: Since = None,
    until: Until = None,
    limit: AtMost = None,
    everything: Everything = False,
    is_applied: Apply = False,
    is_confirmed: Yes = False,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Discard dead letters: they are no longer listed. A dry run, unless --apply is given.

    \b
    Example:
      dkb shop.tasks dlq discard mail --id 7c1ea0d6-2f0f-4e8e-9a57-6b8f0b7b0b51 --apply --reason "a test"
    """
    with ending(context) as session:
        wanted = filter_of(ids, error, text, actor, since, until)

        def act(where: Callable[[DeadLetter], bool], on_progress: Callable[[int], object]) -> Resolved:
            return session.broker.discard(
                queue, dry_run=not is_applied, reason=reason, by=by, where=where, on_progress=on_progress
            )

        _resolve(session, "discard", queue, wanted, limit, everything, is_applied, is_confirmed, reason, act)


def _resolve(
    session: Session,
    action: str,
    queue: str,
    wanted: DeadLetterFilter,
    limit: int | None,
    everything: bool,
    is_applied: bool,
    is_confirmed: bool,
    reason: str,
    act: Callable[[Callable[[DeadLetter], bool], Callable[[int], object]], Resolved],
) -> None:
    """Select dead letters, confirm their number, and act on those that were selected and no other one."""
    if wanted.is_empty and not everything:
        raise Refused(f"Without a condition this would {action} all dead letters of {queue!r}: add --all.")
    if is_applied and not reason.strip():
        raise Refused("--apply needs --reason, which the audit keeps.")
    session.queue_names([queue])
    found = sorted(session.broker.dead_letters(queue, where=wanted), key=lambda one: one.timestamp)
    chosen = list(islice(found, limit))
    if left := len(repeated(found)) - len(repeated(chosen)):
        session.output.say(
            _of_one_failure(left, "--limit leaves it out, and a redrive of it runs the message again.")
        )
    rows = [dead_letter_row(one) for one in chosen]
    places = {place for one in chosen if (place := place_of(one)) is not None}
    if is_applied and chosen and not is_confirmed:
        noun = texts.plural(len(chosen), "dead letter")
        confirm_count(session.output, len(chosen), f"{action} {noun} of {queue!r}")
    count = len(chosen)
    done = {"redrive": "dead letters were redriven", "discard": "dead letters were discarded"}[action]
    repeat = "" if limit is None else "with --limit for the rest"
    with changing(session.output, action, count, done, repeat=repeat) as progress:
        resolved = act(Counted(places), lambda so_far: progress(so_far, count)) if chosen else None
    _show_resolved(session, action, queue, is_applied, rows, resolved)
    refused = 0 if resolved is None else resolved.refused.total()
    if is_applied and resolved is not None and refused:
        raise Refused(
            f"{texts.plural(refused, 'dead letter')} stayed: "
            + "; ".join(f"{why} ({count})" for why, count in resolved.refused.items()),
            ExitCode.UNDECIDED,
        )


def _of_one_failure(count: int, then: str) -> str:
    return (
        f"{texts.plural(count, 'dead letter')} of them {'is' if count == 1 else 'are'} the second of one "
        f"failure of a message, as a crash leaves two: {then}"
    )


def _show_resolved(
    session: Session,
    action: str,
    queue: str,
    is_applied: bool,
    rows: list[DeadLetterRow],
    resolved: Resolved | None,
) -> None:
    refused = dict(resolved.refused) if resolved else {}
    by_error: dict[str, int] = {}
    for row in rows:
        by_error[row["error_type"]] = by_error.get(row["error_type"], 0) + 1
    document = {
        "queue": queue,
        "dry_run": not is_applied,
        "operation": resolved.operation if resolved and is_applied else None,
        "selected": len(rows),
        "sent": resolved.sent if resolved else 0,
        "sent_before": resolved.sent_before if resolved else 0,
        "error_types": by_error,
        "refused": refused,
        "repeated": resolved.repeated if resolved else 0,
    }
    lines = []
    if rows:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(by_error.items()))
        stayed = sum(refused.values())
        done = {"redrive": "Redriven", "discard": "Discarded"}[action]
        lines.append(
            f"{done}: {texts.plural(len(rows) - stayed, 'dead letter')} of {queue!r} ({kinds})."
            if is_applied
            else f"Would {action} {texts.plural(len(rows), 'dead letter')} of {queue!r} ({kinds})."
        )
        if resolved is not None and resolved.repeated:
            lines.append(_of_one_failure(resolved.repeated, "the message runs once."))
        lines += [f"Cannot {action} {count}: {why}" for why, count in refused.items() if not is_applied]
    shown = [] if is_applied else rows[:DEFAULT_LIMIT]
    session.output.show(
        Answer(
            f"dlq {action}",
            document,
            [Table(DEAD_LETTER_COLUMNS, shown, empty="" if is_applied and rows else NO_DEAD_LETTER)],
            lines,
        )
    )
    if not is_applied and rows:
        session.output.say("A dry run: nothing was changed. --apply does it.")
