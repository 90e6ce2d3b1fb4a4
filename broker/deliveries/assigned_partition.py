"""One partition, from the moment a consumer is given it until it is taken away."""

from __future__ import annotations

from collections import deque
from threading import Event

from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.ack_tracker import AckTracker
from ..offsets.commit_metadata import MAX_METADATA_CHARS, CommitState, Suspicion, encode
from ..partition_keys.lanes import LaneEntry, Lanes, SequenceNumber
from ..partition_keys.record_format import lane_of, read_requeue_headers
from .delivery import Delivery

#: Below this many incomplete offsets the metadata cannot reach its limit: 9 bytes, 12 characters, for each
#: gap at most, and as many again for a crash count.
CERTAINLY_FITS = MAX_METADATA_CHARS // 24 - 4
#: How many commits of its own an assignment knows again. At most one is under way besides that of a handover.
REMEMBERED_COMMITS = 4
#: Room kept free for one more incomplete offset and the flags.
_HEADROOM_CHARS = 48


class Capacity:
    """How many deliveries a consumer may still hand out. Guarded by the ledger's lock, except to wait."""

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.changed = Event()

    def give_back(self, count: int) -> None:
        self.free += count
        # The consumer clears it before it looks at `free` for the last time and waits.
        if not self.changed.is_set():
            self.changed.set()


