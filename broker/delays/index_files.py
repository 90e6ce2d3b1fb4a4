"""The directory of the delay indexes, and the check whether an index in it is still usable."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..process.sqlite_cache import CacheDamaged, CacheInUse, discard
from .index import DelayIndex
from .index_check import SUFFIX, IndexFileFinding, check_files

logger = logging.getLogger(__name__)

#: SQLite's name of a database without a file that lasts (https://www.sqlite.org/inmemorydb.html).
TEMPORARY = ":memory:"


@dataclass(frozen=True, slots=True)
class Identity:
    """Names one partition of one topic as it was created: a recreated topic has another ``topic_id``."""

    cluster_id: str
    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.cluster_id}/{self.topic}/{self.topic_id}/{self.partition}"


def default_directory(*, create: bool = True) -> Path:
    """A directory in ``$XDG_CACHE_HOME`` or ``~/.cache``; the temporary directory if neither is writable.

    Parameters:
      create: Whether to create the first one. Otherwise it is the one that exists.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        directory = (Path(cache) if cache else Path("~/.cache").expanduser()) / "dramatiq-kafka-delays"
        if create:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(directory, os.W_OK):
            return directory
    except (OSError, RuntimeError):
        pass  # there is no home directory, or it may not be written
    return Path(tempfile.gettempdir()) / f"dramatiq-kafka-delays-{os.getuid()}"


class IndexFiles:
    """The directory in which the processes of one machine keep their indexes.

    A file belongs to a partition, not to a process: a process that takes over a partition on the same machine
    continues where the previous owner stopped. The file is named after the partition, so there are never more
    files than partitions.

    Parameters:
      directory: The directory; None for :func:`default_directory`, and TEMPORARY for no directory: each index
        is a temporary file, and is built from the topic by each process.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = Path(directory) if directory is not None else None
        self._has_opened = False

    def check(self, topic: str) -> list[IndexFileFinding] | None:
        """The faults of the index files of a delayed topic on this machine; None when there is no directory
        of them, or this process has one of them open.
        """
        if self._has_opened or str(self._directory) == TEMPORARY:
            return None
        return check_files(self._directory or default_directory(create=False), topic)

    def open(self, identity: Identity, *, now_ms: int, keep_ms: int) -> DelayIndex:
        """Open the index of a partition. An index of another partition, or one that is damaged or too old to
        trust, is emptied.

        Parameters:
          keep_ms: The maximum age of an index (see ``DelayIndex.complete_ms``).

        Raises:
          CacheUnusable: When the directory or the file cannot be written.
        """
        if str(self._directory) == TEMPORARY:
            index = DelayIndex()
            index.reset(str(identity), now_ms)
            return index
        self._has_opened = True
        path = self._path(identity)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise DelayIndex.unusable(path, e) from e
        index = self._open(path)
        if not index.belongs_to(str(identity)) or not 0 <= now_ms - index.complete_ms < keep_ms:
            index.reset(str(identity), now_ms)
        return index

    def _open(self, path: Path) -> DelayIndex:
        try:
            return DelayIndex(path)
        except CacheDamaged as e:
            logger.warning("%s", e)
            discard(path)
            return DelayIndex(path)
        except CacheInUse as e:
            # The group removed the other process, which still runs. It keeps the file until it stops.
            logger.warning("The delay index is rebuilt in a temporary file: %s", e)
            return DelayIndex()

    def _path(self, identity: Identity) -> Path:
        if self._directory is None:
            self._directory = default_directory()
        return self._directory / identity.cluster_id / identity.topic / f"{identity.partition}{SUFFIX}"
