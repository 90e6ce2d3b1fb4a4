"""A cache in SQLite that may be damaged, in use elsewhere, out of date or on a full disk."""

from __future__ import annotations

import gc
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from broker.process import sqlite_cache
from broker.process.sqlite_cache import CacheDamaged, CacheInUse, CacheUnusable, SqliteCache, discard


class Words(SqliteCache):
    NAME = "list of words"
    REMEDY = "Free disk space."
    SCHEMA = "CREATE TABLE words (word TEXT); CREATE INDEX by_word ON words (word)"

    def add(self, *words: str, fail: bool = False) -> None:
        with self.transaction():
            self._db.executemany("INSERT INTO words VALUES (?)", [(word,) for word in words])
            if fail:
                raise LookupError

    def forget(self) -> None:
        self._query("DELETE FROM words")

    def limit_pages(self, pages: int) -> None:
        """Let SQLite behave as on a full disk."""
        self._query(f"PRAGMA max_page_count = {pages}")

    @property
    def words(self) -> list[str]:
        return [word for (word,) in self._query("SELECT word FROM words ORDER BY word")]


class LaterWords(Words):
    VERSION = 2
    UPGRADES: ClassVar = {1: ["INSERT INTO words VALUES ('upgraded')"]}


class FailingUpgrade(Words):
    VERSION = 2
    UPGRADES: ClassVar = {1: ["DELETE FROM words", "DROP TABLE nowhere"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "words.sqlite3"


@pytest.fixture
def temporary() -> Iterator[Words]:
    words = Words()
    yield words
    words.close()


def test_a_closed_cache_keeps_its_rows_in_its_file(path: Path) -> None:
    first = Words(path)
    first.add("a", "b")
    first.close()
    first.close()

    second = Words(path)

    assert second.words == ["a", "b"]
    second.close()


def test_a_transaction_that_fails_changes_nothing_and_the_next_one_succeeds(temporary: Words) -> None:
    with pytest.raises(LookupError):
        temporary.add("a", fail=True)

    temporary.add("b")

    assert temporary.words == ["b"]


def test_a_full_disk_changes_nothing_and_the_error_names_the_cache_and_the_remedy(path: Path) -> None:
    words = Words(path)
    words.add("a")
    words.limit_pages(8)

    with pytest.raises(CacheUnusable, match=r"The list of words at .*words\.sqlite3 cannot be written.*Free"):
        words.add(*(letter * 1_000 for letter in "bcdefghijklmnopqrstuvwxyz"), *["z" * 4_000] * 8)
    assert words.words == ["a"]

    words.limit_pages(1_000)
    words.add("b")
    assert words.words == ["a", "b"]
    words.close()


def test_the_error_of_a_temporary_cache_names_the_directories_that_sqlite_uses(temporary: Words) -> None:
    temporary.limit_pages(4)

    with pytest.raises(CacheUnusable, match=r"a temporary file \(in \$SQLITE_TMPDIR, \$TMPDIR or /var/tmp\)"):
        temporary.add("a" * 100_000)


def test_a_file_that_is_no_database_is_damaged_and_a_discarded_one_is_created_again(path: Path) -> None:
    path.write_bytes(b"no database" * 1_000)

    with pytest.raises(CacheDamaged, match="is damaged and is rebuilt") as damaged:
        Words(path)
    assert damaged.value.path == path

    discard(path)
    words = Words(path)
    assert words.words == []
    words.close()


def test_a_discarded_cache_leaves_no_file_behind(path: Path) -> None:
    words = Words(path)
    words.add("a")
    for suffix in ("-wal", "-shm", "-journal"):  # as after a crash
        path.with_name(path.name + suffix).touch()
    words.close()

    discard(path)
    discard(None)

    assert list(path.parent.iterdir()) == []


def test_a_file_is_open_in_one_place_only(path: Path) -> None:
    words = Words(path)

    with pytest.raises(CacheInUse, match="is open in another process"):
        Words(path)

    words.close()
    Words(path).close()


def test_a_file_of_an_unknown_version_is_emptied(path: Path) -> None:
    newer = LaterWords(path)
    newer.add("a")
    newer.close()

    words = Words(path)

    assert words.words == []
    words.close()


def test_a_file_of_an_earlier_version_is_upgraded_once(path: Path) -> None:
    earlier = Words(path)
    earlier.add("a")
    earlier.close()

    for _ in range(2):
        words = LaterWords(path)
        assert words.words == ["a", "upgraded"]
        words.close()


def test_an_upgrade_that_fails_leaves_the_file_closed_and_as_it_was(path: Path) -> None:
    earlier = Words(path)
    earlier.add("a")
    earlier.close()

    with pytest.raises(CacheUnusable, match="no such table"):
        FailingUpgrade(path)

    words = Words(path)
    assert words.words == ["a"]
    words.close()


def test_a_defect_of_the_code_is_no_error_of_the_file(temporary: Words) -> None:
    temporary.close()

    with pytest.raises(sqlite3.ProgrammingError):
        temporary.add("a")


def test_an_emptied_cache_returns_its_pages_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_cache, "VACUUM_PAGES", 50)
    words = Words(path)
    words.add(*(f"{number:04}" * 250 for number in range(1_000)))
    words.forget()
    for _ in range(40):
        words.shrink()
    words.close()

    assert path.stat().st_size < 200 * 4096


def test_the_child_of_a_fork_leaves_the_file_to_its_parent(path: Path) -> None:
    words = Words(path)
    words.add("a")
    pid = os.fork()
    if pid == 0:
        del words  # a finaliser would write to the file and delete the write-ahead log
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    words.add("b")

    assert words.words == ["a", "b"]
    assert path.with_name(path.name + "-wal").exists()
    words.close()
