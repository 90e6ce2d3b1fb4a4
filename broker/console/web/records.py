"""The message of a task that is no dead letter, out of the log of its queue.

A look asks for it: no page reads Kafka by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ... import FoundRecord
from .looks import Look, NotFound

#: The records that are read for one message at most.
SCAN_LIMIT = 200_000
#: The clocks of workers and of Kafka differ by less.
CLOCK_SKEW_MS = 10_000


def record_of(look: Look, message_id: str) -> FoundRecord | None:
    """The last record of a message in the log of its queue; None when the log does not have it, or not among
    the first SCAN_LIMIT records that it may be one of.

    The history tells when Kafka appended the record of a run, and only records of that time are read. Without
    a run in the history, it is one that is not complete.

    Raises:
      NotFound: When nothing is known of the message.
    """
    store, broker = look.console.store, look.console.broker
    runs = store.query(
        "SELECT queue, at_ms, run_s, queue_s FROM event WHERE message_id = ? AND queue_s IS NOT NULL"
        " ORDER BY at_ms DESC LIMIT 1",
        (message_id,),
    )
    if runs:
        (run,) = runs
        appended_ms = run["at_ms"] - ((run["run_s"] or 0.0) + run["queue_s"]) * 1000
        found = broker.find(
            run["queue"],
            message_id=message_id,
            completed=True,
            since=_moment(appended_ms - CLOCK_SKEW_MS),
            until=_moment(appended_ms + CLOCK_SKEW_MS),
            scan_limit=SCAN_LIMIT,
        )
        return found.records[-1] if found.records else None
    known = store.query("SELECT queue FROM event WHERE message_id = ? LIMIT 1", (message_id,))
    known += [row for row in store.get("running", []) if row["message_id"] == message_id]
    if not known:
        raise NotFound(f"Nothing is known of the message {message_id!r}.")
    found = broker.find(known[0]["queue"], message_id=message_id, limit=1, scan_limit=SCAN_LIMIT)
    return found.records[-1] if found.records else None


def content_of(record: FoundRecord) -> dict[str, Any]:
    """The parts of a record's message that ``masking`` takes."""
    message = record.message
    return {"args": list(message.args), "kwargs": dict(message.kwargs), "options": dict(message.options)}


def place_of(record: FoundRecord) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _moment(at_ms: float) -> datetime:
    return datetime.fromtimestamp(max(0.0, at_ms) / 1000, UTC)
