"""A dead letter with all that it holds, and its copy as one line of ``dlq export``. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

from .. import DeadLetter
from ..process.strict_json import dumps
from . import texts
from .dead_letter_rows import dead_letter_row
from .documents import DeadLetterDetail, ImportRow

#: The version of the lines of ``dlq export``.
VERSION = 1


class NotACopy(ValueError):
    """A line was not printed by ``dlq export``. The text says why."""


def detail_of(dead_letter: DeadLetter) -> DeadLetterDetail:
    """A dead letter with all that it holds."""
    message, note = dead_letter.message, dead_letter.import_note
    return DeadLetterDetail(
        **dead_letter_row(dead_letter),
        traceback=dead_letter.traceback,
        args=None if message is None else list(message.args),
        kwargs=None if message is None else dict(message.kwargs),
        options=None if message is None else dict(message.options),
        raw_base64=None if message is not None else _base64(dead_letter.raw),
        imported=None
        if note is None
        else ImportRow(operation=note.operation, by=note.by, reason=note.reason, at_ms=note.at_ms),
    )


def detail_lines(row: DeadLetterDetail) -> Iterator[str]:
    """The view of one dead letter."""
    imported = row["imported"]
    values = {
        "message": row["message_id"],
        "actor": row["actor"],
        "dead since": texts.moment(row["at_ms"]),
        "retries": row["retries"],
        "redrives": row["redrives"],
        "record": row["record"],
        "args": None if row["args"] is None else dumps(row["args"]),
        "kwargs": dumps(row["kwargs"]) if row["kwargs"] else None,
        "cannot be redriven": row["not_redrivable"],
        "imported": None
        if imported is None
        else f"{texts.moment(imported['at_ms'])} by {imported['by']}: {imported['reason']}",
        "error": f"{row['error_type']}: {row['error']}" if row["error_type"] else row["error"],
    }
    yield from (f"{name + ':':20}{value}" for name, value in values.items() if value not in (None, ""))
    if row["traceback"]:
        yield ""
        yield row["traceback"].rstrip()


def line_of(dead_letter: DeadLetter) -> dict[str, Any]:
    """The copy of a dead letter: its row, and all bytes that an import needs."""
    return {
        "v": VERSION,
        **detail_of(dead_letter),
        "raw_base64": _base64(dead_letter.raw),
        "headers": [[name, _base64(value)] for name, value in dead_letter.headers],
    }


def dead_letter_of(line: str) -> DeadLetter:
    """The dead letter that a line holds.

    Raises:
      NotACopy: When it is no line of ``dlq export``, or one of a later version.
    """
    try:
        fields = json.loads(line)
        if fields["v"] != VERSION:
            raise NotACopy(f"it has version {fields['v']!r} of the format, and this command knows {VERSION}")
        headers = [(str(name), base64.b64decode(text, validate=True)) for name, text in fields["headers"]]
        return DeadLetter.copied(
            str(fields["queue"]),
            base64.b64decode(fields["raw_base64"], validate=True),
            error=str(fields["error"]),
            error_type=str(fields["error_type"]),
            traceback=str(fields["traceback"]),
            retry_count=int(fields["retries"]),
            timestamp=int(fields["at_ms"]),
            headers=headers,
        )
    except NotACopy:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, binascii.Error) as e:
        raise NotACopy(f"it is no line of dkb dlq export: {e!r}") from e


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
