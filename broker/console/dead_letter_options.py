"""The options of the verbs about dead letters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from ..process import clock
from . import texts
from .dead_letter_rows import DeadLetterFilter

Queue = Annotated[str, typer.Argument(help="The queue.")]
Queues = Annotated[list[str] | None, typer.Argument(help="The queues; by default all.")]
Ids = Annotated[
    list[str] | None, typer.Option("--id", metavar="MESSAGE_ID", help="This message; may be repeated.")
]
Error = Annotated[str | None, typer.Option(metavar="CLASS", help="The name of the error's class.")]
Text = Annotated[str | None, typer.Option(help="A part of the error's text or traceback.")]
ActorName = Annotated[str | None, typer.Option("--actor", help="The actor.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Dead since then: 2h, or an ISO 8601 time.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Dead before then: 2h, or an ISO 8601 time.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do it. Without, it is a dry run.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for the number of messages.")]
Everything = Annotated[bool, typer.Option("--all", help="Allow a call without any condition.")]
Reason = Annotated[str, typer.Option(help="The reason, which the audit keeps. --apply needs it.")]
By = Annotated[str | None, typer.Option(help="The author; by default this user and host.")]
AtMost = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest first.")]


def filter_of(
    ids: list[str] | None,
    error: str | None,
    text: str | None,
    actor: str | None,
    since: str | None,
    until: str | None,
) -> DeadLetterFilter:
    """The conditions of a call.

    Raises:
      BadText: When ``since`` or ``until`` is not a time.
    """
    now = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC)
    return DeadLetterFilter(
        frozenset(ids or ()),
        error,
        text,
        actor,
        None if since is None else texts.parse_moment(since, now),
        None if until is None else texts.parse_moment(until, now),
    )
