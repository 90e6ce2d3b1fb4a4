"""Repairing an index whose log has lost its tail.

An emptied index would forward messages again whose tombstones were in the lost tail. So the repair reads the
log from its beginning up to the cut, and compares it with the index:

- a delay in the log and not in the index is done: it gets another tombstone;
- a delay in the index and not in the log was lost with the tail: it is removed;
- a decided delay in both gets its tombstone again.

The functions are SQL statements; each is called within a transaction of the index. The name ``mend_until`` is
part of the file's format.
"""

from __future__ import annotations

import sqlite3

from .record_format import Delay

_REPAIR_UNTIL = "mend_until"


def repair_until(meta: dict[str, object]) -> int:
    """The offset below which the log is compared with the index; 0 when there is nothing to repair."""
    found = meta.get(_REPAIR_UNTIL, 0)
    return found if isinstance(found, int) else 0


def begin(db: sqlite3.Connection, cut: int) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS unseen (id TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("INSERT OR IGNORE INTO unseen SELECT id FROM delays")
    db.execute("UPDATE delays SET settled = 0 WHERE settled = 1")
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_REPAIR_UNTIL, cut))


def note_seen(db: sqlite3.Connection, delay: Delay) -> bool:
    """Note that the log has a delay. Return whether the index has it, too; otherwise the delay is done."""
    db.execute("DELETE FROM unseen WHERE id = ?", (delay.id,))
    return db.execute("SELECT 1 FROM delays WHERE id = ?", (delay.id,)).fetchone() is not None


def publish_again(db: sqlite3.Connection, request_id: str) -> None:
    """Note that the decision about a cancel request is unpublished: its record may have been in the lost
    tail.
    """
    db.execute("UPDATE cancels SET told = 0 WHERE id = ?", (request_id,))


def finish(db: sqlite3.Connection, waiting: int) -> int:
    """Remove the delays that the log does not have any more.

    Returns:
      How many of them were in the state ``waiting``.
    """
    lost: int = db.execute(
        "SELECT count(*) FROM delays WHERE state = ? AND id IN (SELECT id FROM unseen)", (waiting,)
    ).fetchone()[0]
    db.execute("DELETE FROM delays WHERE id IN (SELECT id FROM unseen)")
    db.execute("DROP TABLE unseen")
    db.execute("DELETE FROM meta WHERE name = ?", (_REPAIR_UNTIL,))
    return lost
