"""Where the indexes of delayed messages are kept on disk, and what becomes of old ones."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .index import DelayIndex
from .index_store import IndexDamaged, IndexInUse, IndexUnusable, discard

logger = logging.getLogger(__name__)

SUFFIX = ".sqlite3"


@dataclass(frozen=True, slots=True)
class Identity:
    """Names one partition of one topic, as it was created: a topic made anew has another ``topic_id``."""

    cluster_id: str
    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.cluster_id}/{self.topic}/{self.topic_id}/{self.partition}"


def default_directory() -> Path:
    """In ``$XDG_CACHE_HOME`` or ``~/.cache``; where those cannot be written, in the temporary directory."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    directory = (Path(cache) if cache else Path("~/.cache").expanduser()) / "dramatiq-kafka-delays"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        usable = os.access(directory, os.W_OK)
    except (OSError, RuntimeError):
        usable = False
    return directory if usable else Path(tempfile.gettempdir()) / f"dramatiq-kafka-delays-{os.getuid()}"


class IndexFiles:
    """The directory that the processes of one machine keep their indexes in.

    A file belongs to a partition, not to a process: the process that takes a partition over on the same
    machine goes on where the last one stopped. Its name is the partition's, so there are never more files
    than partitions.

    Parameters:
      directory: Where; None for :func:`default_directory`.
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = Path(directory) if directory is not None else None

    def open(self, identity: Identity, *, now_ms: int, keep_ms: int) -> DelayIndex:
        """Open the index of a partition, emptied when it is none of this partition, damaged, or too old to
        trust.

        Parameters:
          keep_ms: How old an index may be (see ``DelayIndex.complete_ms``).

        Raises:
          IndexUnusable: When there is no place for it.
        """
        path = self._path(identity)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise IndexUnusable(path, e) from e
        index = self._open(path)
        if not index.belongs_to(str(identity)) or not 0 <= now_ms - index.complete_ms < keep_ms:
            index.reset(str(identity), now_ms)
        return index

    def _open(self, path: Path) -> DelayIndex:
        try:
            return DelayIndex(path)
        except IndexDamaged as e:
            logger.warning("%s", e)
            discard(path)
            return DelayIndex(path)
        except IndexInUse as e:
            # Its process was given up for dead and is not. Until it lets go, there are two copies.
            logger.warning("The delay index is rebuilt in a temporary file: %s", e)
            return DelayIndex()

    def _path(self, identity: Identity) -> Path:
        if self._directory is None:
            self._directory = default_directory()
        return self._directory / identity.cluster_id / identity.topic / f"{identity.partition}{SUFFIX}"
