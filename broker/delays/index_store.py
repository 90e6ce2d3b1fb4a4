"""The SQLite file of an index: opened by one process, checked, and thrown away when it is no good."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..process.forks import leave_to_parent, reset_on_fork
from . import index_repair as mending

#: SQLite's page cache. Random keys make its B-trees wide; this holds the upper levels of some million rows.
CACHE_KIB = 8 * 1024
#: After a flood the file is given back to the operating system in steps of this many pages (of 4 KiB).
VACUUM_PAGES = 2_000


class IndexDamaged(Exception):
    """The file is not what was written. It is only a cache: throw it away (``discard``) and rebuild it."""

    def __init__(self, path: Path | None, reason: str) -> None:
        super().__init__(f"The delay index at {_place(path)} is damaged, and is rebuilt: {reason}")
        self.path = path


class IndexInUse(Exception):
    """Another process has the file open."""


class IndexUnusable(Exception):
    """No index can be kept there: the text says where, why, and what to do about it."""

    def __init__(self, path: Path | None, reason: Exception) -> None:
        super().__init__(
            f"The delay index at {_place(path)} cannot be written: {reason}. Delayed messages are safe in "
            "Kafka and wait until it can: make room there, or name another directory with the broker's "
            "delay_index_dir."
        )


class Store:
    """An SQLite database with a schema, an identity, and the place in the log that it has got to.

    SQLite holds an exclusive lock on the file, which the operating system drops when the process dies.

    Parameters:
      path: The file, which is made when missing; None for a private one that goes away when it is closed.
      schema: Its tables, as SQL.
      version: Changes with the schema: a file of another version is emptied.
      upgrades: The statements that make a file of this version out of one of an earlier version, by that
        version.

    Raises (every method):
      IndexDamaged: When the file is damaged.
      IndexUnusable: When the disk is full or the file cannot be written. Nothing has been changed then.
      IndexInUse: When another process has it; only when it is opened.
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
        with self._understood():
            self._db = sqlite3.connect(path or "", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._understood():
                self._prepare()
        except BaseException:
            self._db.close()
            raise
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the file to the parent: SQLite's own close() would write into it, and delete its log."""
        leave_to_parent(self._db)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last transactions. It cannot part what was applied from next_offset, which
        # is written together with it.
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
        """Close it. It can be closed twice, and by another thread than the one that uses it."""
        self._db.close()

    # What it belongs to and how far it has got

    @property
    def next_offset(self) -> int:
        """The offset up to which records have been applied; 0 when none has."""
        return self._next_offset

    @property
    def leader_epoch(self) -> int:
        """The leader epoch of the record before ``next_offset``, or of an earlier one; -1 when it is not
        known.
        """
        return self._leader_epoch

    @property
    def complete_ms(self) -> int:
        """A time of which it is known that no tombstone written before it was missed.

        Kafka keeps a tombstone for ``delete.retention.ms`` only: left alone for longer, the index may miss
        one for good.
        """
        return self._complete_ms

    def belongs_to(self, identity: str) -> bool:
        return self._identity == identity

    def reset(self, identity: str, now_ms: int) -> None:
        """Empty it, for the partition that ``identity`` names."""
        with self._understood():
            with self._transaction():
                self._clear()
                self._db.execute("INSERT INTO meta VALUES ('identity', ?)", (identity,))
                # Reading starts now. A tombstone that hides what is read from now on was not compacted before
                # now, so Kafka keeps it for its whole retention yet.
                self._write_progress(0, now_ms, -1)
            self._load_meta()

    def shrink(self) -> None:
        """Give a part of the free pages back to the operating system."""
        with self._understood():
            if self._db.execute("PRAGMA freelist_count").fetchone()[0] > 2 * VACUUM_PAGES:
                # Not execute(): it takes a single step of this pragma, which frees a single page.
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
        # A version that knows nothing of epochs may have gone on from where this one was.
        goes_with_it = meta.get("epoch_offset") == self._next_offset
        self._leader_epoch: int = meta["leader_epoch"] if goes_with_it else -1
        self._mend_until = mending.until(meta)

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
    def _understood(self) -> Iterator[None]:
        """Say in this module's terms what SQLite says."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # it is this code that is wrong, not the file
        except sqlite3.DatabaseError as e:
            code = e.sqlite_errorcode & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise IndexInUse(f"{_place(self.path)} is open in another process") from e
            if isinstance(e, sqlite3.OperationalError):
                raise IndexUnusable(self.path, e) from e
            raise IndexDamaged(self.path, str(e)) from e


def discard(path: Path | None) -> None:
    """Remove the files of an index that is closed."""
    if path is None:
        return
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _place(path: Path | None) -> str:
    return f"{path}" if path is not None else f"a temporary file in {tempfile.gettempdir()}"
