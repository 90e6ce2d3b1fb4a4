"""The identity of an index, and its position in the log, in the index's SQLite file."""

from __future__ import annotations

from ..process.sqlite_cache import SqliteCache
from . import index_repair, index_schema


class Store(SqliteCache):
    """A cache with an identity and a position in the log. ``SqliteCache`` has the errors of its methods."""

    NAME = "delay index"
    REMEDY = (
        "Delayed messages are safe in Kafka, and wait until the index is writable: free disk space, or set "
        "the broker's delay_index_dir to another directory."
    )
    SCHEMA = index_schema.SCHEMA
    VERSION = index_schema.VERSION
    UPGRADES = index_schema.UPGRADES
    #: Random keys make the B-trees wide; the page cache holds their upper levels for some million rows.
    PAGE_CACHE_KIB = 8 * 1024

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
        with self.transaction():
            self._clear()
            self._db.execute("INSERT INTO meta VALUES ('identity', ?)", (identity,))
            # Reading starts now. A tombstone of a record that is read from now on was not compacted yet, so
            # Kafka keeps it for its whole retention.
            self._write_progress(0, now_ms, -1)
        self._load()

    def _bring_to_version(self) -> None:
        super()._bring_to_version()
        for statement in index_schema.ON_OPENING:
            self._db.execute(statement)

    def _load(self) -> None:
        meta = dict(self._query("SELECT name, value FROM meta"))
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
