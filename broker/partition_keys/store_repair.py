"""What becomes of a lanes topic that has lost its tail.

Reading on would keep what the topic has lost, and would miss what was written since below the old end. So it
is read from its beginning again and compared with what was known. The owner of a partition knows better than
the topic: what waits is written once more, and what is done gets another tombstone.
"""

from __future__ import annotations

import json
import sqlite3

from .lanes import SequenceNumber
from .record_format import Place, Waiting

SCHEMA = """
CREATE TABLE waiting (
    partition INTEGER NOT NULL, first_offset INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    key BLOB NOT NULL, due_ms INTEGER NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
    kept_in INTEGER NOT NULL,
    PRIMARY KEY (partition, first_offset, timestamp)
) WITHOUT ROWID
"""
_PLACE = "partition, first_offset, timestamp"


class Comparison:
    """What a topic had before it lost its tail, beside what it has now.

    Attributes:
      active: Whether the topic is being read again.
    """

    def __init__(self, db: sqlite3.Connection, group: str) -> None:
        self.active = False
        self._db = db
        self._group = group
        self._done: set[Place] = set()

    def begin(self) -> None:
        """Put aside what is known. A second time, before it was finished, it changes nothing."""
        if not self.active:
            self._db.execute("ALTER TABLE waiting RENAME TO known")
            self._db.execute(SCHEMA)
            self.active = True

    def note_done(self, place: Place) -> None:
        """Note that the topic has a tombstone: what stood there was not lost."""
        if self.active:
            self._done.add(place)

    def finish(self) -> tuple[list[Waiting], list[Waiting]]:
        """What was known and is not in the topic any more, and what was not known and is in it."""
        lost = [waiting for waiting in self._only_in("known", "waiting") if waiting.place not in self._done]
        back = self._only_in("waiting", "known")
        self._db.execute("DROP TABLE known")
        self.active = False
        self._done.clear()
        return lost, back

    def _only_in(self, here: str, there: str) -> list[Waiting]:
        found = self._db.execute(
            f"SELECT {_PLACE}, key, due_ms, value, headers, kept_in FROM {here}"
            f" WHERE ({_PLACE}) NOT IN (SELECT {_PLACE} FROM {there})"
        )
        return [
            Waiting(
                Place(self._group, partition, SequenceNumber(offset, timestamp)),
                key,
                due_ms,
                value,
                unpack(packed),
                kept_in,
            )
            for partition, offset, timestamp, key, due_ms, value, packed, kept_in in found
        ]


def unpack(packed: str) -> list[tuple[str, bytes]]:
    """A record's headers, as the table has them."""
    return [(name, text.encode("latin-1")) for name, text in json.loads(packed)]
