"""Repairs a lanes topic after a truncation.

A reader that continued would keep the records that the topic has lost, and would miss the ones that were
written since below the old end. The topic is therefore read again from its beginning and compared with the
known entries. The owner of a partition has the better knowledge: it writes lost entries that still wait a
second time, and another tombstone for each entry that is done.
"""

from __future__ import annotations

import json
import sqlite3

from .lane import SequenceNumber
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
    """The entries of a lanes topic before a truncation, compared with the entries after it.

    Attributes:
      active: Whether the topic is being read again.
      done: The places with a tombstone (done, or flushed) at the last repeated read of the topic.
    """

    def __init__(self, db: sqlite3.Connection, group: str) -> None:
        self.active = False
        self._db = db
        self._group = group
        self.done: set[Place] = set()

    def begin(self) -> None:
        """Set the known entries aside. A second call before :meth:`finish` changes nothing."""
        if not self.active:
            self._db.execute("ALTER TABLE waiting RENAME TO known")
            self._db.execute(SCHEMA)
            self.active = True
            self.done = set()

    def note_done(self, place: Place) -> None:
        """Note that the topic has a tombstone for ``place``: its entry was not lost."""
        if self.active:
            self.done.add(place)

    def finish(self) -> tuple[list[Waiting], list[Waiting]]:
        """End the comparison.

        Returns:
          The known entries that the topic has lost, and the entries of the topic that were not known.
        """
        lost = [waiting for waiting in self._only_in("known", "waiting") if waiting.place not in self.done]
        back = self._only_in("waiting", "known")
        self._db.execute("DROP TABLE known")
        self.active = False
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
    """Decode the headers of a record from the table's text."""
    return [(name, text.encode("latin-1")) for name, text in json.loads(packed)]
