"""The check of the index files of a machine from outside."""

from __future__ import annotations

import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from broker.delays import index_check
from broker.delays.index_files import Identity, IndexFiles

TOPIC = "shop-delayed"
Usage = namedtuple("Usage", "total used free")


def created(directory: Path, partition: int = 0) -> Path:
    """The file of an index that a worker has left behind."""
    files = IndexFiles(directory)
    files.open(Identity("cluster", TOPIC, "id", partition), now_ms=1_000, keep_ms=1_000).close()
    return directory / "cluster" / TOPIC / f"{partition}.sqlite3"


def problems(directory: Path) -> dict[str, tuple[str, bool]]:
    faults = IndexFiles(directory).check(TOPIC)
    assert faults is not None
    return {Path(fault.path).name: (fault.problem, fault.stops_forwarding) for fault in faults}


def test_the_files_of_a_worker_have_no_fault_also_while_it_has_them_open(tmp_path: Path) -> None:
    created(tmp_path)
    with_open = IndexFiles(tmp_path).open(Identity("cluster", TOPIC, "id", 1), now_ms=1_000, keep_ms=1_000)
    assert problems(tmp_path) == {}
    with_open.close()


def test_a_machine_without_a_worker_has_no_directory_and_none_is_created(tmp_path: Path) -> None:
    assert IndexFiles(tmp_path / "none").check(TOPIC) is None
    assert not (tmp_path / "none").exists()
    assert IndexFiles(":memory:").check(TOPIC) is None


def test_the_default_directory_is_not_created_by_a_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert IndexFiles().check(TOPIC) is None
    assert list(tmp_path.iterdir()) == []


def test_a_process_with_an_open_index_reads_no_file_of_it(tmp_path: Path) -> None:
    files = IndexFiles(tmp_path)
    index = files.open(Identity("cluster", TOPIC, "id", 0), now_ms=1_000, keep_ms=1_000)
    assert files.check(TOPIC) is None
    index.close()


def test_a_damaged_file_and_one_of_a_later_version_are_rebuilt(tmp_path: Path) -> None:
    created(tmp_path, 0).write_bytes(b"no database" * 20)
    created(tmp_path, 1).write_bytes(b"SQLite")
    database = sqlite3.connect(created(tmp_path, 2))
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("PRAGMA user_version = 99")
    database.close()
    assert problems(tmp_path) == {
        "0.sqlite3": ("is damaged", False),
        "1.sqlite3": ("is damaged", False),
        "2.sqlite3": ("has the unknown version 99: that of a later broker", False),
    }


def test_a_file_that_cannot_be_read_and_a_directory_that_is_none_stop_the_forwarding(tmp_path: Path) -> None:
    path = created(tmp_path)
    path.unlink()
    path.mkdir()
    assert problems(tmp_path) == {"0.sqlite3": ("cannot be read: Is a directory", True)}
    (tmp_path / "file").touch()
    assert problems(tmp_path / "file") == {"file": ("is no directory", True)}


@pytest.mark.parametrize(("free", "stops"), [(0, True), (10 * 1024 * 1024, False)])
def test_a_full_disk_stops_the_forwarding_and_a_nearly_full_one_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, stops: bool
) -> None:
    created(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, free))
    faults = index_check.check_files(tmp_path, TOPIC)
    assert faults is not None
    (fault,) = faults
    assert (fault.path, fault.stops_forwarding) == (str(tmp_path), stops)
    assert "MiB of free space" in fault.problem
