"""What the console knows of Kafka: an SQLite file that can be deleted at any time and is filled again."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ... import HistoryEvent
from ...process.strict_json import dumps

logger = logging.getLogger(__name__)

#: A file of another version is deleted.
VERSION = 2
#: The size of SQLite's page cache, by connection.
PAGE_CACHE_KIB = 4_000
SCHEMA = """
CREATE TABLE state (name TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, document TEXT NOT NULL);
CREATE TABLE sample (
    series TEXT NOT NULL, at_ms INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (series, at_ms)
) WITHOUT ROWID;
CREATE TABLE event (
    at_ms INTEGER NOT NULL, message_id TEXT NOT NULL, kind TEXT NOT NULL, attempt INTEGER NOT NULL,
    worker TEXT NOT NULL, actor TEXT NOT NULL, queue TEXT NOT NULL, run_s REAL, queue_s REAL,
    error_type TEXT, error TEXT, retry_at_ms INTEGER,
    PRIMARY KEY (at_ms, message_id, kind, attempt, worker)
) WITHOUT ROWID;
CREATE INDEX event_of_message ON event (message_id);
CREATE INDEX event_of_actor ON event (actor, at_ms);
CREATE INDEX event_of_queue ON event (queue, at_ms);
CREATE INDEX event_of_kind ON event (kind, at_ms);
CREATE INDEX event_of_error ON event (error_type, at_ms) WHERE error_type IS NOT NULL;
CREATE TABLE frames (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE dead_letter (
    queue TEXT NOT NULL, part INTEGER NOT NULL, place INTEGER NOT NULL, message_id TEXT, actor TEXT,
    at_ms INTEGER NOT NULL, error_type TEXT NOT NULL, error TEXT NOT NULL, frames INTEGER NOT NULL,
    last_line TEXT NOT NULL, ending TEXT, retries INTEGER NOT NULL, redrives INTEGER NOT NULL,
    not_redrivable TEXT, record TEXT, round INTEGER NOT NULL, message TEXT,
    PRIMARY KEY (queue, part, place)
) WITHOUT ROWID;
CREATE INDEX dead_letter_of_error ON dead_letter (error_type, actor, queue, at_ms);
CREATE INDEX dead_letter_of_actor ON dead_letter (actor, at_ms);
CREATE INDEX dead_letter_of_queue ON dead_letter (queue, at_ms);
CREATE INDEX dead_letter_of_message ON dead_letter (message_id);
CREATE INDEX dead_letter_by_time ON dead_letter (at_ms);
CREATE VIEW whole_dead_letter AS
    SELECT d.*, f.text || d.last_line || coalesce(d.error || d.ending, '') AS traceback
    FROM dead_letter d JOIN frames f ON f.id = d.frames;
"""

Row = dict[str, Any]


class StateCache:
    """The cache. One thread at a time writes; each thread reads the last committed state.

    Parameters:
      path: The file. A damaged one, and one of another version, is deleted and created anew.

    Attributes:
      version: Grows after each change of a named document.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writing = threading.Lock()
        self.version = 0
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        try:
            self._writer = self._open()
        except sqlite3.DatabaseError as e:
            logger.warning("The cache %s is damaged and is filled again: %s", path, e)
            self._delete()
            self._writer = self._open()

    def _open(self) -> sqlite3.Connection:
        db = self._connect()
        try:
            db.execute("PRAGMA journal_mode = WAL")
            # It is filled again from Kafka: a power cut may cost it.
            db.execute("PRAGMA synchronous = OFF")
            ((found,),) = db.execute("PRAGMA user_version").fetchall()
            if found != VERSION:
                found_names = (
                    "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY type DESC"
                )
                for kind, name in db.execute(found_names).fetchall():
                    db.execute(f'DROP {kind} "{name}"')
                db.executescript(SCHEMA)
                db.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            db.close()
            raise
        return db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        db.execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")
        # The matches of a text are kept in a table: 16 MB for 100,000 of them.
        db.execute("PRAGMA temp_store = FILE")
        return db

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def close(self) -> None:
        with self._writing:
            for reader in self._readers:
                reader.close()
            self._writer.close()

    # Writing

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Commit the statements of the block together, or none of them after an error."""
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise

    def put(self, at_ms: int, documents: Mapping[str, Any]) -> None:
        """Replace named documents."""
        rows = [(name, at_ms, dumps(document)) for name, document in documents.items()]
        with self.writing() as db:
            db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", rows)
        self.version += 1

    def add_events(self, events: Iterable[HistoryEvent]) -> None:
        """Add events of the history. Known ones are left as they are."""
        with self.writing() as db:
            db.executemany(
                "INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_event, events)
            )

    # Reading

    def get(self, name: str, default: Any = None) -> Any:
        """A named document, or the default."""
        found = self.query("SELECT document FROM state WHERE name = ?", (name,))
        return json.loads(found[0]["document"]) if found else default

    def query(self, statement: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[Row]:
        """The rows of a statement, each by the names of its columns."""
        cursor = self._reader().execute(statement, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def keep(self, name: str, statement: str, parameters: Mapping[str, object]) -> None:
        """Keep the rows of a statement as the table ``temp.NAME``, for this thread until its next call."""
        reader = self._reader()
        reader.execute(f"DROP TABLE IF EXISTS temp.{name}")
        reader.execute(f"CREATE TEMP TABLE {name} AS {statement}", parameters)

    def _reader(self) -> sqlite3.Connection:
        """This thread's connection."""
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._connect()
            self._readers.append(reader)
        return reader

    def points(self, series: str, since_ms: int) -> list[tuple[int, float]]:
        """The samples of a series, by time."""
        found = self.query(
            "SELECT at_ms, value FROM sample WHERE series = ? AND at_ms >= ? ORDER BY at_ms",
            (series, since_ms),
        )
        return [(row["at_ms"], row["value"]) for row in found]


def _event(event: HistoryEvent) -> tuple[object, ...]:
    return (
        event.at_ms, event.message_id, str(event.kind), event.attempt, event.worker_id, event.actor_name,
        event.queue_name, event.run_s, event.queue_s, event.error_type, event.error, event.retry_at_ms,
    )  # fmt: skip
