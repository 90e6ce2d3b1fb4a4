"""The tables of a delay index, the upgrades from earlier versions, and the row of a delay.

The files of earlier versions are read, so the names of tables and columns stay. ``settled`` means that Kafka
has the delay's tombstone; ``told`` means that Kafka has the decision about a cancel request.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ..process.sqlite_cache import unpack_headers
from .record_format import KEY_SUFFIX_LENGTH, Delay, Outcome

#: The states of a delay.
WAITING, FORWARDED, CANCELLED, FLUSHED = range(4)
#: The outcome in the tombstone of a delay, by its state.
OUTCOMES = {FORWARDED: Outcome.FORWARDED, CANCELLED: Outcome.CANCELLED, FLUSHED: Outcome.FLUSHED}

VERSION = 2
_TO_FORWARD = f"CREATE INDEX to_forward ON delays (due_ms) WHERE state = {WAITING}"
_NOTES = (
    "CREATE TABLE IF NOT EXISTS cancel_notes (id TEXT PRIMARY KEY, asked_by TEXT NOT NULL,"
    " reason TEXT NOT NULL, requested_ms INTEGER, queue TEXT NOT NULL) WITHOUT ROWID"
)
SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE delays (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT {WAITING}, settled INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,    -- how often it may have been forwarded
    key BLOB, headers TEXT, value BLOB NOT NULL, checksum INTEGER NOT NULL
);
{_TO_FORWARD};
CREATE INDEX by_queue ON delays (queue, due_ms) WHERE state = {WAITING};
CREATE INDEX to_settle ON delays (state) WHERE state <> {WAITING} AND settled = 0;
CREATE TABLE forwarded (row INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE);
CREATE TABLE cancels (
    id TEXT PRIMARY KEY, outcome TEXT NOT NULL, decided_ms INTEGER NOT NULL, told INTEGER NOT NULL
);
CREATE INDEX to_tell ON cancels (id) WHERE told = 0;
CREATE INDEX by_age ON cancels (decided_ms) WHERE told = 1;
{_NOTES}
"""
#: Executed whenever a file is opened. The table of the notes came without a version: an earlier version of
#: the broker, which does not know it, continues with the file, and would rebuild one of another version.
ON_OPENING = [_NOTES, "DELETE FROM cancel_notes WHERE id NOT IN (SELECT id FROM cancels)"]
#: The statements that upgrade a file, by the version that it has. Version 1 kept the end of a delay's backoff
#: in the file, by the wall clock.
UPGRADES = {1: ["DROP INDEX to_forward", "ALTER TABLE delays DROP COLUMN try_ms", _TO_FORWARD]}
#: The delays that back off in this process, and until when by its monotonic clock. The table ends with the
#: connection.
BACKOFFS = """
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE postponed (row INTEGER PRIMARY KEY, until_s REAL NOT NULL);
CREATE INDEX temp.by_end ON postponed (until_s)
"""
#: Selects the ids that belong to one message: its own id, a colon, and a number of a fixed length.
IDS_OF_MESSAGE = "id > ? AND id < ? AND length(id) = ?"
ROW_COLUMNS = "delays.row, id, queue, due_ms, value, headers, key, checksum"
#: The columns of ROW_COLUMNS.
RowValues = tuple[int, str, str, int, bytes, str | None, bytes | None, int]


@dataclass(frozen=True, slots=True)
class Row:
    """A delay and its row in the index."""

    row: int
    delay: Delay


def ids_of_message(message_id: str) -> tuple[str, str, int]:
    """The parameters of IDS_OF_MESSAGE. A semicolon follows the colon in ASCII."""
    return f"{message_id}:", f"{message_id};", len(message_id) + KEY_SUFFIX_LENGTH


def checksum_of(delay_id: str, queue: str, due_ms: int, value: bytes) -> int:
    """SQLite detects a damaged tree, but not a damaged value."""
    return zlib.crc32(value, zlib.crc32(f"{delay_id} {queue} {due_ms}".encode()))


def unpack_row(values: RowValues) -> Row | None:
    """The row that a query for ROW_COLUMNS found; None when it does not match its checksum."""
    row, delay_id, queue, due_ms, value, packed, key, checksum = values
    if checksum != checksum_of(delay_id, queue, due_ms, value):
        return None
    return Row(row, Delay(delay_id, queue, due_ms, value, unpack_headers(packed), key))
