"""One lane: the messages of a partition key that are not done, in order. Pure: no I/O, no clock, no lock."""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from .limits import NO_LIMIT, Limit

if TYPE_CHECKING:
    from .unique import Unique


class SequenceNumber(NamedTuple):
    """The offset and timestamp of a message's first record, which it keeps through ordered retries.

    The timestamp distinguishes its record from the one at the same offset of a recreated topic.
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
    """One message in a lane.

    Attributes:
      record: Its record in the queue's topic, while the offset of that is incomplete.
      kept: Whether the lanes topic has the message.
      due_ms: The time from which it may run, in milliseconds since 1970; 0 when it waits only for the entries
        before it.
      released: Whether its requeue record was sent and not read yet.
      kept_in: The partition of the lanes topic that has its records; None before the first was sent.
      limit: The limits of its key, as the message has them.
      unique: The rules of a unique message; None for another one.
      holds: Whether a later unique message of the key is a duplicate of this one, wherever the log has it.
    """

    __slots__ = (
        "due_ms", "holds", "kept", "kept_in", "key", "limit", "record", "released", "sequence", "size",
        "state", "unique",
    )  # fmt: skip

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
        self.unique: Unique | None = None
        self.limit: Limit = NO_LIMIT
        self.holds = False

    def __lt__(self, other: LaneEntry[R]) -> bool:
        return self.sequence < other.sequence

    def is_below(self, offset: int) -> bool:
        """Whether it has a record here, at an offset below ``offset``."""
        return self.record is not None and self.record.offset < offset


class Lane(Generic[R]):
    """The entries of one key, in order. ``running`` is the number of those that were dispatched."""

    __slots__ = ("kept", "lane_entries", "parked", "running")

    def __init__(self) -> None:
        self.lane_entries: list[LaneEntry[R]] = []
        self.running = 0
        self.parked = 0
        self.kept = 0

    def find(self, sequence: SequenceNumber) -> LaneEntry[R] | None:
        index = bisect_left(self.lane_entries, sequence, key=lambda entry: entry.sequence)
        found = self.lane_entries[index] if index < len(self.lane_entries) else None
        return found if found is not None and found.sequence == sequence else None

    def next_to_run(self) -> LaneEntry[R] | None:
        """The next entry to be dispatched, by the order of the lane and by how many run; None for none."""
        smallest = None
        for entry in self.lane_entries:
            limit = entry.limit.concurrency
            smallest = limit if smallest is None else min(smallest, limit)
            if self.running >= smallest:
                return None
            if entry.state is not LaneEntryState.RUNNING:
                return entry if entry.state is LaneEntryState.PARKED else None
        return None

    def to_release(self, now_ms: int, at_most: int) -> list[LaneEntry[R]]:
        """The entries near the head that wait in the lanes topic and are due. There are none while fewer than
        half of ``at_most`` would return, the head needs none of them, and more wait behind them.
        """
        near = self.lane_entries[: at_most + self.running]
        waiting = [
            entry
            for entry in near
            if entry.state is LaneEntryState.WAITING and not entry.released and entry.due_ms <= now_ms
        ]
        head = next((entry for entry in near if entry.state is not LaneEntryState.RUNNING), None)
        is_early = len(waiting) < at_most // 2 and len(self.lane_entries) > len(near)
        return [] if is_early and head not in waiting else waiting

    @property
    def first(self) -> LaneEntry[R]:
        return self.lane_entries[0]

    @property
    def is_blocked(self) -> bool:
        """Whether an ordered retry waits in front. No record of the lane is parked meanwhile."""
        first = self.first
        return first.state is LaneEntryState.WAITING and first.due_ms > 0 and not first.released
