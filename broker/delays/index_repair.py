"""What becomes of an index whose log has lost its tail.

Emptying it would forward again what was forwarded already and whose tombstones stood in the lost tail. So the
log is read from its beginning beside what the index knows, up to where it was cut:

- a delay that the index does not have any more is done, and gets another tombstone;
- one that it has and the log does not was lost with the tail, and is forgotten;
- what is decided and in the log gets its tombstone again.

These are the statements for it; each is called within a transaction of the index.
"""

from __future__ import annotations

import sqlite3

from .record_format import Delay

_UNTIL = "mend_until"


def until(meta: dict[str, object]) -> int:
    """The offset below which the log is compared with the index; 0 when there is nothing to mend."""
    found = meta.get(_UNTIL, 0)
    return found if isinstance(found, int) else 0


def begin(db: sqlite3.Connection, cut: int) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS unseen (id TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("INSERT OR IGNORE INTO unseen SELECT id FROM delays")
    db.execute("UPDATE delays SET settled = 0 WHERE settled = 1")
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_UNTIL, cut))


def see(db: sqlite3.Connection, delay: Delay) -> bool:
    """Note that the log has a delay, and say whether the index has it, too. If not, it is done."""
    db.execute("DELETE FROM unseen WHERE id = ?", (delay.id,))
    return db.execute("SELECT 1 FROM delays WHERE id = ?", (delay.id,)).fetchone() is not None


def ask_again(db: sqlite3.Connection, request_id: str) -> None:
    """Note that the log has a request to cancel, whose answer may have been lost. It is decided already."""
    db.execute("UPDATE cancels SET told = 0 WHERE id = ?", (request_id,))


def finish(db: sqlite3.Connection, waiting: int) -> int:
    """Forget what the log does not have any more; return how much of it waited (in the state ``waiting``)."""
    lost: int = db.execute(
        "SELECT count(*) FROM delays WHERE state = ? AND id IN (SELECT id FROM unseen)", (waiting,)
    ).fetchone()[0]
    db.execute("DELETE FROM delays WHERE id IN (SELECT id FROM unseen)")
    db.execute("DROP TABLE unseen")
    db.execute("DELETE FROM meta WHERE name = ?", (_UNTIL,))
    return lost
