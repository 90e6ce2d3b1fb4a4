"""The SQLite file of an index. One process opens it at a time; a damaged file is deleted and rebuilt."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..process.forks import leave_to_parent, reset_on_fork
from . import index_repair

#: SQLite's page cache. Random keys make the B-trees wide; the cache holds their upper levels for some million
#: rows.
CACHE_KIB = 8 * 1024
#: After a peak the file shrinks in steps of this many pages (of 4 KiB).
VACUUM_PAGES = 2_000


class IndexDamaged(Exception):
    """The file is damaged. It is only a cache: delete it (``discard``) and rebuild it."""

    def __init__(self, path: Path | None, reason: str) -> None:
        super().__init__(f"The delay index at {_place(path)} is damaged and is rebuilt: {reason}")
        self.path = path


class IndexInUse(Exception):
    """Another process has the file open."""


class IndexUnusable(Exception):
    """The index cannot be written. The text names the file, the reason and the remedy."""

    def __init__(self, path: Path | None, reason: Exception) -> None:
        super().__init__(
            f"The delay index at {_place(path)} cannot be written: {reason}. Delayed messages are safe in "
            "Kafka, and wait until the index is writable: free disk space, or set the broker's "
            "delay_index_dir to another directory."
        )


class Store:
    """An SQLite database with a schema, an identity, and a position in the log.

    SQLite holds an exclusive lock on the file. The operating system releases it when the process dies.

    Parameters:
      path: The file, which is created when missing; None for a private temporary one.
      schema: The tables, as SQL.
      version: The version of the schema. A file of an unknown version is emptied.
      upgrades: The statements that upgrade a file of an earlier version, by that version.

    Raises (every method):
      IndexDamaged: When the file is damaged.
      IndexUnusable: When the disk is full or the file cannot be written. Nothing was changed.
      IndexInUse: When another process has the file open; only the constructor.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        schema: str,
        version: int,
        upgrades: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self.path = path
        self._upgrades = upgrades or {}
        self._schema = f"CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID; {schema}"
        self._version = version
        with self._translated_errors():
            self._db = sqlite3.connect(path or "", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._translated_errors():
                self._prepare()
        except BaseException:
            self._db.close()
            raise
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the file to the parent: SQLite's close() would write to it and delete its write-ahead log."""
        leave_to_parent(self._db)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last transactions. The entries and next_offset still agree, since one
        # transaction writes both.
        self._db.execute(f"PRAGMA synchronous = {'OFF' if self.path is None else 'NORMAL'}")
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        with self._transaction():
            self._bring_to_version(self._db.execute("PRAGMA user_version").fetchone()[0])
        self._load_meta()

    def _bring_to_version(self, found: int) -> None:
        if found in self._upgrades:
            for statement in self._upgrades[found]:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {self._version}")
        elif found != self._version:
            self._clear()

    def close(self) -> None:
        """Close the file. A second call, or one from another thread, is allowed."""
        self._db.close()

    # Identity and progress

    @property
    def next_offset(self) -> int:
        """The offset after the last applied record; 0 for an empty index."""
        return self._next_offset

    @property
    def leader_epoch(self) -> int:
        """The leader epoch of the record before ``next_offset``, or of an earlier one; -1 for unknown."""
        return self._leader_epoch

    @property
    def complete_ms(self) -> int:
        """A time, in milliseconds since 1970: no tombstone that was written before it was missed.

        Kafka keeps a tombstone for ``delete.retention.ms``. An index that stays closed for longer may have
        missed one.
        """
        return self._complete_ms

    def belongs_to(self, identity: str) -> bool:
        return self._identity == identity

    def reset(self, identity: str, now_ms: int) -> None:
        """Empty the index, and assign it to the partition that ``identity`` names."""
        with self._translated_errors():
            with self._transaction():
                self._clear()
                self._db.execute("INSERT INTO meta VALUES ('identity', ?)", (identity,))
                # Reading starts now. A tombstone of a record that is read from now on was not compacted yet,
                # so Kafka keeps it for its whole retention.
                self._write_progress(0, now_ms, -1)
            self._load_meta()

    def shrink(self) -> None:
        """Return some of the free pages to the operating system."""
        with self._translated_errors():
            if self._db.execute("PRAGMA freelist_count").fetchone()[0] > 2 * VACUUM_PAGES:
                # execute() would take a single step of this pragma, which frees a single page.
                self._db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def _clear(self) -> None:
        tables = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            self._db.execute(f'DROP TABLE "{name}"')
        for statement in self._schema.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {self._version}")

    def _load_meta(self) -> None:
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        self._identity: str | None = meta.get("identity")
        self._next_offset: int = meta.get("next_offset", 0)
        self._complete_ms: int = meta.get("complete_ms", 0)
        # An earlier version, which does not write epochs, may have moved next_offset since.
        is_current = meta.get("epoch_offset") == self._next_offset
        self._leader_epoch: int = meta["leader_epoch"] if is_current else -1
        self._repair_until = index_repair.repair_until(meta)

    def _write_progress(self, next_offset: int, complete_ms: int, leader_epoch: int) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO meta VALUES ('next_offset', ?), ('complete_ms', ?), ('epoch_offset', ?),"
            " ('leader_epoch', ?)",
            (next_offset, complete_ms, next_offset, leader_epoch),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate SQLite's errors into those of this module."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a defect of this code, not of the file
        except sqlite3.DatabaseError as e:
            code = e.sqlite_errorcode & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise IndexInUse(f"{_place(self.path)} is open in another process") from e
            if isinstance(e, sqlite3.OperationalError):
                raise IndexUnusable(self.path, e) from e
            raise IndexDamaged(self.path, str(e)) from e


def discard(path: Path | None) -> None:
    """Delete the files of a closed index."""
    if path is None:
        return
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _place(path: Path | None) -> str:
    return f"{path}" if path is not None else f"a temporary file in {tempfile.gettempdir()}"