class AssignedPartition:
    """The broker's side of an assigned partition. Its fields are guarded by the ledger's lock.

    Attributes:
      epoch: How many assignments this process was given before. An ack for an older epoch of the same
        partition does not touch this one.
      topic_id: Of the topic as it was when the partition was taken over; None when Kafka has not said.
      expected: The offset that the next record read should have.
      expected_epoch: The leader epoch of what stands last below ``expected``; -1 when it is not known.
      buffer: Records that were read and not dispatched.
      buffered_bytes: The size of the values in the buffer.
      in_flight: Deliveries that Dramatiq has and that are not complete, by offset.
      lanes: Whose turn it is among the records that have a key.
      turns: The turns of what was taken out of the lanes, by offset.
      suspicions: Crash counts of incomplete offsets (see ``commit_metadata``).
      probation_end: While the next record is below it, deliveries are marked in a commit before they are
        dispatched.
      leaving: Whether it is about to be taken away: nothing more of it is dispatched.
      revoked: Whether the partition was taken away.
      log_start: Where the log began when it was last looked for what a flush has deleted.
      dirty: Whether there is anything that the last commit did not say.
      unanswered: How many commits of it are under way.
      uncommitted: How many records were dispatched since a commit was last acknowledged.
      said: The last commits of it that were sent, as (offset, metadata), whether or not Kafka took them.
    """

    def __init__(
        self,
        partition: TopicPartition,
        state: CommitState,
        *,
        epoch: int,
        capacity: Capacity,
        probation_end: int = 0,
        lanes: Lanes[ConsumedRecord] | None = None,
        topic_id: object = None,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.topic_id = topic_id
        self.tracker = AckTracker(
            state.next_offset,
            highest=state.highest,
            incomplete=state.incomplete,
            leader_epoch=state.leader_epoch,
        )
        self.suspicions: dict[int, Suspicion] = dict(state.suspicions)
        self.probation_end = probation_end
        self.expected = state.next_offset
        self.expected_epoch = -1
        self.buffer: deque[ConsumedRecord] = deque()
        self.buffered_bytes = 0
        self.lanes: Lanes[ConsumedRecord] = Lanes() if lanes is None else lanes
        self.lane_entries: dict[int, LaneEntry[ConsumedRecord]] = {}
        self.in_flight: dict[int, Delivery] = {}
        self.leaving = False
        self.revoked = False
        self.log_start = 0
        self.dirty = True
        self.unanswered = 0
        self.uncommitted = 0
        self.said: deque[tuple[int, str]] = deque(maxlen=REMEMBERED_COMMITS)
        self._capacity = capacity

    def take_in(self, batch: list[ConsumedRecord]) -> None:
        """Put records that were read into the buffer."""
        self.buffer.extend(batch)
        self.buffered_bytes += sum(record.serialized_value_size for record in batch)
        self.expected = batch[-1].offset + 1
        self.expected_epoch = batch[-1].leader_epoch

    def skip_to(self, position: int, leader_epoch: int) -> None:
        """Note that there are no records below ``position`` any more that were not read."""
        self.expected = position
        self.expected_epoch = leader_epoch
        self.dirty = True

    def first_foreign(self, batch: list[ConsumedRecord]) -> ConsumedRecord | None:
        """The first record of ``batch`` that stands where an earlier owner read another one.

        The log was cut since, and has grown again: what stands there was written under a later leader than
        the last of what that owner read.
        """
        highest, leader_epoch = self.tracker.highest, self.tracker.leader_epoch
        if batch[0].offset > highest or leader_epoch < 0:
            return None  # the usual case
        return next((r for r in batch if r.offset <= highest and r.leader_epoch > leader_epoch), None)

    @property
    def head(self) -> ConsumedRecord | None:
        """The next record to be dispatched."""
        if self.lanes.ready:
            return self.lanes.ready[0].record
        return self.buffer[0] if self.buffer else None

    def take_ready(self) -> ConsumedRecord:
        """Take the next record whose turn has come."""
        entry = self.lanes.ready.popleft()
        record = entry.record
        assert record is not None
        self.lane_entries[record.offset] = entry
        return record

    def take_into_lane(self) -> None:
        """Take the next record of the buffer to the others of its key."""
        record = self.take_out()
        self.tracker.deliver(record.offset, record.leader_epoch)
        sequence, due_ms = _sequence_number_of(record)
        key = lane_of(record.headers)
        assert key is not None
        self.lanes.take_in(key, sequence, record, size=record.serialized_value_size, requeued_due_ms=due_ms)

    def adopt(self, record: ConsumedRecord) -> None:
        """Note that the next record of the buffer runs already."""
        self.take_out()
        self.tracker.deliver(record.offset, record.leader_epoch)
        if record.key is not None and (key := lane_of(record.headers)) is not None:
            entry = self.lanes.adopt(key, _sequence_number_of(record)[0])
            self.lane_entries[record.offset] = self.in_flight[record.offset].lane_entry = entry

    def complete_unrun(self, offset: int) -> None:
        """Mark a record complete that stands for a message which another one stands for, too."""
        self.tracker.complete(offset)
        self.suspicions.pop(offset, None)
        self.dirty = True

    def take_out(self) -> ConsumedRecord:
        """Take the next record out of the buffer."""
        record = self.buffer.popleft()
        self.buffered_bytes -= record.serialized_value_size
        return record

    def dispatch(self, delivery: Delivery) -> None:
        """Count ``delivery`` as outstanding."""
        self.in_flight[delivery.origin.offset] = delivery
        self.uncommitted += 1
        self._capacity.free -= 1

    def complete(self, offset: int) -> None:
        """Mark a delivery complete and let the consumer know that there is room."""
        if (delivery := self.in_flight.pop(offset, None)) is not None:
            if self.lane_entries and (entry := self.lane_entries.pop(offset, None)) is not None:
                if delivery.wait is None or delivery.flushed:
                    self.lanes.finish(entry)
                else:
                    self.lanes.wait(entry, delivery.wait.due_ms)
            self.tracker.complete(offset)
            self.suspicions.pop(offset, None)
            self.dirty = True
            self._capacity.give_back(1)

    def holds_below(self, offset: int) -> bool:
        """Whether anything from below ``offset`` is not complete here."""
        first = self.buffer[0].offset if self.buffer else offset
        return min(first, self.tracker.next_offset) < offset

    def drop_below(self, offset: int) -> int:
        """Complete what was read from below ``offset`` and not dispatched; return how much that was."""
        dropped = 0
        while self.buffer and self.buffer[0].offset < offset:
            self.take_out()
            dropped += 1
        for record in self.lanes.drop_below(offset):
            self.complete_unrun(record.offset)
            dropped += 1
        self.tracker.skip_to(offset)  # among it what an earlier owner left behind
        self.expected = max(self.expected, offset)
        self.dirty = True
        return dropped

    def runs_keyed(self) -> bool:
        """Whether a message that has a key is run or settled at the moment."""
        return any(delivery.begun and delivery.lane_entry is not None for delivery in self.in_flight.values())

    def revoke(self) -> list[Delivery]:
        """Take the partition away and return what was outstanding.

        The buffer stays: the last commit has yet to tell that what is in it was not delivered.
        """
        self.revoked = True
        outstanding = list(self.in_flight.values())
        self.in_flight.clear()
        self._capacity.give_back(len(outstanding))
        return outstanding

    def head_crashes(self) -> int:
        """How often a worker died while the next record was marked as running."""
        if not self.suspicions or (head := self.head) is None:
            return 0
        suspicion = self.suspicions.get(head.offset)
        return suspicion.crashes if suspicion else 0

    def is_suspect(self) -> bool:
        """Whether the next record was marked as running at a crash after the one that began the probation."""
        return self.head_crashes() > 1

    def on_probation(self) -> bool:
        """Whether the next record may be the one that an owner died of."""
        if self.head_crashes() > 0:
            return True
        return self.probation_end > 0 and (head := self.head) is not None and head.offset < self.probation_end

    @property
    def is_committed(self) -> bool:
        """Whether Kafka has acknowledged everything there is to say."""
        return not self.dirty and not self.unanswered

    def snapshot(self, *, clean: bool = False) -> CommitState:
        """What a commit made now has to say."""
        next_unread = self.buffer[0].offset if self.buffer else self.expected
        if not self.buffer:
            self.tracker.skip_to(self.expected, self.expected_epoch)
        incomplete = dict.fromkeys(self.tracker.incomplete)
        suspicions = {offset: s for offset, s in self.suspicions.items() if offset in incomplete}
        if clean:
            if self.lanes:
                lowest = self.lanes.lowest_offset()
                next_unread = next_unread if lowest is None else min(next_unread, lowest)
            # A handover in good order is no crash: what still runs here is no suspect of the next owner's.
            suspicions = {offset: Suspicion(s.crashes, running=False) for offset, s in suspicions.items()}
        return CommitState(
            self.tracker.next_offset,
            self.tracker.highest,
            tuple(incomplete),
            # The next owner takes over a probation that is not over.
            clean=clean and next_unread >= self.probation_end,
            suspicions=suspicions,
            log_start=self.log_start if self.log_start > self.tracker.next_offset else 0,
            leader_epoch=self.tracker.leader_epoch,
        )

    def has_room_in_metadata(self) -> bool:
        """Whether one more incomplete offset still fits into the commit metadata."""
        if len(self.tracker) < CERTAINLY_FITS:
            return True
        return len(encode(self.snapshot())) + _HEADROOM_CHARS <= MAX_METADATA_CHARS


def _sequence_number_of(record: ConsumedRecord) -> tuple[SequenceNumber, int | None]:
    """A record's order number, and the due time of the wait that it ends, if it does."""
    if record.headers and (read := read_requeue_headers(record.headers)) is not None:
        return read
    return SequenceNumber(record.offset, record.timestamp), None
