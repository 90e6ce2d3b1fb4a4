"""The waiting entries of a lanes topic as a table in a temporary SQLite file."""

from __future__ import annotations

from ..process.sqlite_cache import SqliteCache, pack_headers, unpack_headers
from .lane import SequenceNumber
from .limits import Pace, decode_pace
from .record_format import Place, Waiting, is_mark, is_pace
from .unique import HEADER, Mark, Unique, decode_mark, read_unique

_SCHEMA = """
CREATE TABLE waiting (
    partition INTEGER NOT NULL, first_offset INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    key BLOB NOT NULL, due_ms INTEGER NOT NULL, value BLOB NOT NULL, headers TEXT,
    kept_in INTEGER NOT NULL,
    PRIMARY KEY (partition, first_offset, timestamp)
) WITHOUT ROWID
"""
_KEY_STATES_SCHEMA = """
CREATE TABLE key_states (
    partition INTEGER NOT NULL, record_key BLOB NOT NULL, lane BLOB NOT NULL, value BLOB NOT NULL,
    kept_in INTEGER NOT NULL,
    PRIMARY KEY (partition, record_key)
) WITHOUT ROWID
"""
_PLACE = "partition, first_offset, timestamp"
_AT_PLACE = "partition = ? AND first_offset = ? AND timestamp = ?"
_COLUMNS = f"{_PLACE}, key, due_ms, value, headers, kept_in"
#: The columns of _COLUMNS.
_Row = tuple[int, int, int, bytes, int, bytes, str | None, int]


class WaitingTable(SqliteCache):
    """The waiting entries of one group. See ``SqliteCache`` for its use and for the errors of its methods."""

    NAME = "table of the messages that wait for their partition keys"
    REMEDY = (
        "The messages are safe in Kafka, and wait until the table is writable: free disk space, or set "
        "TMPDIR to another directory."
    )
    SCHEMA = f"{_SCHEMA};{_KEY_STATES_SCHEMA}"

    def __init__(self, group: str) -> None:
        super().__init__()
        self._group = group

    def clear(self) -> None:
        self._query("DELETE FROM waiting")
        self._query("DELETE FROM key_states")

    def put(self, waiting: Waiting, kept_in: int) -> None:
        """Add an entry, or replace the one at its place.

        Parameters:
          kept_in: The partition of the lanes topic that its record was read from.
        """
        place, packed = waiting.place, pack_headers(waiting.headers)
        self._query(
            "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (place.partition, *place.sequence, waiting.key, waiting.due_ms, waiting.value, packed, kept_in),
        )

    def remove(self, place: Place) -> bytes | None:
        """Remove the entry at ``place``; return its key, or None when there is no entry."""
        found = self._query(
            f"DELETE FROM waiting WHERE {_AT_PLACE} RETURNING key", (place.partition, *place.sequence)
        )
        return found[0][0] if found else None

    def of_partition(self, partition: int) -> list[tuple[bytes, SequenceNumber, int, int]]:
        """See ``WaitingStore.waiting``."""
        found = self._query(
            "SELECT key, first_offset, timestamp, due_ms, kept_in FROM waiting WHERE partition = ?"
            " ORDER BY first_offset, timestamp",
            (partition,),
        )
        return [
            (key, SequenceNumber(offset, timestamp), due, kept_in)
            for key, offset, timestamp, due, kept_in in found
        ]

    def get(self, place: Place) -> Waiting | None:
        found = self._query(
            f"SELECT {_COLUMNS} FROM waiting WHERE {_AT_PLACE}", (place.partition, *place.sequence)
        )
        return self._waiting(found[0]) if found else None

    def uniques(self, partition: int) -> dict[SequenceNumber, Unique]:
        """The rules of the waiting messages of a partition that are unique."""
        found = self._query(
            "SELECT first_offset, timestamp, headers FROM waiting WHERE partition = ? AND headers LIKE ?",
            (partition, f"%{HEADER}%"),
        )
        rules = {SequenceNumber(o, t): read_unique(unpack_headers(packed)) for o, t, packed in found}
        return {sequence: unique for sequence, unique in rules.items() if unique is not None}

    def put_key_state(
        self, partition: int, record_key: bytes, lane: bytes, value: bytes, kept_in: int
    ) -> None:
        """Add the unique mark or the pace of a lane, or replace it."""
        self._query(
            "INSERT OR REPLACE INTO key_states VALUES (?, ?, ?, ?, ?)",
            (partition, record_key, lane, value, kept_in),
        )

    def remove_key_state(self, partition: int, record_key: bytes) -> None:
        self._query("DELETE FROM key_states WHERE partition = ? AND record_key = ?", (partition, record_key))

    def marks(self, partition: int) -> dict[bytes, Mark]:
        """The unique marks of a partition of the queue, by lane."""
        return {
            lane: decode_mark(value, kept_in)
            for record_key, lane, value, kept_in in self._key_states(partition)
            if is_mark(record_key)
        }

    def paces(self, partition: int) -> dict[bytes, Pace]:
        """The paces of a partition of the queue, by lane."""
        return {
            lane: decode_pace(value, kept_in)
            for record_key, lane, value, kept_in in self._key_states(partition)
            if is_pace(record_key)
        }

    def _key_states(self, partition: int) -> list[tuple[bytes, bytes, bytes, int]]:
        return self._query(
            "SELECT record_key, lane, value, kept_in FROM key_states WHERE partition = ?", (partition,)
        )

    def places(self) -> list[tuple[Place, int]]:
        """See ``WaitingStore.places``."""
        found = self._query(f"SELECT {_PLACE}, kept_in FROM waiting")
        return [(self._place(*place), kept_in) for *place, kept_in in found]

    def count(self) -> int:
        ((counted,),) = self._query("SELECT count(*) FROM waiting")
        return int(counted)

    def longest(self, limit: int) -> list[tuple[bytes, int, int]]:
        """See ``WaitingStore.longest``."""
        return self._query(
            "SELECT key, count(*) AS n, min(due_ms) FROM waiting GROUP BY key ORDER BY n DESC, key LIMIT ?",
            (limit,),
        )

    # Two states of the topic

    def set_aside(self) -> None:
        """Keep the entries as the earlier ones, and begin with an empty table."""
        with self.transaction():
            self._db.execute("ALTER TABLE waiting RENAME TO earlier")
            self._db.execute(_SCHEMA)
            self._db.execute("DELETE FROM key_states")  # they are read again

    def drop_earlier(self) -> list[Waiting]:
        """Forget the earlier entries; return those that are not present ones."""
        lost = self._query(
            f"SELECT {_COLUMNS} FROM earlier WHERE ({_PLACE}) NOT IN (SELECT {_PLACE} FROM waiting)"
        )
        self._query("DROP TABLE earlier")
        return [self._waiting(row) for row in lost]

    def _place(self, partition: int, offset: int, timestamp: int) -> Place:
        return Place(self._group, partition, SequenceNumber(offset, timestamp))

    def _waiting(self, row: _Row) -> Waiting:
        partition, offset, timestamp, key, due_ms, value, packed, kept_in = row
        place = self._place(partition, offset, timestamp)
        return Waiting(place, key, due_ms, value, unpack_headers(packed), kept_in)
