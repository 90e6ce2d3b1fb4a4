"""Applying the entries of the log to a delay index.

The functions are SQL statements; each is called within a transaction of the index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from ..process.sqlite_cache import pack_headers
from . import index_repair
from .index_schema import (
    CANCELLED,
    FLUSHED,
    FORWARDED,
    IDS_OF_MESSAGE,
    WAITING,
    checksum_of,
    ids_of_message,
)
from .record_format import (
    KEY_SUFFIX_LENGTH,
    CancelDecision,
    CancelForgotten,
    CancelNote,
    CancelRequest,
    Delay,
    Done,
    DueNow,
    Entry,
    Flush,
    Outcome,
)

#: The number of forwarded messages whose ids are kept. They distinguish TOO_LATE from UNKNOWN in a cancel.
REMEMBERED_MESSAGES = 100_000


def apply_entry(db: sqlite3.Connection, entry: Entry, now_ms: int) -> None:
    """Apply an entry that was not read before."""
    match entry:
        case Delay():
            _add(db, entry)
        case Done():
            _remove(db, entry)
        case CancelRequest(request_id, note):
            note = replace(note, queue=_queue_of(db, entry.message_id))
            decision = CancelDecision(request_id, _decide(db, entry.message_id), now_ms, note)
            _write_decision(db, decision, published=False)
        case CancelDecision():
            _write_decision(db, entry, published=True)
        case CancelForgotten(request_id):
            db.execute("DELETE FROM cancels WHERE id = ?", (request_id,))
            db.execute("DELETE FROM cancel_notes WHERE id = ?", (request_id,))
        case Flush(queue):
            db.execute(f"UPDATE delays SET state = {FLUSHED} WHERE queue = ? AND state = {WAITING}", (queue,))
        case DueNow(ids):
            _make_due(db, ids, now_ms)


def compare_entry(db: sqlite3.Connection, entry: Entry, now_ms: int) -> None:
    """Apply an entry that was applied before the log lost its tail (see ``index_repair``)."""
    match entry:
        case Delay():
            if not index_repair.note_seen(db, entry):
                _add(db, entry, state=FORWARDED)
        case CancelRequest():
            index_repair.publish_again(db, entry.id)
        case Flush():
            pass  # the waiting delays of the index are later than the flush
        case _:
            apply_entry(db, entry, now_ms)


def last_outcome(db: sqlite3.Connection, message_id: str, condition: str) -> Outcome | None:
    """The outcome of the latest cancel request for a message, of the requests that meet an SQL condition."""
    found = db.execute(
        f"SELECT outcome FROM cancels WHERE {IDS_OF_MESSAGE} AND {condition}"
        " ORDER BY decided_ms DESC, rowid DESC LIMIT 1",
        ids_of_message(message_id),
    ).fetchone()
    return Outcome(found[0]) if found else None


def _add(db: sqlite3.Connection, delay: Delay, state: int = WAITING) -> None:
    db.execute(
        "INSERT INTO delays (state, id, queue, due_ms, key, headers, value, checksum)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (
            state,
            delay.id,
            delay.queue,
            delay.due_ms,
            delay.key,
            pack_headers(delay.headers),
            delay.value,
            checksum_of(delay.id, delay.queue, delay.due_ms, delay.value),
        ),
    )


def _make_due(db: sqlite3.Connection, ids: Sequence[str], now_ms: int) -> None:
    """Make waiting delays due. Those that are done, or due already, stay as they are."""
    for delay_id in ids:
        found = db.execute(
            f"SELECT row, queue, value FROM delays WHERE id = ? AND state = {WAITING} AND due_ms > ?",
            (delay_id, now_ms),
        ).fetchone()
        if found is not None:
            row, queue, value = found
            db.execute(
                "UPDATE delays SET due_ms = ?, checksum = ? WHERE row = ?",
                (now_ms, checksum_of(delay_id, queue, now_ms, value), row),
            )


def _remove(db: sqlite3.Connection, done: Done) -> None:
    message_id = done.id[:-KEY_SUFFIX_LENGTH]
    found = db.execute("DELETE FROM delays WHERE id = ? RETURNING row, state", (done.id,)).fetchone()
    if found is not None:  # SQLite reuses the number of a deleted row
        db.execute("DELETE FROM postponed WHERE row = ?", found[:1])
    if done.outcome is Outcome.FORWARDED:
        _remember(db, message_id)
        if found is None or found[1] != FORWARDED:
            # An earlier owner forwarded the message before it read the requests that precede its tombstone.
            _correct(db, message_id, Outcome.TOO_LATE, wrong=[Outcome.CANCELLED, Outcome.UNKNOWN])
    elif done.outcome is Outcome.CANCELLED:
        # An earlier owner cancelled the message and did not publish its decision. Compaction may have removed
        # the delay.
        _correct(db, message_id, Outcome.CANCELLED, wrong=[Outcome.UNKNOWN])


def _correct(db: sqlite3.Connection, message_id: str, outcome: Outcome, *, wrong: Sequence[Outcome]) -> None:
    """Correct the unpublished decisions about a message."""
    for mistaken in wrong:
        db.execute(
            f"UPDATE cancels SET outcome = ? WHERE {IDS_OF_MESSAGE} AND told = 0 AND outcome = ?",
            (outcome.value, *ids_of_message(message_id), mistaken.value),
        )


def _remember(db: sqlite3.Connection, message_id: str) -> None:
    (row,) = db.execute(
        "INSERT OR REPLACE INTO forwarded (message_id) VALUES (?) RETURNING row", (message_id,)
    ).fetchone()
    db.execute("DELETE FROM forwarded WHERE row <= ?", (row - REMEMBERED_MESSAGES,))


def _decide(db: sqlite3.Connection, message_id: str) -> Outcome:
    """Decide about a cancel request: cancel the message's delays that were never tried.

    A delay that was tried may be in its queue already, so its cancellation cannot be promised.
    """
    ids = ids_of_message(message_id)
    cancelled = db.execute(
        f"UPDATE delays SET state = {CANCELLED}"
        f" WHERE {IDS_OF_MESSAGE} AND state = {WAITING} AND attempts = 0",
        ids,
    ).rowcount
    if cancelled:
        db.execute("DELETE FROM forwarded WHERE message_id = ?", (message_id,))
        return Outcome.CANCELLED
    forwarded = db.execute(
        f"SELECT 1 FROM delays WHERE {IDS_OF_MESSAGE} AND state IN ({WAITING}, {FORWARDED})"
        " UNION ALL SELECT 1 FROM forwarded WHERE message_id = ?",
        (*ids, message_id),
    ).fetchone()
    if forwarded:
        return Outcome.TOO_LATE
    # A second request gets the outcome of the first one.
    return last_outcome(db, message_id, "1") or Outcome.UNKNOWN


def _queue_of(db: sqlite3.Connection, message_id: str) -> str:
    """The queue of the delays of a message; empty without one."""
    found = db.execute(
        f"SELECT queue FROM delays WHERE {IDS_OF_MESSAGE} LIMIT 1", ids_of_message(message_id)
    ).fetchone()
    return str(found[0]) if found else ""


def _write_decision(db: sqlite3.Connection, decision: CancelDecision, *, published: bool) -> None:
    db.execute(
        "INSERT OR REPLACE INTO cancels VALUES (?, ?, ?, ?)",
        (decision.id, decision.outcome.value, decision.decided_ms, published),
    )
    # The decision of a forwarder of an earlier version has no note: that of its request stays.
    if (note := decision.note) != CancelNote():
        db.execute(
            "INSERT OR REPLACE INTO cancel_notes VALUES (?, ?, ?, ?, ?)",
            (decision.id, note.by, note.reason, note.requested_ms, note.queue),
        )


def cancels_of(db: sqlite3.Connection, message_id: str) -> list[tuple[CancelDecision, bool]]:
    """The requests to cancel a message, each with whether its decision is published, by their time."""
    return _decisions(db, IDS_OF_MESSAGE, ids_of_message(message_id))


def decisions_to_publish(db: sqlite3.Connection, limit: int) -> list[CancelDecision]:
    found = _decisions(db, f"cancels.id IN (SELECT id FROM cancels WHERE told = 0 LIMIT {limit:d})", ())
    return [decision for decision, _ in found]


def _decisions(
    db: sqlite3.Connection, condition: str, parameters: Sequence[object]
) -> list[tuple[CancelDecision, bool]]:
    found = db.execute(
        "SELECT id, outcome, decided_ms, coalesce(asked_by, ''), coalesce(reason, ''), requested_ms,"
        f" coalesce(queue, ''), told FROM cancels LEFT JOIN cancel_notes USING (id) WHERE {condition}"
        " ORDER BY decided_ms, cancels.rowid",
        parameters,
    )
    return [
        (CancelDecision(request_id, Outcome(outcome), ms, CancelNote(*note)), bool(told))
        for request_id, outcome, ms, *note, told in found
    ]
