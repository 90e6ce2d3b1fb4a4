"""The verbs that run messages of the log again: replay, replays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from .. import ReplayResult
from ..process import clock
from . import texts
from .changes import changing
from .confirm import confirm_count
from .counts import COUNT_COLUMNS, counts
from .output import Answer, Table
from .replay_rows import REPLAY_COLUMNS, replay_row
from .session import Refused, Session, ending

#: Kafka's times are whole milliseconds: a record of this one came before the call.
INCLUSIVE = timedelta(milliseconds=1)


class Ids(StrEnum):
    """The ids of replayed messages."""

    SAME = "same"
    NEW = "new"


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)
    app.command("replays")(replays)


def replay(
    context: typer.Context,
    queue: Annotated[
        str | None, typer.Argument(help="The queue; by default that of --actor, with an application.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only messages of this actor.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Enqueued since then: 2h, or an ISO 8601 time."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Enqueued before then: 2h, or ISO 8601; by default now."),
    ] = None,
    ids: Annotated[
        Ids, typer.Option(help="Whether messages keep their ids, or each gets a new one.")
    ] = Ids.SAME,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many, the first of the log.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.0, metavar="PER_SECOND", help="At most so many a second; 0 for no limit.")
    ] = 100.0,
    everything: Annotated[bool, typer.Option("--all", help="Allow a call without any condition.")] = False,
    is_applied: Annotated[bool, typer.Option("--apply", help="Do it. Without, it is a dry run.")] = False,
    is_confirmed: Annotated[
        bool, typer.Option("--yes", help="Do not ask for the number of messages.")
    ] = False,
    reason: Annotated[str, typer.Option(help="The reason, for its record. --apply needs it.")] = "",
    by: Annotated[str | None, typer.Option(help="The author; by default this user and host.")] = None,
) -> None:
    """Run completed messages again that the queue's log still has. A dry run, unless --apply is given.

    Messages that wait, run or are delayed, and dead letters, are left alone. An interrupted replay can be
    repeated with the same options: it does not send again what it has sent.

    \b
    Examples:
      dkb shop.tasks replay mail --actor send_receipt --from 2026-11-28T10:00 --to 2026-11-28T11:00
      dkb shop.tasks replay mail --actor send_receipt --from 2h --apply --reason "the receipts were empty"
    """
    with ending(context) as session:
        if is_applied and not reason.strip():
            raise Refused("--apply needs --reason, which the record of the replay keeps.")
        name = _queue_of(session, queue, actor)
        session.warn_of_groups([name])
        if not everything and (actor, since, until, limit) == (None, None, None, None):
            raise Refused(f"Without a condition this would replay the whole log of {name!r}: add --all.")
        now = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)
        options: dict[str, Any] = {
            "actor": actor,
            "since": None if since is None else texts.parse_moment(since, now),
            # A fixed end: what is enqueued while the operator types the number is not replayed.
            "until": now + INCLUSIVE if until is None else texts.parse_moment(until, now),
            "ids": ids.value,
            "limit": limit,
            "rate_per_s": rate or None,
            "by": by,
        }
        broker = session.declared(name)
        found = broker.replay(name, dry_run=True, **options)
        if is_applied and (found.to_send or found.interrupted):
            if found.to_send and not is_confirmed:
                what = f"run {texts.plural(found.to_send, 'message')} of {name!r} again"
                confirm_count(session.output, found.to_send, what)
            done = "messages were sent again"
            with changing(session.output, "replay", found.to_send, done) as progress:
                found = broker.replay(
                    name,
                    dry_run=False,
                    reason=reason,
                    on_progress=lambda so_far: progress(so_far.sent, so_far.to_send),
                    **options,
                )
        session.output.show(_answer(found, is_applied=is_applied))
        if not is_applied and found.to_send:
            session.output.say("A dry run: nothing was changed. --apply does it.")


def _queue_of(session: Session, queue: str | None, actor: str | None) -> str:
    """The named queue, or that of the application's actor."""
    if queue is not None:
        return queue
    known = session.broker.actors
    if actor is None or actor not in known:
        raise Refused("Name the queue: dkb replay QUEUE. Only an application knows the queue of an actor.")
    return str(known[actor].queue_name)


def _answer(found: ReplayResult, *, is_applied: bool) -> Answer:
    log_starts_ms = _ms(found.log_starts)
    document = {
        "queue": found.queue_name,
        "dry_run": not is_applied,
        "id": found.id if is_applied else None,
        "ids": found.ids,
        "selected": found.selected,
        "to_send": found.to_send,
        "sent": found.sent,
        "sent_before": found.sent_before,
        "actors": dict(found.actors),
        "first_ms": _ms(found.first),
        "last_ms": _ms(found.last),
        "skipped": dict(found.skipped),
        "log_starts_ms": log_starts_ms,
        "interrupted": list(found.interrupted),
    }
    noun = texts.plural(found.sent if is_applied else found.to_send, "message")
    lines = [
        f"Sent {noun} of {found.queue_name!r} again."
        if is_applied
        else f"Would run {noun} of {found.queue_name!r} again."
    ]
    if found.first is not None:
        lines.append(f"From {texts.moment(_ms(found.first))} to {texts.moment(_ms(found.last))}.")
    if found.sent_before:
        before = texts.plural(found.sent_before, "message")
        lines.append(f"An interrupted replay has sent {before} of them already.")
    if log_starts_ms is not None:
        lines.append(
            f"Kafka has deleted records of the range: the log begins at {texts.moment(log_starts_ms)}."
        )
    tables = [
        Table(COUNT_COLUMNS["actor"], counts(found.actors), title="Messages"),
        Table(COUNT_COLUMNS["skipped"], counts(found.skipped), title="Left alone"),
    ]
    return Answer("replay", document, tables, lines)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def replays(
    context: typer.Context,
    queue: Annotated[list[str] | None, typer.Argument(help="The queues; by default all.")] = None,
) -> None:
    """Show the replays of the last 90 days: who ran what again, when and why.

    \b
    Example:
      dkb shop.tasks replays mail
    """
    with ending(context) as session:
        rows = [replay_row(one) for one in session.broker.replays() if not queue or one.queue_name in queue]
        session.output.show(
            Answer("replays", {"replays": rows}, [Table(REPLAY_COLUMNS, rows, empty="Nothing was replayed.")])
        )
