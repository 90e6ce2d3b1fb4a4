"""Looks at the index files of this machine from outside: their directory, their disk and their headers.

The files are not opened with SQLite, which would lock them, or write to them. Only their first bytes are
read (https://www.sqlite.org/fileformat.html#the_database_header).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import index_schema

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\0"
#: The place of ``PRAGMA user_version`` in the header.
VERSION_PLACE = slice(60, 64)
#: With less free space a burst of delays soon fills the disk: a million of them take some 500 MB.
LOW_SPACE_BYTES = 64 * 1024 * 1024
#: SQLite cannot write a page and its log with less.
NO_SPACE_BYTES = 1024 * 1024
SUFFIX = ".sqlite3"


@dataclass(frozen=True, slots=True)
class IndexFileFinding:
    """A fault of an index file, or of their directory.

    Attributes:
      path: The file or the directory.
      problem: The fault, as the end of a sentence about it.
      remedy: The remedy.
      stops_forwarding: Whether no worker of this machine forwards the delayed messages of its partitions
        meanwhile; otherwise the file is rebuilt from Kafka.
    """

    path: str
    problem: str
    remedy: str
    stops_forwarding: bool


def check_files(directory: Path, topic: str) -> list[IndexFileFinding] | None:
    """The faults of the index files of a delayed topic; None when the directory does not exist.

    Call it in a process that has none of the files open: to close a file releases SQLite's locks on it.
    """
    if not directory.exists():
        return None
    return list(_faults(directory, topic))


def _faults(directory: Path, topic: str) -> Iterator[IndexFileFinding]:
    if not directory.is_dir():
        yield _stopping(directory, "is no directory", "remove it, or set delay_index_dir to another one")
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield _stopping(
            directory,
            f"may not be written by the user {os.getuid()}",
            "run dkb as the user of the workers, or correct its owner and mode",
        )
        return
    free = shutil.disk_usage(directory).free
    if free < LOW_SPACE_BYTES:
        yield IndexFileFinding(
            str(directory),
            f"is on a disk with {free / 1024 / 1024:,.0f} MiB of free space",
            "free disk space, or set delay_index_dir to a directory on another disk",
            stops_forwarding=free < NO_SPACE_BYTES,
        )
    for path in sorted(directory.glob(f"*/{topic}/*{SUFFIX}")):
        yield from _faults_of_file(path)


def _faults_of_file(path: Path) -> Iterator[IndexFileFinding]:
    owner = "correct its owner and mode; workers of one machine run as one user"
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError as e:
        yield _stopping(path, f"cannot be read: {e.strerror}", owner)
        return
    if not os.access(path, os.W_OK):
        yield _stopping(path, f"may not be written by the user {os.getuid()}", owner)
    if not header:
        return  # a new one, whose content is in its write-ahead log
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        yield IndexFileFinding(
            str(path),
            "is damaged",
            "the next owner of its partition rebuilds it from Kafka; look at the disk",
            stops_forwarding=False,
        )
        return
    version = int.from_bytes(header[VERSION_PLACE], "big")
    if version not in (0, index_schema.VERSION, *index_schema.UPGRADES):
        yield IndexFileFinding(
            str(path),
            f"has the unknown version {version}: that of a later broker",
            "finish the deployment: each broker of this version empties it and rebuilds it from Kafka",
            stops_forwarding=False,
        )


def _stopping(path: Path, problem: str, remedy: str) -> IndexFileFinding:
    return IndexFileFinding(str(path), problem, remedy, stops_forwarding=True)
