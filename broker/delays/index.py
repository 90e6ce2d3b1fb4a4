"""The delays of one partition of the delayed topic, in due order, on disk.

The index is a cache of the partition: the result of applying its records in order up to ``next_offset``. It
can be deleted at any time. A row leaves the index only when its tombstone is read back from Kafka. Beyond the
log, the index holds the progress of this forwarder with a delay:

    WAITING -> FORWARDED ─┐
            -> CANCELLED ─┼-> done -> (tombstone read) removed
            -> FLUSHED  ──┘
               decided: needs a tombstone     Kafka has the tombstone

A delay whose forward failed backs off. The backoff goes by a monotonic clock and is not in the file, so
neither a wrong clock nor the end of the process makes it longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import index_repair
from .index_schema import (
    BACKOFFS,
    FORWARDED,
    IDS_OF_MESSAGE,
    OUTCOMES,
    ROW_COLUMNS,
    WAITING,
    Row,
    RowValues,
    ids_of_message,
    unpack_row,
)
from .index_store import Store
from .index_writing import apply_entry, cancels_of, compare_entry, decisions_to_publish, last_outcome
from .record_format import CancelDecision, Delay, Entry, Outcome

#: Waiting delays that were never postponed, and waiting delays that were.
_FRESH = f"state = {WAITING} AND row NOT IN (SELECT row FROM postponed)"
_POSTPONED = f"postponed JOIN delays ON delays.row = postponed.row AND delays.state = {WAITING}"


@dataclass(frozen=True, slots=True)
class PendingTombstone:
    """A decided delay that needs its tombstone."""

    row: int
    id: str
    outcome: Outcome


@dataclass(slots=True)
class Progress:
    """The result of a page.

    Attributes:
      forwarded: Delays whose messages Kafka has in their queues.
      postponed: Delays that were not, or perhaps not, forwarded; each with the end of its backoff in seconds
        of a monotonic clock.
      tombstones: Delays whose tombstones Kafka has.
      published: Cancel decisions that Kafka has.
    """

    forwarded: list[Row] = field(default_factory=list)
    postponed: list[tuple[Row, float]] = field(default_factory=list)
    tombstones: list[PendingTombstone] = field(default_factory=list)
    published: list[CancelDecision] = field(default_factory=list)


class DelayIndex(Store):
    """The index of one partition. See ``SqliteCache`` for its use and for the errors of its methods.

    Parameters:
      path: The file; None for a private temporary one.
    """

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path)
        for statement in BACKOFFS.split(";"):
            self._db.execute(statement)

    def reset(self, identity: str, now_ms: int) -> None:
        super().reset(identity, now_ms)
        self._db.execute("DELETE FROM postponed")

    # Applying the log

    @property
    def repair_until(self) -> int:
        """While ``next_offset`` is below this offset, the log is compared with the index."""
        return self._repair_until

    def repair(self, cut: int, now_ms: int) -> None:
        """Read the log from its beginning again, after it lost its tail at ``cut``, below ``next_offset``.

        After a cut at 0 there is nothing to compare: reset the index instead.
        """
        cut = min(cut, self._repair_until or cut)
        with self.transaction():
            index_repair.begin(self._db, cut)
            self._write_progress(0, now_ms, -1)
        self._load()

    def apply(
        self,
        entries: Iterable[Entry],
        next_offset: int,
        *,
        now_ms: int,
        complete_ms: int | None = None,
        leader_epoch: int = -1,
    ) -> int:
        """Apply entries of the partition in their order, in one transaction.

        During a repair, ``entries`` are all below ``repair_until`` or all above it.

        Parameters:
          next_offset: The offset after the last record read.
          now_ms: The time of the decisions about cancel requests among them.
          complete_ms: The time now, when the end of the log was reached.
          leader_epoch: The leader epoch of the last record read, or of an earlier one; -1 for unknown.

        Returns:
          The number of delays that a repair, which ends with this call, found lost; nearly always 0.
        """
        complete_ms = self._complete_ms if complete_ms is None else complete_ms
        leader_epoch = max(leader_epoch, self._leader_epoch)
        lost, repaired = 0, 0 < self._repair_until <= next_offset
        apply = compare_entry if self._next_offset < self._repair_until else apply_entry
        with self.transaction():
            for entry in entries:
                apply(self._db, entry, now_ms)
            if repaired:
                lost = index_repair.finish(self._db, WAITING)
            self._write_progress(next_offset, complete_ms, leader_epoch)
        self._next_offset, self._complete_ms = next_offset, complete_ms
        self._leader_epoch = leader_epoch
        if repaired:
            self._repair_until = 0
        return lost

    # Forwarding

    def seconds_until_due(self, now_ms: int, now_s: float) -> float | None:
        """The time until a delay may be forwarded; None when no delay waits.

        Parameters:
          now_ms: The time now, for due times.
          now_s: The time now of the monotonic clock, for backoffs.
        """
        due_ms = self._query(f"SELECT due_ms FROM delays WHERE {_FRESH} ORDER BY due_ms LIMIT 1")
        until_s = self._query(f"SELECT until_s FROM {_POSTPONED} ORDER BY until_s LIMIT 1")
        waits_s = [(due - now_ms) / 1000 for (due,) in due_ms] + [until - now_s for (until,) in until_s]
        return max(0.0, min(waits_s)) if waits_s else None

    def due(self, now_ms: int, *, limit: int, limit_bytes: int, now_s: float = math.inf) -> list[Row]:
        """The due delays, the earliest first: at most ``limit`` rows, of ``limit_bytes`` except for the last.

        Postponed delays come first and take at most half of the page, so neither kind starves the other.

        Parameters:
          now_s: The time now of the monotonic clock, for backoffs; by default every backoff is over.
        """
        with self._translated_errors():
            postponed = self._page(
                f"SELECT {ROW_COLUMNS} FROM {_POSTPONED} WHERE until_s <= ? ORDER BY until_s LIMIT ?",
                (now_s, (limit + 1) // 2),
                limit_bytes // 2,
            )
            left_bytes = limit_bytes - sum(len(row.delay.value) for row in postponed)
            if len(postponed) == limit or left_bytes <= 0:
                return postponed
            return postponed + self._page(
                f"SELECT {ROW_COLUMNS} FROM delays WHERE {_FRESH} AND due_ms <= ? ORDER BY due_ms LIMIT ?",
                (now_ms, limit - len(postponed)),
                left_bytes,
            )

    def _page(self, query: str, parameters: tuple[float, int], limit_bytes: int) -> list[Row]:
        rows: list[Row] = []
        for found in self._db.execute(query, parameters):
            rows.append(self._row(found))
            limit_bytes -= len(rows[-1].delay.value)
            if limit_bytes <= 0:
                break
        return rows

    def note_tried(self, rows: Sequence[Row]) -> None:
        """Note that delays are about to be forwarded: from now on Kafka may have their messages.

        The note precedes the forward. So a full disk stops the forward instead of repeating it, and the next
        user of this index promises nobody to cancel these delays.
        """
        if rows:
            with self.transaction():
                self._db.executemany(
                    "UPDATE delays SET attempts = attempts + 1 WHERE row = ?", [(row.row,) for row in rows]
                )

    def pending_tombstones(self, limit: int) -> list[PendingTombstone]:
        """The decided delays whose tombstones Kafka has not acknowledged."""
        found = self._query(
            f"SELECT row, id, state FROM delays WHERE state <> {WAITING} AND settled = 0 LIMIT ?", (limit,)
        )
        return [PendingTombstone(row, delay_id, OUTCOMES[state]) for row, delay_id, state in found]

    def note(self, progress: Progress) -> None:
        """Note which records Kafka has acknowledged, and which not, in one transaction."""
        if progress == Progress():
            return
        with self.transaction():
            self._db.executemany(
                f"UPDATE delays SET state = {FORWARDED} WHERE row = ?",
                [(row.row,) for row in progress.forwarded],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO postponed VALUES (?, ?)",
                [(row.row, until_s) for row, until_s in progress.postponed],
            )
            self._db.executemany(
                "UPDATE delays SET settled = 1 WHERE row = ?", [(done.row,) for done in progress.tombstones]
            )
            self._db.executemany(
                "UPDATE cancels SET told = 1 WHERE id = ?",
                [(decision.id,) for decision in progress.published],
            )

    # Cancelling

    def to_publish(self, limit: int) -> list[CancelDecision]:
        """The cancel decisions that Kafka does not have; none while it lacks a tombstone of a delay."""
        if self.pending_tombstones(1):
            return []
        with self._translated_errors():
            return decisions_to_publish(self._db, limit)

    def to_forget(self, decided_before_ms: int, limit: int) -> list[str]:
        """The ids of cancel requests that were decided before a time."""
        found = self._query(
            "SELECT id FROM cancels WHERE told = 1 AND decided_ms < ? LIMIT ?", (decided_before_ms, limit)
        )
        return [request_id for (request_id,) in found]

    def outcome(self, message_id: str) -> Outcome | None:
        """The latest published decision about cancelling a message; None without a decision."""
        with self._translated_errors():
            return last_outcome(self._db, message_id, "told = 1")

    def cancels_of(self, message_id: str) -> list[tuple[CancelDecision, bool]]:
        """The requests to cancel a message, each with whether Kafka has its decision, by their time."""
        with self._translated_errors():
            return cancels_of(self._db, message_id)

    # Waiting delays

    def count(self, queue: str) -> int:
        ((counted,),) = self._query(
            f"SELECT count(*) FROM delays WHERE queue = ? AND state = {WAITING}", (queue,)
        )
        return int(counted)

    def next_due_ms(self, queue: str) -> int | None:
        due_ms: int | None
        ((due_ms,),) = self._query(
            f"SELECT min(due_ms) FROM delays WHERE queue = ? AND state = {WAITING}", (queue,)
        )
        return due_ms

    def waiting(self, queue: str, *, limit: int) -> list[Delay]:
        """The delays that wait for a queue, by due time.

        Parameters:
          limit: Their maximum number; -1 for all.
        """
        found = self._query(
            f"SELECT {ROW_COLUMNS} FROM delays WHERE queue = ? AND state = {WAITING} ORDER BY due_ms LIMIT ?",
            (queue, limit),
        )
        return [self._row(values).delay for values in found]

    def delays_of(self, message_id: str) -> list[str]:
        """The ids of the waiting delays of a message."""
        found = self._query(
            f"SELECT id FROM delays WHERE {IDS_OF_MESSAGE} AND state = {WAITING}", ids_of_message(message_id)
        )
        return [delay_id for (delay_id,) in found]

    def was_forwarded(self, message_id: str) -> bool:
        """Whether the message is among the last that were forwarded."""
        return bool(self._query("SELECT 1 FROM forwarded WHERE message_id = ?", (message_id,)))

    def _row(self, values: RowValues) -> Row:
        row = unpack_row(values)
        if row is None:
            raise self.damaged(f"the delay {values[1]} does not match its checksum")
        return row
