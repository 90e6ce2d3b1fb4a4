"""A cache of Kafka's records in SQLite, which can be deleted and rebuilt at any time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from .forks import leave_to_parent, reset_on_fork

#: After a peak the file shrinks in steps of this many pages (of 4 KiB).
VACUUM_PAGES = 2_000


class CacheDamaged(Exception):
    """A file is damaged: delete it (``discard``) and rebuild it."""

    def __init__(self, text: str, path: Path | None) -> None:
        super().__init__(text)
        self.path = path


class CacheInUse(Exception):
    """Another process has the file open."""


class CacheUnusable(Exception):
    """A cache cannot be written. The text names the file, the reason and the remedy."""


class SqliteCache:
    """An SQLite database with a schema and its version. One thread at a time uses it.

    SQLite holds an exclusive lock on the file. The operating system releases it when the process dies. The
    child of a fork leaves the file to its parent.

    Parameters:
      path: The file, which is created when missing; None for a private temporary one.

    Raises (every method):
      CacheDamaged: When the file is damaged.
      CacheUnusable: When the disk is full or the file cannot be written. Nothing was changed.
      CacheInUse: When another process has the file open; only the constructor.
    """

    #: The cache's name in the texts of errors.
    NAME: ClassVar[str]
    #: The remedy when it cannot be written, for the text of that error: a sentence or more.
    REMEDY: ClassVar[str]
    #: The tables, as SQL.
    SCHEMA: ClassVar[str]
    #: The version of the schema, 1 or above. A file of an unknown version is emptied.
    VERSION: ClassVar[int] = 1
    #: The statements that upgrade a file of an earlier version, by that version.
    UPGRADES: ClassVar[Mapping[int, Sequence[str]]] = MappingProxyType({})
    #: The size of SQLite's page cache; by default SQLite's own.
    PAGE_CACHE_KIB: ClassVar[int] = 2_000

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        with self._translated_errors():
            self._db = sqlite3.connect(path or "", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._translated_errors():
                self._set_up()
            with self.transaction():
                self._bring_to_version()
            self._load()
        except BaseException:
            self._db.close()
            raise
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Leave the file to the parent: SQLite's close() would write to it and delete its write-ahead log."""
        leave_to_parent(self._db)

    def close(self) -> None:
        """Close the file. A second call, or one from another thread, is allowed."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the statements of the block together, or none of them after an error."""
        with self._translated_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def shrink(self) -> None:
        """Return some of the free pages to the operating system."""
        if self._query("PRAGMA freelist_count")[0][0] > 2 * VACUUM_PAGES:
            with self._translated_errors():
                # execute() would take a single step of this pragma, which frees a single page.
                self._db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def damaged(self, reason: object) -> CacheDamaged:
        """The error of this cache when its file is damaged."""
        return CacheDamaged(
            f"The {self.NAME} at {_place(self.path)} is damaged and is rebuilt: {reason}", self.path
        )

    @classmethod
    def unusable(cls, path: Path | None, reason: object) -> CacheUnusable:
        """The error of such a cache at ``path`` when it cannot be written."""
        return CacheUnusable(f"The {cls.NAME} at {_place(path)} cannot be written: {reason}. {cls.REMEDY}")

    def _load(self) -> None:
        """Read the part of the file that a subclass keeps in memory. Called when the file is open."""

    def _set_up(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last transactions, but no part of one: the rows still agree with a position
        # in the log that the same transaction wrote.
        self._db.execute(f"PRAGMA synchronous = {'OFF' if self.path is None else 'NORMAL'}")
        self._db.execute(f"PRAGMA cache_size = -{self.PAGE_CACHE_KIB}")

    def _bring_to_version(self) -> None:
        ((found,),) = self._query("PRAGMA user_version")
        if found in self.UPGRADES:
            for statement in self.UPGRADES[found]:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {self.VERSION}")
        elif found != self.VERSION:
            self._clear()

    def _clear(self) -> None:
        """Empty the file. Call it within a transaction."""
        for (name,) in self._query("SELECT name FROM sqlite_master WHERE type = 'table'"):
            self._db.execute(f'DROP TABLE "{name}"')
        for statement in self.SCHEMA.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {self.VERSION}")

    def _query(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Execute one statement; return its rows, each a tuple."""
        with self._translated_errors():
            return self._db.execute(statement, parameters).fetchall()

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
                raise CacheInUse(f"{_place(self.path)} is open in another process") from e
            if isinstance(e, sqlite3.OperationalError):
                raise self.unusable(self.path, e) from e
            raise self.damaged(e) from e


def discard(path: Path | None) -> None:
    """Delete the files of a closed cache."""
    if path is None:
        return
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def pack_headers(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """The headers of a record as the value of one column: NULL for no headers."""
    if not headers:
        return None
    return json.dumps([(name, (value or b"").decode("latin-1")) for name, value in headers])


def unpack_headers(packed: str | None) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, text.encode("latin-1")) for name, text in json.loads(packed)) if packed else ()


def _place(path: Path | None) -> str:
    # SQLite chooses the directory (https://www.sqlite.org/tempfiles.html#temporary_file_storage_locations).
    return f"{path}" if path is not None else "a temporary file (in $SQLITE_TMPDIR, $TMPDIR or /var/tmp)"
