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


class Order(NamedTuple):
    """A message's order number: where it was first read, which it keeps through its retries.

    The timestamp tells its record from the one that has its offset in a topic that was made anew.
    """

    offset: int
    timestamp: int


class HasOffset(Protocol):
    @property
    def offset(self) -> int: ...


R = TypeVar("R", bound=HasOffset)


class State(Enum):
    PARKED = auto()
    RUNNING = auto()
    MOVING = auto()
    WAITING = auto()


class Turn(Generic[R]):
    """One message's place in a lane.

    Attributes:
      record: Its record in the queue's topic, while that is not complete.
      kept: Whether the lanes topic has it.
      due_ms: When it may run, in milliseconds since 1970; 0 for one that only waits for those before it.
      released: Whether its ticket is on the way: a record that brings it back to the queue.
      kept_in: The partition of the lanes topic that its records go to, once that was chosen.
    """

    __slots__ = ("due_ms", "kept", "kept_in", "key", "order", "record", "released", "size", "state")

    def __init__(self, key: bytes, order: Order, state: State) -> None:
        self.key = key
        self.order = order
        self.state = state
        self.record: R | None = None
        self.size = 0
        self.kept = False
        self.kept_in: int | None = None
        self.due_ms = 0
        self.released = False

    def __lt__(self, other: Turn[R]) -> bool:
        return self.order < other.order

    def is_below(self, offset: int) -> bool:
        """Whether its record, if it has one here, is from below ``offset``."""
        return self.record is not None and self.record.offset < offset


