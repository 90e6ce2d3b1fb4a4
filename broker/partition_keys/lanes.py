"""The order in which the messages of one partition key run. Pure: no I/O, no clock, no lock.

Every key of a partition has a *lane* while one of its messages is not done. The entries of a lane are in the
order of their *sequence numbers*. At most one of them runs, or as many as ``key_concurrency`` says, and they
begin in that order, no faster than ``key_rate`` says:

    taken in ──► PARKED ───── the next, and within the limits ────────► RUNNING ──► done
                 │   ▲                                                     │
       too many, │   │ its requeue record was read                         │ its retry waits
       or the    ▼   │                                                     │
       first   MOVING ──► WAITING (in the lanes topic) ◄───────────────────┘
       waits
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Generic

from .lane import Lane, LaneEntry, LaneEntryState, R, SequenceNumber
from .limits import EARLY_MS, NO_LIMIT, Limit, Pace
from .unique import Mark, Unique

#: The number of records of one key that are parked in memory before the next ones move to the lanes topic.
MAX_PARKED_OF_A_KEY = 64
#: The same for all keys of a partition, whose incomplete offsets must fit into the commit metadata.
MAX_PARKED = 256
MAX_PARKED_BYTES = 1024 * 1024
#: The number of entries of a lane that return to the queue at the same time. They return when half of them
#: have begun, since each return costs the thread of the consumer some round trips.
MAX_RELEASED_OF_A_KEY = 48


class Lanes(Generic[R]):
    """The lanes of one partition during one assignment.

    Attributes:
      ready: Entries that may be dispatched, one of a lane at most. The caller takes them from the left.
      leaving: Records to be completed without a run. One with an entry moves, and is complete once the lanes
        topic has it. One without an entry is completed immediately: another record has the same message, or
        the message is done.
      parked: The number of parked records.
      kept_offsets: The first offsets of the messages in the lanes topic, ascending.
      paces: The rates so far, by lane.
      now_ms: The time of the last step, in milliseconds since 1970.
      marks: The points at which unique keys were freed, by lane. Duplicates below them may still be read.
    """

    def __init__(self) -> None:
        self.ready: deque[LaneEntry[R]] = deque()
        self.leaving: deque[tuple[R, LaneEntry[R] | None]] = deque()
        self.parked = 0
        self.kept_offsets: list[int] = []
        self.marks: dict[bytes, Mark] = {}
        self.paces: dict[bytes, Pace] = {}
        self.now_ms = 0
        self._restored_ms = 0
        self._paced: list[tuple[float, bytes]] = []  # a heap: the time at which a lane may go on, key
        self._paced_keys: set[bytes] = set()
        self._parked_bytes = 0
        self._lanes: dict[bytes, Lane[R]] = {}
        self._retries: list[tuple[int, bytes]] = []  # a heap: due time of a lane's first entry, key
        self._changed: set[bytes] = set()  # lanes that may have entries to release
        self._on_the_way: set[LaneEntry[R]] = set()

    def __len__(self) -> int:
        """The number of lanes."""
        return len(self._lanes)

    @property
    def kept(self) -> int:
        """The number of messages in the lanes topic."""
        return len(self.kept_offsets)

    def find(self, key: bytes, sequence: SequenceNumber) -> LaneEntry[R] | None:
        """The entry of a message; None when the message is done."""
        lane = self._lanes.get(key)
        return lane.find(sequence) if lane is not None else None

    def lowest_offset(self) -> int | None:
        """The lowest offset of the records that were taken in and do not run."""
        entries = [
            entry
            for lane in self._lanes.values()
            for entry in lane.lane_entries
            if entry.state is not LaneEntryState.RUNNING
        ]
        return min((entry.record.offset for entry in (*entries, *self.ready) if entry.record), default=None)

    # Records that arrive

    def restore(
        self,
        waiting: Iterable[tuple[bytes, SequenceNumber, int, int | None]],
        *,
        uniques: Mapping[SequenceNumber, Unique] = MappingProxyType({}),
        marks: Mapping[bytes, Mark] = MappingProxyType({}),
        paces: Mapping[bytes, Pace] = MappingProxyType({}),
        now_ms: int = 0,
    ) -> None:
        """Add waiting entries, as (key, sequence number, due time, partition of the lanes topic).

        Parameters:
          uniques: The rules of those that are unique.
          marks: The points at which unique keys were freed, by lane.
        """
        self.marks.update(marks)
        self.paces.update(paces)
        self.now_ms = self._restored_ms = now_ms
        for key, sequence, due_ms, kept_in in sorted(waiting, key=lambda found: found[1]):
            entry: LaneEntry[R] = LaneEntry(key, sequence, LaneEntryState.WAITING)
            entry.kept_in = kept_in
            self.set_unique(entry, uniques.get(sequence))
            lane = self._lanes.setdefault(key, Lane())
            lane.lane_entries.append(entry)
            self._keep(lane, entry, due_ms)

    def take_in(
        self,
        key: bytes,
        sequence: SequenceNumber,
        record: R,
        *,
        size: int = 0,
        requeued_due_ms: int | None = None,
        unique: Unique | None = None,
        limit: Limit = NO_LIMIT,
    ) -> bool:
        """Take in a record that was read. Records arrive in the order of their offsets.

        Parameters:
          requeued_due_ms: None for a first record; for a requeue record, the due time of the wait that it
            ends.
          unique: The rules of a unique message.
          limit: The limits of its key.

        Returns:
          False for a duplicate, which is not taken in.
        """
        lane = self._lanes.get(key)
        entry = lane.find(sequence) if lane is not None else None
        if entry is not None:
            assert lane is not None
            entry.limit = limit
            self._take_in_again(lane, entry, record, size, requeued_due_ms)
        elif requeued_due_ms is not None:
            self.leaving.append((record, None))  # its message is done
        elif unique is not None and self._is_duplicate(key, sequence, unique):
            return False
        else:
            if lane is None:
                lane = self._lanes[key] = Lane()
            entry = LaneEntry(key, sequence, LaneEntryState.PARKED)
            self.set_unique(entry, unique)
            insort(lane.lane_entries, entry)
            entry.limit = limit
            may_run = lane.next_to_run() is entry and self._wait_ms(entry) <= 0
            if lane.is_blocked or (self._is_full(lane) and not may_run):
                self._move(entry, record)
            else:
                self._park(lane, entry, record, size)
                self._advance(lane)
        return True

    def _is_duplicate(self, key: bytes, sequence: SequenceNumber, unique: Unique) -> bool:
        if unique.is_never_duplicate:
            return False
        if (mark := self.marks.get(key)) is not None and mark.covers(sequence):
            return True
        lane = self._lanes.get(key)
        return lane is not None and any(
            entry.holds and entry.sequence < sequence for entry in lane.lane_entries
        )

    def set_unique(self, entry: LaneEntry[R], unique: Unique | None) -> None:
        """Set the rules of an entry."""
        entry.unique = unique
        # One that has freed its key, and begins again after a crash, frees it again: the crash may have
        # come between that and the run.
        entry.holds = unique is not None and not (unique.until_started and unique.is_retry)

    def free_key(self, entry: LaneEntry[R], mark: Mark | None) -> None:
        """Note that a unique message has freed its key.

        Parameters:
          mark: None when every record before that was read.
        """
        entry.holds = False
        if mark is not None:
            self.marks[entry.key] = mark

    def _is_full(self, lane: Lane[R]) -> bool:
        return (
            lane.parked >= MAX_PARKED_OF_A_KEY
            or self.parked >= MAX_PARKED
            or self._parked_bytes >= MAX_PARKED_BYTES
        )

    def _take_in_again(
        self, lane: Lane[R], entry: LaneEntry[R], record: R, size: int, requeued_due_ms: int | None
    ) -> None:
        is_its_requeue_record = entry.state is LaneEntryState.WAITING and requeued_due_ms == entry.due_ms
        if is_its_requeue_record and (entry is lane.first or not lane.is_blocked):
            self._on_the_way.discard(entry)
            entry.state = LaneEntryState.PARKED
            self._park(lane, entry, record, size)
            self._advance(lane)
        else:
            # The lanes topic has the message, or another record of it is incomplete.
            if is_its_requeue_record:
                self.recall(entry)
            self.leaving.append((record, None))

    def adopt(self, key: bytes, sequence: SequenceNumber) -> LaneEntry[R]:
        """Note that a message runs since an earlier assignment."""
        lane = self._lanes.setdefault(key, Lane())
        entry = lane.find(sequence)
        is_new = entry is None
        if entry is None:
            entry = LaneEntry(key, sequence, LaneEntryState.RUNNING)
            insort(lane.lane_entries, entry)
        self._on_the_way.discard(entry)
        if entry.state is not LaneEntryState.RUNNING or is_new:
            lane.running += 1
        entry.state = LaneEntryState.RUNNING
        return entry

    # The end of an entry

    def finish(self, entry: LaneEntry[R]) -> None:
        """Remove the entry of a message that is done or dead-lettered."""
        lane = self._lanes[entry.key]
        lane.lane_entries.remove(entry)
        if entry.kept:
            lane.kept -= 1
            del self.kept_offsets[bisect_left(self.kept_offsets, entry.sequence.offset)]
        self._on_the_way.discard(entry)
        if entry.state is LaneEntryState.RUNNING:
            lane.running -= 1
        if lane.lane_entries:
            self._advance(lane)
        else:
            del self._lanes[entry.key]

    def forget(self, key: bytes, sequence: SequenceNumber) -> None:
        """Remove the entry of a message that no longer waits; one in another state stays."""
        entry = self.find(key, sequence)
        if entry is not None and entry.state is LaneEntryState.WAITING:
            self.finish(entry)

    def drop_below(self, offset: int) -> list[R]:
        """Remove the entries whose records are below ``offset``, and return these records.

        Entries that were dispatched stay, and so do waiting entries without a record here.
        """
        dropped = [record for record, _ in self.leaving if record.offset < offset]
        here = {entry for _, entry in self.leaving if entry is not None} | set(self.ready)
        self.leaving = deque((record, entry) for record, entry in self.leaving if record.offset >= offset)
        for lane in list(self._lanes.values()):
            # In reverse order: the end of the first entry would make the next one ready.
            for entry in reversed(lane.lane_entries.copy()):
                record = entry.record
                if record is None or not entry.is_below(offset):
                    continue
                if entry.state is LaneEntryState.PARKED:
                    self._unpark(lane, entry)
                elif entry not in here:
                    continue
                if entry.state is not LaneEntryState.MOVING:  # `leaving` had it
                    dropped.append(record)
                self.finish(entry)
        self.ready = deque(entry for entry in self.ready if not entry.is_below(offset))
        return dropped

    def wait(self, entry: LaneEntry[R], due_ms: int) -> None:
        """Note that the lanes topic has a message, which waits until ``due_ms`` or for the entries before
        it.
        """
        lane = self._lanes[entry.key]
        if entry.state is LaneEntryState.RUNNING:
            lane.running -= 1
        entry.state, entry.record = LaneEntryState.WAITING, None
        self._keep(lane, entry, due_ms)
        if lane.is_blocked:
            self._clear(lane)
        else:
            self._advance(lane)

    def note_kept(self, entry: LaneEntry[R], kept_in: int) -> None:
        """Note that the lanes topic has a message that does not wait here: its end is written there, too."""
        if not entry.kept:
            entry.kept_in = kept_in
            self._keep(self._lanes[entry.key], entry, entry.due_ms)

    def _keep(self, lane: Lane[R], entry: LaneEntry[R], due_ms: int) -> None:
        if not entry.kept:
            lane.kept += 1
            insort(self.kept_offsets, entry.sequence.offset)
        entry.kept, entry.due_ms = True, due_ms
        self.recall(entry)

    def _clear(self, lane: Lane[R]) -> None:
        """Move the records that are parked behind a waiting retry, so that their offsets complete."""
        for entry in lane.lane_entries:
            if entry.state is LaneEntryState.PARKED:
                record = entry.record
                assert record is not None
                self._unpark(lane, entry)
                if entry.kept:
                    entry.state = LaneEntryState.WAITING
                    self.recall(entry)
                    self.leaving.append((record, None))
                else:
                    self._move(entry, record)

    def _move(self, entry: LaneEntry[R], record: R) -> None:
        entry.state, entry.record = LaneEntryState.MOVING, record
        self.leaving.append((record, entry))

    def _park(self, lane: Lane[R], entry: LaneEntry[R], record: R, size: int) -> None:
        entry.record, entry.size = record, size
        lane.parked += 1
        self.parked += 1
        self._parked_bytes += size

    def _unpark(self, lane: Lane[R], entry: LaneEntry[R]) -> None:
        entry.record = None
        lane.parked -= 1
        self.parked -= 1
        self._parked_bytes -= entry.size

    def _advance(self, lane: Lane[R]) -> None:
        first = lane.first
        if lane.kept:
            self._changed.add(first.key)
        while (entry := lane.next_to_run()) is not None:
            if (wait_ms := self._wait_ms(entry)) > 0:
                if entry.key not in self._paced_keys:
                    self._paced_keys.add(entry.key)
                    heapq.heappush(self._paced, (self.now_ms + wait_ms, entry.key))
                return
            record = entry.record
            self._unpark(lane, entry)
            entry.record = record
            entry.state = LaneEntryState.RUNNING
            lane.running += 1
            self._take_place(entry)
            self.ready.append(entry)

    # The rates of keys

    def _wait_ms(self, entry: LaneEntry[R]) -> float:
        """The time until the rate of its key lets an entry be dispatched; 0 or less for now."""
        return self._next_ms(entry) - EARLY_MS - self.now_ms if entry.limit.interval_ms else 0.0

    def _next_ms(self, entry: LaneEntry[R]) -> float:
        """The place of the next run in the rate of its key."""
        pace = self.paces.get(entry.key)
        if pace is None:
            # The last owner may have begun a run just before.
            is_known = entry.limit.is_written
            return 0.0 if is_known else min(self._restored_ms, self.now_ms) + entry.limit.interval_ms
        # It is never further away, unless the clock was set back, which must not stop the key.
        pace.next_ms = min(pace.next_ms, self.now_ms + pace.interval_ms + EARLY_MS)
        return pace.next_ms

    def _take_place(self, entry: LaneEntry[R]) -> None:
        if interval_ms := entry.limit.interval_ms:
            self._set_pace(entry, max(self._next_ms(entry), self.now_ms) + interval_ms)

    def note_begin(self, entry: LaneEntry[R], now_ms: int) -> Pace:
        """Note that the run of an entry with a rate begins, perhaps long after it was dispatched."""
        self._note_time(now_ms)
        pace = self.paces.get(entry.key)
        # A short wait for a thread changes nothing: it would lower the rate.
        next_ms = now_ms - EARLY_MS + entry.limit.interval_ms
        pace = self._set_pace(entry, next_ms if pace is None else max(pace.next_ms, next_ms))
        pace.begun_ms = now_ms
        return pace

    def may_begin(self, entry: LaneEntry[R], now_ms: int) -> bool:
        """Whether the run of a dispatched entry may begin: no other one of its key has just begun, as after a
        pause or a crash, during which both were held back.
        """
        self._note_time(now_ms)
        pace = self.paces.get(entry.key)
        is_too_soon = pace is not None and now_ms + EARLY_MS < pace.begun_ms + entry.limit.interval_ms
        return not is_too_soon or (pace is not None and now_ms < pace.begun_ms)  # the clock was set back

    def _note_time(self, now_ms: int) -> None:
        """Note that a worker's thread is ahead of the last step, by whose time the place of the next run
        would look too far away.
        """
        self.now_ms = max(self.now_ms, now_ms)

    def park_again(self, entry: LaneEntry[R], record: R, size: int) -> None:
        """Take back an entry that was dispatched, and must not begin yet."""
        lane, pace = self._lanes[entry.key], self.paces[entry.key]
        pace.next_ms = max(pace.next_ms, pace.begun_ms + entry.limit.interval_ms)
        lane.running -= 1
        entry.state = LaneEntryState.PARKED
        self._park(lane, entry, record, size)
        self._advance(lane)

    def _set_pace(self, entry: LaneEntry[R], next_ms: float) -> Pace:
        pace = self.paces.setdefault(entry.key, Pace(0.0))
        pace.next_ms, pace.interval_ms = next_ms, entry.limit.interval_ms
        return pace

    @property
    def parked_for_rates(self) -> int:
        """The number of records that are parked until the rate of their key lets them run."""
        return sum(self._lanes[key].parked for key in self._paced_keys if key in self._lanes)

    def tick(self, now_ms: int) -> None:
        """Let lanes go on whose rate allows it by now."""
        was_set_back = now_ms < self.now_ms
        self.now_ms = now_ms
        due = []
        while self._paced and (was_set_back or self._paced[0][0] <= now_ms):
            due.append(heapq.heappop(self._paced)[1])
        self._paced_keys.difference_update(due)
        for key in due:
            if (lane := self._lanes.get(key)) is not None:
                self._advance(lane)

    # Entries that return to the queue

    def to_release(self, now_ms: int) -> list[LaneEntry[R]]:
        """The entries to release: the first of each lane, unless a retry in front is not due."""
        while self._retries and self._retries[0][0] <= now_ms:
            self._changed.add(heapq.heappop(self._retries)[1])
        found = []
        for key in self._changed:
            lane = self._lanes.get(key)
            if lane is None:
                continue
            if lane.is_blocked and lane.first.due_ms > now_ms:
                heapq.heappush(self._retries, (lane.first.due_ms, key))
            else:
                found += lane.to_release(now_ms, MAX_RELEASED_OF_A_KEY)
        self._changed.clear()
        return found

    def next_due_ms(self) -> int | None:
        """The time at which `to_release` may find an entry: 0 for now, None when only an event can bring
        one.
        """
        if self._changed:
            return 0
        times = [heap[0][0] for heap in (self._retries, self._paced) if heap]
        return math.ceil(min(times)) if times else None

    def release(self, entry: LaneEntry[R]) -> None:
        """Note that the requeue record of an entry was sent."""
        if entry.state is LaneEntryState.WAITING:
            entry.released = True
            self._on_the_way.add(entry)

    def release_again(self) -> None:
        """Note that all requeue records that were sent and not read are lost."""
        for entry in list(self._on_the_way):
            self.recall(entry)

    @property
    def awaits_requeue_records(self) -> bool:
        """Whether a requeue record was sent and not read yet."""
        return bool(self._on_the_way)

    def recall(self, entry: LaneEntry[R]) -> None:
        """Note that an entry has no requeue record, so that it is released again."""
        entry.released = False
        self._on_the_way.discard(entry)
        self._changed.add(entry.key)
