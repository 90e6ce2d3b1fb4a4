"""Whose turn it is among the messages of one key. Pure: no I/O, no clock, no lock.

Every key of a partition has a *lane* as long as something of it is not done. What is in a lane stands in the
order of its *order numbers*, at most one of it runs, and only the first may:

    taken in ──► PARKED ───── first, and nothing of the lane runs ────► RUNNING ──► done
                 │   ▲                                                     │
       too many, │   │ its ticket was read                                 │ its retry waits
       or the    ▼   │                                                     │
       first   MOVING ──► WAITING (in the lanes topic) ◄───────────────────┘
       waits
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from typing import Generic, NamedTuple, Protocol, TypeVar

#: How many records of one key are parked in memory before the next ones move to the lanes topic.
MAX_PARKED_OF_A_KEY = 64
#: The same of all keys of a partition, whose incomplete offsets have to fit into the commit's metadata.
MAX_PARKED = 256
MAX_PARKED_BYTES = 1024 * 1024
#: How many of a lane are on their way back to the queue at once, so that they need not make the way one by
#: one.
MAX_RELEASED_OF_A_KEY = 16


class SequenceNumber(NamedTuple):
    """A message's order number: where it was first read, which it keeps through its retries.

    The timestamp tells its record from the one that has its offset in a topic that was made anew.
    """

    offset: int
    timestamp: int


class HasOffset(Protocol):
    @property
    def offset(self) -> int: ...


R = TypeVar("R", bound=HasOffset)


class LaneEntryState(Enum):
    PARKED = auto()
    RUNNING = auto()
    MOVING = auto()
    WAITING = auto()


class LaneEntry(Generic[R]):
    """One message's place in a lane.

    Attributes:
      record: Its record in the queue's topic, while that is not complete.
      kept: Whether the lanes topic has it.
      due_ms: When it may run, in milliseconds since 1970; 0 for one that only waits for those before it.
      released: Whether its ticket is on the way: a record that brings it back to the queue.
      kept_in: The partition of the lanes topic that its records go to, once that was chosen.
    """

    __slots__ = ("due_ms", "kept", "kept_in", "key", "record", "released", "sequence", "size", "state")

    def __init__(self, key: bytes, sequence: SequenceNumber, state: LaneEntryState) -> None:
        self.key = key
        self.sequence = sequence
        self.state = state
        self.record: R | None = None
        self.size = 0
        self.kept = False
        self.kept_in: int | None = None
        self.due_ms = 0
        self.released = False

    def __lt__(self, other: LaneEntry[R]) -> bool:
        return self.sequence < other.sequence

    def is_below(self, offset: int) -> bool:
        """Whether its record, if it has one here, is from below ``offset``."""
        return self.record is not None and self.record.offset < offset


class Lane(Generic[R]):
    """The turns of one key, in order. ``running`` is the one that has been handed out."""

    __slots__ = ("kept", "lane_entries", "parked", "running")

    def __init__(self) -> None:
        self.lane_entries: list[LaneEntry[R]] = []
        self.running: LaneEntry[R] | None = None
        self.parked = 0
        self.kept = 0

    def find(self, sequence: SequenceNumber) -> LaneEntry[R] | None:
        place = bisect_left(self.lane_entries, sequence, key=lambda entry: entry.sequence)
        found = self.lane_entries[place] if place < len(self.lane_entries) else None
        return found if found is not None and found.sequence == sequence else None

    @property
    def first(self) -> LaneEntry[R]:
        return self.lane_entries[0]

    @property
    def is_blocked(self) -> bool:
        """Whether a retry is waited for: then nothing of the lane is kept in memory."""
        first = self.first
        return first.state is LaneEntryState.WAITING and first.due_ms > 0 and not first.released


class Lanes(Generic[R]):
    """The lanes of one partition during one assignment.

    Attributes:
      ready: Handed out to be run, one of a lane at most. The caller takes them from the left.
      leaving: Records that are to be completed without a run: with a turn, once the lanes topic has it;
        without one, at once, because another record stands for the same message or the message is done.
      parked: How many records are parked.
      kept: How many messages the lanes topic has.
    """

    def __init__(self) -> None:
        self.ready: deque[LaneEntry[R]] = deque()
        self.leaving: deque[tuple[R, LaneEntry[R] | None]] = deque()
        self.parked = 0
        self.kept = 0
        self._parked_bytes = 0
        self._lanes: dict[bytes, Lane[R]] = {}
        self._retries: list[tuple[int, bytes]] = []  # a heap of when a lane's first is due
        self._changed: set[bytes] = set()  # lanes that may have something to release
        self._on_the_way: set[LaneEntry[R]] = set()

    def __len__(self) -> int:
        """How many keys have something that is not done."""
        return len(self._lanes)

    def find(self, key: bytes, sequence: SequenceNumber) -> LaneEntry[R] | None:
        """The turn of a message that is not done."""
        lane = self._lanes.get(key)
        return lane.find(sequence) if lane is not None else None

    def lowest_offset(self) -> int | None:
        """The lowest offset of what was taken in and not begun."""
        entries = [
            entry for lane in self._lanes.values() for entry in lane.lane_entries if entry is not lane.running
        ]
        return min((entry.record.offset for entry in (*entries, *self.ready) if entry.record), default=None)

    # What arrives

    def restore(self, waiting: Iterable[tuple[bytes, SequenceNumber, int, int | None]]) -> None:
        """Put in what the lanes topic has, as (key, order number, due time, partition that keeps it)."""
        for key, sequence, due_ms, kept_in in sorted(waiting, key=lambda found: found[1]):
            entry: LaneEntry[R] = LaneEntry(key, sequence, LaneEntryState.WAITING)
            entry.kept_in = kept_in
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
    ) -> None:
        """Take in a record that was read. Records come in the order of their offsets.

        Parameters:
          requeued_due_ms: None when this is the message's own first record; else the due time of the wait
            that this record ends.
        """
        lane = self._lanes.get(key)
        entry = lane.find(sequence) if lane is not None else None
        if entry is not None:
            assert lane is not None
            self._take_in_again(lane, entry, record, size, requeued_due_ms)
        elif requeued_due_ms is not None:
            self.leaving.append((record, None))  # it was done since
        else:
            if lane is None:
                lane = self._lanes[key] = Lane()
            entry = LaneEntry(key, sequence, LaneEntryState.PARKED)
            insort(lane.lane_entries, entry)
            may_run = lane.running is None and lane.first is entry
            if lane.is_blocked or (self._is_full(lane) and not may_run):
                self._move(entry, record)
            else:
                self._park(lane, entry, record, size)
                self._advance(lane)

    def _is_full(self, lane: Lane[R]) -> bool:
        return (
            lane.parked >= MAX_PARKED_OF_A_KEY
            or self.parked >= MAX_PARKED
            or self._parked_bytes >= MAX_PARKED_BYTES
        )

    def _take_in_again(
        self, lane: Lane[R], entry: LaneEntry[R], record: R, size: int, requeued_due_ms: int | None
    ) -> None:
        is_its_ticket = entry.state is LaneEntryState.WAITING and requeued_due_ms == entry.due_ms
        if is_its_ticket and (entry is lane.first or not lane.is_blocked):
            self._on_the_way.discard(entry)
            entry.state = LaneEntryState.PARKED
            self._park(lane, entry, record, size)
            self._advance(lane)
        else:
            # The lanes topic has it, or another record of it is not complete.
            if is_its_ticket:
                self.recall(entry)
            self.leaving.append((record, None))

    def adopt(self, key: bytes, sequence: SequenceNumber) -> LaneEntry[R]:
        """Note that a message runs already, since an earlier assignment."""
        lane = self._lanes.setdefault(key, Lane())
        entry = lane.find(sequence)
        if entry is None:
            entry = LaneEntry(key, sequence, LaneEntryState.RUNNING)
            insort(lane.lane_entries, entry)
        self._on_the_way.discard(entry)
        entry.state = LaneEntryState.RUNNING
        lane.running = lane.running or entry
        return entry

    # What becomes of a turn

    def finish(self, entry: LaneEntry[R]) -> None:
        """Note that a message is done, or dead-lettered."""
        lane = self._lanes[entry.key]
        lane.lane_entries.remove(entry)
        lane.kept -= entry.kept
        self.kept -= entry.kept
        self._on_the_way.discard(entry)
        if lane.running is entry:
            lane.running = None
        if lane.lane_entries:
            self._advance(lane)
        else:
            del self._lanes[entry.key]

    def forget(self, key: bytes, sequence: SequenceNumber) -> None:
        """Note that a message waits no more, unless it has come back already."""
        entry = self.find(key, sequence)
        if entry is not None and entry.state is LaneEntryState.WAITING:
            self.finish(entry)

    def drop_below(self, offset: int) -> list[R]:
        """Forget what was taken in from below ``offset`` and is still here, and return its records.

        What was handed out stays, and so does what the lanes topic has and no ticket has brought back.
        """
        dropped = [record for record, _ in self.leaving if record.offset < offset]
        here = {entry for _, entry in self.leaving if entry is not None} | set(self.ready)
        self.leaving = deque((record, entry) for record, entry in self.leaving if record.offset >= offset)
        for lane in list(self._lanes.values()):
            # The last first: the end of the first would hand out the next.
            for entry in reversed(lane.lane_entries.copy()):
                record = entry.record
                if record is None or not entry.is_below(offset):
                    continue
                if entry.state is LaneEntryState.PARKED:
                    self._unpark(lane, entry)
                elif entry not in here:
                    continue
                if entry.state is not LaneEntryState.MOVING:  # else it was in `leaving`
                    dropped.append(record)
                self.finish(entry)
        self.ready = deque(entry for entry in self.ready if not entry.is_below(offset))
        return dropped

    def wait(self, entry: LaneEntry[R], due_ms: int) -> None:
        """Note that the lanes topic has a message now: until its retry is due, or until it is its turn."""
        lane = self._lanes[entry.key]
        if lane.running is entry:
            lane.running = None
        entry.state, entry.record = LaneEntryState.WAITING, None
        self._keep(lane, entry, due_ms)
        if lane.is_blocked:
            self._clear(lane)
        else:
            self._advance(lane)

    def _keep(self, lane: Lane[R], entry: LaneEntry[R], due_ms: int) -> None:
        lane.kept += not entry.kept
        self.kept += not entry.kept
        entry.kept, entry.due_ms = True, due_ms
        self.recall(entry)

    def _clear(self, lane: Lane[R]) -> None:
        """Move what is parked behind a retry that waits, so that its offsets can be committed."""
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
        if lane.running is None and first.state is LaneEntryState.PARKED:
            record = first.record
            self._unpark(lane, first)
            first.record = record
            first.state = LaneEntryState.RUNNING
            lane.running = first
            self.ready.append(first)

    # What is to be brought back to the queue

    def to_release(self, now_ms: int) -> list[LaneEntry[R]]:
        """What may be brought back to its queue: of each lane the first ones, unless a retry is not due."""
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
                found += [
                    entry
                    for entry in lane.lane_entries[:MAX_RELEASED_OF_A_KEY]
                    if entry.state is LaneEntryState.WAITING and not entry.released and entry.due_ms <= now_ms
                ]
        self._changed.clear()
        return found

    def next_due_ms(self) -> int | None:
        """When `to_release` may find something: 0 for now, None for not before something else happens."""
        if self._changed:
            return 0
        return self._retries[0][0] if self._retries else None

    def release(self, entry: LaneEntry[R]) -> None:
        """Note that its ticket is on the way."""
        if entry.state is LaneEntryState.WAITING:
            entry.released = True
            self._on_the_way.add(entry)

    def release_again(self) -> None:
        """Note that what is on the way has not come, and will not."""
        for entry in list(self._on_the_way):
            self.recall(entry)

    @property
    def awaits_tickets(self) -> bool:
        """Whether something is on the way."""
        return bool(self._on_the_way)

    def recall(self, entry: LaneEntry[R]) -> None:
        """Note that no ticket of it is on the way: it is to be released again."""
        entry.released = False
        self._on_the_way.discard(entry)
        self._changed.add(entry.key)