class Lane(Generic[R]):
    """The turns of one key, in order. ``running`` is the one that has been handed out."""

    __slots__ = ("kept", "parked", "running", "turns")

    def __init__(self) -> None:
        self.turns: list[Turn[R]] = []
        self.running: Turn[R] | None = None
        self.parked = 0
        self.kept = 0

    def find(self, order: Order) -> Turn[R] | None:
        place = bisect_left(self.turns, order, key=lambda turn: turn.order)
        found = self.turns[place] if place < len(self.turns) else None
        return found if found is not None and found.order == order else None

    @property
    def first(self) -> Turn[R]:
        return self.turns[0]

    @property
    def is_blocked(self) -> bool:
        """Whether a retry is waited for: then nothing of the lane is kept in memory."""
        first = self.first
        return first.state is State.WAITING and first.due_ms > 0 and not first.released


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
        self.ready: deque[Turn[R]] = deque()
        self.leaving: deque[tuple[R, Turn[R] | None]] = deque()
        self.parked = 0
        self.kept = 0
        self._parked_bytes = 0
        self._lanes: dict[bytes, Lane[R]] = {}
        self._retries: list[tuple[int, bytes]] = []  # a heap of when a lane's first is due
        self._changed: set[bytes] = set()  # lanes that may have something to release
        self._on_the_way: set[Turn[R]] = set()

    def __len__(self) -> int:
        """How many keys have something that is not done."""
        return len(self._lanes)

    def find(self, key: bytes, order: Order) -> Turn[R] | None:
        """The turn of a message that is not done."""
        lane = self._lanes.get(key)
        return lane.find(order) if lane is not None else None

    def lowest_offset(self) -> int | None:
        """The lowest offset of what was taken in and not begun."""
        turns = [turn for lane in self._lanes.values() for turn in lane.turns if turn is not lane.running]
        return min((turn.record.offset for turn in (*turns, *self.ready) if turn.record), default=None)

    # What arrives

    def restore(self, waiting: Iterable[tuple[bytes, Order, int, int | None]]) -> None:
        """Put in what the lanes topic has, as (key, order number, due time, partition that keeps it)."""
        for key, order, due_ms, kept_in in sorted(waiting, key=lambda found: found[1]):
            turn: Turn[R] = Turn(key, order, State.WAITING)
            turn.kept_in = kept_in
            lane = self._lanes.setdefault(key, Lane())
            lane.turns.append(turn)
            self._keep(lane, turn, due_ms)

    def take_in(
        self, key: bytes, order: Order, record: R, *, size: int = 0, ticket_due_ms: int | None = None
    ) -> None:
        """Take in a record that was read. Records come in the order of their offsets.

        Parameters:
          ticket_due_ms: None when this is the message's own first record; else the due time of the wait that
            this record ends.
        """
        lane = self._lanes.get(key)
        turn = lane.find(order) if lane is not None else None
        if turn is not None:
            assert lane is not None
            self._take_in_again(lane, turn, record, size, ticket_due_ms)
        elif ticket_due_ms is not None:
            self.leaving.append((record, None))  # it was done since
        else:
            if lane is None:
                lane = self._lanes[key] = Lane()
            turn = Turn(key, order, State.PARKED)
            insort(lane.turns, turn)
            may_run = lane.running is None and lane.first is turn
            if lane.is_blocked or (self._is_full(lane) and not may_run):
                self._move(turn, record)
            else:
                self._park(lane, turn, record, size)
                self._advance(lane)

    def _is_full(self, lane: Lane[R]) -> bool:
        return (
            lane.parked >= MAX_PARKED_OF_A_KEY
            or self.parked >= MAX_PARKED
            or self._parked_bytes >= MAX_PARKED_BYTES
        )

    def _take_in_again(
        self, lane: Lane[R], turn: Turn[R], record: R, size: int, ticket_due_ms: int | None
    ) -> None:
        is_its_ticket = turn.state is State.WAITING and ticket_due_ms == turn.due_ms
        if is_its_ticket and (turn is lane.first or not lane.is_blocked):
            self._on_the_way.discard(turn)
            turn.state = State.PARKED
            self._park(lane, turn, record, size)
            self._advance(lane)
        else:
            # The lanes topic has it, or another record of it is not complete.
            if is_its_ticket:
                self.recall(turn)
            self.leaving.append((record, None))

    def adopt(self, key: bytes, order: Order) -> Turn[R]:
        """Note that a message runs already, since an earlier assignment."""
        lane = self._lanes.setdefault(key, Lane())
        turn = lane.find(order)
        if turn is None:
            turn = Turn(key, order, State.RUNNING)
            insort(lane.turns, turn)
        self._on_the_way.discard(turn)
        turn.state = State.RUNNING
        lane.running = lane.running or turn
        return turn

    # What becomes of a turn

    def finish(self, turn: Turn[R]) -> None:
        """Note that a message is done, or dead-lettered."""
        lane = self._lanes[turn.key]
        lane.turns.remove(turn)
        lane.kept -= turn.kept
        self.kept -= turn.kept
        self._on_the_way.discard(turn)
        if lane.running is turn:
            lane.running = None
        if lane.turns:
            self._advance(lane)
        else:
            del self._lanes[turn.key]

    def forget(self, key: bytes, order: Order) -> None:
        """Note that a message waits no more, unless it has come back already."""
        turn = self.find(key, order)
        if turn is not None and turn.state is State.WAITING:
            self.finish(turn)

    def drop_below(self, offset: int) -> list[R]:
        """Forget what was taken in from below ``offset`` and is still here, and return its records.

        What was handed out stays, and so does what the lanes topic has and no ticket has brought back.
        """
        dropped = [record for record, _ in self.leaving if record.offset < offset]
        here = {turn for _, turn in self.leaving if turn is not None} | set(self.ready)
        self.leaving = deque((record, turn) for record, turn in self.leaving if record.offset >= offset)
        for lane in list(self._lanes.values()):
            # The last first: the end of the first would hand out the next.
            for turn in reversed(lane.turns.copy()):
                record = turn.record
                if record is None or not turn.is_below(offset):
                    continue
                if turn.state is State.PARKED:
                    self._unpark(lane, turn)
                elif turn not in here:
                    continue
                if turn.state is not State.MOVING:  # else it was in `leaving`
                    dropped.append(record)
                self.finish(turn)
        self.ready = deque(turn for turn in self.ready if not turn.is_below(offset))
        return dropped

    def wait(self, turn: Turn[R], due_ms: int) -> None:
        """Note that the lanes topic has a message now: until its retry is due, or until it is its turn."""
        lane = self._lanes[turn.key]
        if lane.running is turn:
            lane.running = None
        turn.state, turn.record = State.WAITING, None
        self._keep(lane, turn, due_ms)
        if lane.is_blocked:
            self._clear(lane)
        else:
            self._advance(lane)

    def _keep(self, lane: Lane[R], turn: Turn[R], due_ms: int) -> None:
        lane.kept += not turn.kept
        self.kept += not turn.kept
        turn.kept, turn.due_ms = True, due_ms
        self.recall(turn)

    def _clear(self, lane: Lane[R]) -> None:
        """Move what is parked behind a retry that waits, so that its offsets can be committed."""
        for turn in lane.turns:
            if turn.state is State.PARKED:
                record = turn.record
                assert record is not None
                self._unpark(lane, turn)
                if turn.kept:
                    turn.state = State.WAITING
                    self.recall(turn)
                    self.leaving.append((record, None))
                else:
                    self._move(turn, record)

    def _move(self, turn: Turn[R], record: R) -> None:
        turn.state, turn.record = State.MOVING, record
        self.leaving.append((record, turn))

    def _park(self, lane: Lane[R], turn: Turn[R], record: R, size: int) -> None:
        turn.record, turn.size = record, size
        lane.parked += 1
        self.parked += 1
        self._parked_bytes += size

    def _unpark(self, lane: Lane[R], turn: Turn[R]) -> None:
        turn.record = None
        lane.parked -= 1
        self.parked -= 1
        self._parked_bytes -= turn.size

    def _advance(self, lane: Lane[R]) -> None:
        first = lane.first
        if lane.kept:
            self._changed.add(first.key)
        if lane.running is None and first.state is State.PARKED:
            record = first.record
            self._unpark(lane, first)
            first.record = record
            first.state = State.RUNNING
            lane.running = first
            self.ready.append(first)

    # What is to be brought back to the queue

    def to_release(self, now_ms: int) -> list[Turn[R]]:
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
                    turn
                    for turn in lane.turns[:MAX_RELEASED_OF_A_KEY]
                    if turn.state is State.WAITING and not turn.released and turn.due_ms <= now_ms
                ]
        self._changed.clear()
        return found

    def next_due_ms(self) -> int | None:
        """When `to_release` may find something: 0 for now, None for not before something else happens."""
        if self._changed:
            return 0
        return self._retries[0][0] if self._retries else None

    def release(self, turn: Turn[R]) -> None:
        """Note that its ticket is on the way."""
        if turn.state is State.WAITING:
            turn.released = True
            self._on_the_way.add(turn)

    def release_again(self) -> None:
        """Note that what is on the way has not come, and will not."""
        for turn in list(self._on_the_way):
            self.recall(turn)

    @property
    def awaits_tickets(self) -> bool:
        """Whether something is on the way."""
        return bool(self._on_the_way)

    def recall(self, turn: Turn[R]) -> None:
        """Note that no ticket of it is on the way: it is to be released again."""
        turn.released = False
        self._on_the_way.discard(turn)
        self._changed.add(turn.key)
