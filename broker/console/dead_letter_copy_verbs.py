"""The verbs that copy dead letters through a file: dlq export, dlq import."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from .. import DeadLetter, Imported
from . import texts
from .changes import changing
from .confirm import confirm_count
from .counts import COUNT_COLUMNS, counts
from .dead_letter_copies import NotACopy, dead_letter_of, line_of
from .dead_letter_options import (
    ActorName,
    Apply,
    AtMost,
    By,
    Error,
    Ids,
    Queue,
    Since,
    Text,
    Until,
    Yes,
    filter_of,
)
from .output import Answer, Table
from .session import Refused, ending

STANDARD_INPUT = "-"


def register(group: typer.Typer) -> None:
    group.command("export")(export)
    group.command("import")(import_dead_letters)


def export(
    context: typer.Context,
    queue: Queue,
    ids: Ids = None,
    error: Error = None,
    text: Text = None,
    actor: ActorName = None,
    since: Since = None,
    until: Until = None,
    limit: AtMost = None,
) -> None:
    """Print dead letters to stdout with all they hold, one JSON document a line. Nothing is changed.

    \b
    Example:
      dkb shop.tasks dlq export mail > mail.jsonl
    """
    with ending(context) as session:
        wanted = filter_of(ids, error, text, actor, since, until)
        session.queue_names([queue])
        found = session.broker.dead_letters(queue, where=wanted)
        if limit is not None:
            found = islice(sorted(found, key=lambda one: one.timestamp), limit)
        count = 0
        for one in found:
            session.output.write_json(line_of(one))
            count += 1
        session.output.say(f"{texts.plural(count, 'dead letter')} of {queue!r}.")


def import_dead_letters(
    context: typer.Context,
    queue: Queue,
    file: Annotated[str, typer.Argument(help="A file of dlq export; - for stdin.")] = STANDARD_INPUT,
    include_resolved: Annotated[
        bool, typer.Option("--resolved", help="Those, too, that were redriven or discarded here.")
    ] = False,
    is_applied: Apply = False,
    is_confirmed: Yes = False,
    reason: Annotated[
        str, typer.Option(help="The reason, which the dead letters keep. --apply needs it.")
    ] = "",
    by: By = None,
) -> None:
    """Write the dead letters of a file that dlq export has printed. A dry run, unless --apply is given.

    One that the queue has already is left out, so that an interrupted import can be repeated. The queue must
    exist. Redrive them afterwards.

    \b
    Examples:
      dkb shop.tasks dlq import mail mail.jsonl
      dkb shop.tasks dlq import mail mail.jsonl --apply --reason "moved from the old cluster"
    """
    with ending(context) as session:
        if is_applied and not reason.strip():
            raise Refused("--apply needs --reason, which the dead letters keep.")
        if is_applied and file == STANDARD_INPUT and not is_confirmed:
            raise Refused("The file is on standard input, so nobody can type the number there: add --yes.")
        session.queue_names([queue])
        given = _read(file)
        broker = session.broker
        found = broker.import_dead_letters(queue, given, include_resolved=include_resolved)
        if is_applied and found.to_write:
            if not is_confirmed:
                what = f"import {texts.plural(found.to_write, 'dead letter')} of {queue!r}"
                confirm_count(session.output, found.to_write, what)
            done = "dead letters were written"
            with changing(session.output, "import", found.to_write, done) as progress:
                found = broker.import_dead_letters(
                    queue,
                    given,
                    dry_run=False,
                    reason=reason,
                    by=by,
                    include_resolved=include_resolved,
                    on_progress=lambda so_far: progress(so_far.written, so_far.to_write),
                )
        session.output.show(_answer(queue, found, is_applied=is_applied))
        if not is_applied and found.to_write:
            session.output.say("A dry run: nothing was changed. --apply does it.")


def _read(file: str) -> list[DeadLetter]:
    """The dead letters of a file. A line that is not one refuses the file, before anything is written."""
    try:
        content = sys.stdin.read() if file == STANDARD_INPUT else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(f"{file} cannot be read: {e}") from e
    found = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(dead_letter_of(line))
        except NotACopy as e:
            name = "standard input" if file == STANDARD_INPUT else file
            raise Refused(f"Line {number} of {name}: {e}.") from e
    return found


def _answer(queue: str, found: Imported, *, is_applied: bool) -> Answer:
    document = {
        "queue": queue,
        "dry_run": not is_applied,
        "operation": found.operation if is_applied else None,
        "given": found.given,
        "to_write": found.to_write,
        "written": found.written,
        "error_types": dict(found.error_types),
        "skipped": dict(found.skipped),
    }
    noun = texts.plural(found.written if is_applied else found.to_write, "dead letter")
    line = f"Imported {noun} of {queue!r}." if is_applied else f"Would import {noun} of {queue!r}."
    tables = [
        Table(COUNT_COLUMNS["error"], counts(found.error_types), title="Dead letters"),
        Table(COUNT_COLUMNS["skipped"], counts(found.skipped), title="Left out"),
    ]
    return Answer("dlq import", document, tables, [line])
