"""What waits in one partition of the delayed topic, in due order, on disk.

The index is a cache: it is what comes out of applying the partition's records one after the other up to
``next_offset``, and it can be thrown away at any time. A row leaves it only when its tombstone is read back
from Kafka. What the index knows beyond the log is how far this forwarder has got with a delay:

    WAITING -> FORWARDED ─┐
            -> CANCELLED ─┼-> settled -> (tombstone read) gone
            -> FLUSHED  ──┘
               decided: needs a tombstone     Kafka has it

A delay that could not be forwarded rests for a while. How long goes by a monotonic clock and is not written
down: a clock that is wrong for seconds, or a process that ends, must not hold it back for longer.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import index_repair as mending
from .index_store import IndexDamaged, Store
from .record_format import (
    KEY_SUFFIX_LENGTH,
    CancelDecision,
    CancelForgotten,
    CancelRequest,
    Delay,
    Done,
    Entry,
    Flush,
    Outcome,
)

#: How many forwarded messages are remembered, to tell "too late" from "unknown" when one is cancelled.
REMEMBERED_MESSAGES = 100_000

WAITING, FORWARDED, CANCELLED, FLUSHED = range(4)
_DECIDED = {FORWARDED: Outcome.FORWARDED, CANCELLED: Outcome.CANCELLED, FLUSHED: Outcome.FLUSHED}

_VERSION = 2
_TO_FORWARD = f"CREATE INDEX to_forward ON delays (due_ms) WHERE state = {WAITING}"
_SCHEMA = f"""
CREATE TABLE delays (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT {WAITING}, settled INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,    -- how often it may have been forwarded
    key BLOB, headers TEXT, value BLOB NOT NULL, checksum INTEGER NOT NULL
);
{_TO_FORWARD};
CREATE INDEX by_queue ON delays (queue, due_ms) WHERE state = {WAITING};
CREATE INDEX to_settle ON delays (state) WHERE state <> {WAITING} AND settled = 0;
CREATE TABLE forwarded (row INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE);
CREATE TABLE cancels (
    id TEXT PRIMARY KEY, outcome TEXT NOT NULL, decided_ms INTEGER NOT NULL, told INTEGER NOT NULL
);
CREATE INDEX to_tell ON cancels (id) WHERE told = 0;
CREATE INDEX by_age ON cancels (decided_ms) WHERE told = 1
"""
#: Version 1 wrote down, by the wall clock, until when a delay rested.
_UPGRADES = {1: ["DROP INDEX to_forward", "ALTER TABLE delays DROP COLUMN try_ms", _TO_FORWARD]}
#: What rests in this process, and until when by its monotonic clock. It ends with the connection.
_RESTING = """
PRAGMA temp_store = MEMORY;
CREATE TEMP TABLE resting (row INTEGER PRIMARY KEY, until_s REAL NOT NULL);
CREATE INDEX temp.by_end ON resting (until_s)
"""
#: The ids that belong to one message: a colon and a number of a fixed length follow its own.
_MINE = "id > ? AND id < ? AND length(id) = ?"
_ROW = "delays.row, id, queue, due_ms, value, headers, key, checksum"
#: What waits and does not rest, and what waits and rests or has rested.
_FRESH = f"state = {WAITING} AND row NOT IN (SELECT row FROM resting)"
_RESTED = f"resting JOIN delays ON delays.row = resting.row AND delays.state = {WAITING}"


@dataclass(frozen=True, slots=True)
class Row:
    """A delay and its place in the index."""

    row: int
    delay: Delay


@dataclass(frozen=True, slots=True)
class PendingTombstone:
    """A decided delay that needs its tombstone."""

    row: int
    id: str
    outcome: Outcome


@dataclass(slots=True)
class Progress:
    """What has come of a page.

    Attributes:
      forwarded: Kafka has them in their queues.
      postponed: They were not forwarded, or not surely; until when they rest, in seconds of a monotonic
        clock.
      settled: Kafka has their tombstones.
      told: Kafka has them.
    """

    forwarded: list[Row] = field(default_factory=list)
    postponed: list[tuple[Row, float]] = field(default_factory=list)
    settled: list[PendingTombstone] = field(default_factory=list)
    told: list[CancelDecision] = field(default_factory=list)


class DelayIndex(Store):
    """The index of one partition. Use it from one thread at a time; see ``Store`` for what its methods raise.

    Parameters:
      path: Its file; None for a private one.
    """

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path, schema=_SCHEMA, version=_VERSION, upgrades=_UPGRADES)
        for statement in _RESTING.split(";"):
            self._db.execute(statement)

    def reset(self, identity: str, now_ms: int) -> None:
        super().reset(identity, now_ms)
        self._db.execute("DELETE FROM resting")

    # The log

    @property
    def mend_until(self) -> int:
        """While ``next_offset`` is below this, the log is compared with what the index knows."""
        return self._mend_until

    def mend(self, cut: int, now_ms: int) -> None:
        """Read the log from its beginning again, which was cut at ``cut``, below what has been applied.

        A log that was cut at 0 has nothing to be compared with: reset the index instead.
        """
        cut = min(cut, self._mend_until or cut)
        with self._understood():
            with self._transaction():
                mending.begin(self._db, cut)
                self._write_progress(0, now_ms, -1)
            self._load_meta()

    def apply(
        self,
        entries: Iterable[Entry],
        next_offset: int,
        *,
        now_ms: int,
        complete_ms: int | None = None,
        leader_epoch: int = -1,
    ) -> int:
        """Apply what was read of the partition, in its order, in one transaction.

        While the index is mended, ``entries`` are all below ``mend_until`` or all above it.

        Parameters:
          next_offset: The offset after the last record read.
          now_ms: The time at which a cancel request among them is decided.
          complete_ms: The time now, when the end of the log was reached.
          leader_epoch: Of the last record read, or of an earlier one; -1 when it is not known.

        Returns:
          How many delays were lost, once the index has been mended; nearly always 0.
        """
        complete_ms = self._complete_ms if complete_ms is None else complete_ms
        leader_epoch = max(leader_epoch, self._leader_epoch)
        lost, mended = 0, 0 < self._mend_until <= next_offset
        apply = self._compare if self._next_offset < self._mend_until else self._apply
        with self._understood(), self._transaction():
            for entry in entries:
                apply(entry, now_ms)
            if mended:
                lost = mending.finish(self._db, WAITING)
            self._write_progress(next_offset, complete_ms, leader_epoch)
        self._next_offset, self._complete_ms = next_offset, complete_ms
        self._leader_epoch = leader_epoch
        if mended:
            self._mend_until = 0
        return lost

    def _compare(self, entry: Entry, now_ms: int) -> None:
        """Apply what was applied before."""
        match entry:
            case Delay():
                if not mending.see(self._db, entry):
                    self._add(entry, state=FORWARDED)
            case CancelRequest():
                mending.ask_again(self._db, entry.id)
            case Flush():
                pass  # what waits now came after it
            case _:
                self._apply(entry, now_ms)

    def _apply(self, entry: Entry, now_ms: int) -> None:
        match entry:
            case Delay():
                self._add(entry)
            case Done():
                self._remove(entry)
            case CancelRequest():
                self._note_cancel(entry.id, self._cancel(entry.message_id), now_ms, told=False)
            case CancelDecision(request_id, outcome, decided_ms):
                self._note_cancel(request_id, outcome, decided_ms, told=True)
            case CancelForgotten(request_id):
                self._db.execute("DELETE FROM cancels WHERE id = ?", (request_id,))
            case Flush(queue):
                self._db.execute(
                    f"UPDATE delays SET state = {FLUSHED} WHERE queue = ? AND state = {WAITING}", (queue,)
                )

    def _add(self, delay: Delay, state: int = WAITING) -> None:
        checksum = _checksum(delay.id, delay.queue, delay.due_ms, delay.value)
        self._db.execute(
            "INSERT INTO delays (state, id, queue, due_ms, key, headers, value, checksum)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            (
                state,
                delay.id,
                delay.queue,
                delay.due_ms,
                delay.key,
                _pack(delay.headers),
                delay.value,
                checksum,
            ),
        )

    def _remove(self, done: Done) -> None:
        message_id = done.id[:-KEY_SUFFIX_LENGTH]
        found = self._db.execute(
            "DELETE FROM delays WHERE id = ? RETURNING row, state", (done.id,)
        ).fetchone()
        if found is not None:  # SQLite gives a row's number to another one once it is gone
            self._db.execute("DELETE FROM resting WHERE row = ?", found[:1])
        if done.outcome is Outcome.FORWARDED:
            self._remember(message_id)
            if found is None or found[1] != FORWARDED:
                # An earlier owner had forwarded it, and came to no request that is further up in the log.
                self._correct(message_id, Outcome.TOO_LATE, wrong=[Outcome.CANCELLED, Outcome.UNKNOWN])
        elif done.outcome is Outcome.CANCELLED:
            # An earlier owner had cancelled it, and told no one. The delay itself may be compacted away.
            self._correct(message_id, Outcome.CANCELLED, wrong=[Outcome.UNKNOWN])

    def _correct(self, message_id: str, outcome: Outcome, *, wrong: Sequence[Outcome]) -> None:
        """Correct what has been decided about a message and not been told."""
        for mistaken in wrong:
            self._db.execute(
                f"UPDATE cancels SET outcome = ? WHERE {_MINE} AND told = 0 AND outcome = ?",
                (outcome.value, *_numbered_ids(message_id), mistaken.value),
            )

    def _remember(self, message_id: str) -> None:
        (row,) = self._db.execute(
            "INSERT OR REPLACE INTO forwarded (message_id) VALUES (?) RETURNING row", (message_id,)
        ).fetchone()
        self._db.execute("DELETE FROM forwarded WHERE row <= ?", (row - REMEMBERED_MESSAGES,))

    # What is due

    def seconds_until_due(self, now_ms: int, now_s: float) -> float | None:
        """How long there is nothing to forward; None when none waits.

        Parameters:
          now_ms: The time now, which due times go by.
          now_s: The time now of the monotonic clock that rests go by.
        """
        with self._understood():
            due_ms = self._db.execute(
                f"SELECT due_ms FROM delays WHERE {_FRESH} ORDER BY due_ms LIMIT 1"
            ).fetchone()
            until_s = self._db.execute(f"SELECT until_s FROM {_RESTED} ORDER BY until_s LIMIT 1").fetchone()
        waits_s = [(due_ms[0] - now_ms) / 1000] if due_ms else []
        if until_s:
            waits_s.append(until_s[0] - now_s)
        return max(0.0, min(waits_s)) if waits_s else None

    def due(self, now_ms: int, *, limit: int, limit_bytes: int, now_s: float = math.inf) -> list[Row]:
        """What is due, the longest due first: at most ``limit`` rows, of ``limit_bytes`` but for the last.

        What has rested comes first, and has half of it at most: neither keeps the other from its turn.

        Parameters:
          now_s: The time now of the monotonic clock that rests go by; by default every rest is over.
        """
        with self._understood():
            rested = self._page(
                f"SELECT {_ROW} FROM {_RESTED} WHERE until_s <= ? ORDER BY until_s LIMIT ?",
                (now_s, (limit + 1) // 2),
                limit_bytes // 2,
            )
            left_bytes = limit_bytes - sum(len(row.delay.value) for row in rested)
            if len(rested) == limit or left_bytes <= 0:
                return rested
            return rested + self._page(
                f"SELECT {_ROW} FROM delays WHERE {_FRESH} AND due_ms <= ? ORDER BY due_ms LIMIT ?",
                (now_ms, limit - len(rested)),
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

    def mark_tried(self, rows: Sequence[Row]) -> None:
        """Note that they are about to be forwarded: from now on Kafka may have them.

        It comes before the forward, so that what cannot be noted (the disk is full) is not forwarded either,
        again and again, and so that whoever goes on with this index promises no one to cancel them.
        """
        if rows:
            with self._understood(), self._transaction():
                self._db.executemany(
                    "UPDATE delays SET attempts = attempts + 1 WHERE row = ?", [(row.row,) for row in rows]
                )

    def to_settle(self, limit: int) -> list[PendingTombstone]:
        """Decided delays whose tombstone Kafka has not acknowledged."""
        with self._understood():
            found = self._db.execute(
                f"SELECT row, id, state FROM delays WHERE state <> {WAITING} AND settled = 0 LIMIT ?",
                (limit,),
            ).fetchall()
        return [PendingTombstone(row, delay_id, _DECIDED[state]) for row, delay_id, state in found]

    def note(self, progress: Progress) -> None:
        """Note what Kafka has acknowledged, and what it has not, in one transaction."""
        if progress == Progress():
            return
        with self._understood(), self._transaction():
            self._db.executemany(
                f"UPDATE delays SET state = {FORWARDED} WHERE row = ?",
                [(row.row,) for row in progress.forwarded],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO resting VALUES (?, ?)",
                [(row.row, until_s) for row, until_s in progress.postponed],
            )
            self._db.executemany(
                "UPDATE delays SET settled = 1 WHERE row = ?", [(done.row,) for done in progress.settled]
            )
            self._db.executemany(
                "UPDATE cancels SET told = 1 WHERE id = ?", [(decision.id,) for decision in progress.told]
            )

    # Cancelling

    def _cancel(self, message_id: str) -> Outcome:
        """Decide about everything of a message that waits here.

        What has been tried to forward may be in its queue already, so it is not promised to be cancelled.
        """
        mine = _numbered_ids(message_id)
        cancelled = self._db.execute(
            f"UPDATE delays SET state = {CANCELLED} WHERE {_MINE} AND state = {WAITING} AND attempts = 0",
            mine,
        ).rowcount
        if cancelled:
            self._db.execute("DELETE FROM forwarded WHERE message_id = ?", (message_id,))
            return Outcome.CANCELLED
        gone = self._db.execute(
            f"SELECT 1 FROM delays WHERE {_MINE} AND state IN ({WAITING}, {FORWARDED})"
            " UNION ALL SELECT 1 FROM forwarded WHERE message_id = ?",
            (*mine, message_id),
        ).fetchone()
        if gone:
            return Outcome.TOO_LATE
        # Asked a second time, the answer is the first one's.
        return self._last_outcome(message_id, "1") or Outcome.UNKNOWN

    def _note_cancel(self, request_id: str, outcome: Outcome, decided_ms: int, *, told: bool) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO cancels VALUES (?, ?, ?, ?)",
            (request_id, outcome.value, decided_ms, told),
        )

    def _last_outcome(self, message_id: str, condition: str) -> Outcome | None:
        found = self._db.execute(
            f"SELECT outcome FROM cancels WHERE {_MINE} AND {condition}"
            " ORDER BY decided_ms DESC, rowid DESC LIMIT 1",
            _numbered_ids(message_id),
        ).fetchone()
        return Outcome(found[0]) if found else None

    def to_tell(self, limit: int) -> list[CancelDecision]:
        """Decisions about cancelling that Kafka does not have. It has all tombstones that come of them."""
        if self.to_settle(1):
            return []
        with self._understood():
            found = self._db.execute(
                "SELECT id, outcome, decided_ms FROM cancels WHERE told = 0 LIMIT ?", (limit,)
            ).fetchall()
        return [CancelDecision(request_id, Outcome(outcome), ms) for request_id, outcome, ms in found]

    def to_forget(self, decided_before_ms: int, limit: int) -> list[str]:
        """The ids of cancel requests that were decided long ago."""
        with self._understood():
            found = self._db.execute(
                "SELECT id FROM cancels WHERE told = 1 AND decided_ms < ? LIMIT ?", (decided_before_ms, limit)
            ).fetchall()
        return [request_id for (request_id,) in found]

    def outcome(self, message_id: str) -> Outcome | None:
        """What a forwarder told last about cancelling this message; None when it has told nothing."""
        with self._understood():
            return self._last_outcome(message_id, "told = 1")

    # What waits

    def count(self, queue: str) -> int:
        with self._understood():
            counted: int = self._db.execute(
                f"SELECT count(*) FROM delays WHERE queue = ? AND state = {WAITING}", (queue,)
            ).fetchone()[0]
        return counted

    def next_due_ms(self, queue: str) -> int | None:
        with self._understood():
            due_ms: int | None = self._db.execute(
                f"SELECT min(due_ms) FROM delays WHERE queue = ? AND state = {WAITING}", (queue,)
            ).fetchone()[0]
        return due_ms

    def waiting(self, queue: str, *, limit: int) -> list[Delay]:
        """What waits for a queue, by due time."""
        with self._understood():
            found = self._db.execute(
                f"SELECT {_ROW} FROM delays WHERE queue = ? AND state = {WAITING} ORDER BY due_ms LIMIT ?",
                (queue, limit),
            ).fetchall()
        return [self._row(row).delay for row in found]

    def _row(self, found: tuple[int, str, str, int, bytes, str | None, bytes | None, int]) -> Row:
        row, delay_id, queue, due_ms, value, packed, key, checksum = found
        if checksum != _checksum(delay_id, queue, due_ms, value):
            raise IndexDamaged(self.path, f"the delay {delay_id} does not match its checksum")
        headers = tuple((name, text.encode("latin-1")) for name, text in json.loads(packed)) if packed else ()
        return Row(row, Delay(delay_id, queue, due_ms, value, headers, key))


def _numbered_ids(message_id: str) -> tuple[str, str, int]:
    """The parameters of ``_MINE``. A semicolon is what comes after a colon."""
    return f"{message_id}:", f"{message_id};", len(message_id) + KEY_SUFFIX_LENGTH


def _pack(headers: Sequence[tuple[str, bytes]]) -> str | None:
    if not headers:
        return None
    return json.dumps([(name, (value or b"").decode("latin-1")) for name, value in headers])


def _checksum(delay_id: str, queue: str, due_ms: int, value: bytes) -> int:
    # SQLite notices a damaged tree, not a damaged value.
    return zlib.crc32(value, zlib.crc32(f"{delay_id} {queue} {due_ms}".encode()))
