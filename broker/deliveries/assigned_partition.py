"""One partition during one assignment: from its restore until its revoke."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Event

from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.ack_tracker import AckTracker
from ..offsets.commit_metadata import MAX_METADATA_CHARS, CommitState, encode
from ..offsets.committed_lanes import CommittedLanes, LogEnd, summarize
from ..offsets.crash_counts import CrashCounts
from ..partition_keys.lane import LaneEntry, SequenceNumber
from ..partition_keys.lanes import Lanes
from ..partition_keys.limits import read_limit
from ..partition_keys.record_format import lane_of, read_requeue_headers
from ..partition_keys.unique import read_unique
from ..process import clock
from .delivery import Delivery

#: With fewer incomplete offsets the metadata cannot reach its limit: a gap takes 9 bytes (12 characters) at
#: most, and a crash count as many.
CERTAINLY_FITS = MAX_METADATA_CHARS // 24 - 4
#: The number of its own commits that an assignment recognises. At most one is in flight beside a handover's.
REMEMBERED_COMMITS = 4
#: Characters kept free for one more incomplete offset and the flags.
_HEADROOM_CHARS = 48
#: The characters that one more incomplete offset takes at most.
_OFFSET_CHARS = 24
#: The records, and their bytes, that move to the lanes topic at the same time. They wait for Kafka and for no
#: worker thread. Many share a publish, which takes a round trip.
MAX_MOVING = 1_024
MAX_MOVING_BYTES = 1024 * 1024
#: The number of records that begin to move together. With fewer, each acknowledged record would begin one.
MOVE_TOGETHER = 128


class Capacity:
    """The number of deliveries that a consumer may still dispatch.

    ``InFlightDeliveries.lock`` guards the numbers. A wait for ``changed`` needs no lock.

    Attributes:
      free: The number of deliveries for worker threads.
      free_moves, free_move_bytes: The number of records that may move to the lanes topic, and their bytes,
        which one record may exceed.
    """

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.free_moves = MAX_MOVING
        self.free_move_bytes = MAX_MOVING_BYTES
        self.changed = Event()

    @property
    def may_move(self) -> bool:
        """Whether so many more records may move to the lanes topic as move together."""
        return self.free_moves >= MOVE_TOGETHER and self.free_move_bytes > 0

    def take(self, delivery: Delivery) -> None:
        """Count a delivery as in flight."""
        if delivery.is_move:
            self.free_moves -= 1
            self.free_move_bytes -= len(delivery.raw)
        else:
            self.free -= 1

    def give_back(self, *deliveries: Delivery) -> None:
        """Count deliveries as no longer in flight."""
        for delivery in deliveries:
            if delivery.is_move:
                self.free_moves += 1
                self.free_move_bytes += len(delivery.raw)
            else:
                self.free += 1
        # The consumer clears the event, reads `free` once more, and then waits.
        if not self.changed.is_set():
            self.changed.set()


class AssignedPartition:
    """The broker's state of an assigned partition. ``InFlightDeliveries.lock`` guards its fields.

    Attributes:
      epoch: The assignment epoch. An ack for an earlier assignment of the same partition does not change this
        one.
      topic_id: The id of the topic at the time of the restore; None when Kafka did not report one.
      expected: The offset that the next record read should have.
      expected_epoch: The leader epoch of the last record below ``expected``; -1 when it is not known.
      buffer: Records that were read and not dispatched.
      buffered_bytes: The size of the values in the buffer.
      paused: Whether Kafka's consumer reads nothing more of it, as its buffer is full.
      returned: Records that were dispatched and returned, as their queue was paused, in the order of offsets.
        They are delivered offsets, and keep their lane entries and lanes.
      in_flight: Dispatched deliveries that are not complete, by offset.
      lanes: The order of the records that have a partition key.
      lanes_are_closed: Whether the rights to the lanes topic are missing. No keyed record is dispatched then.
      lane_entries: The lane entries of dispatched records, by offset.
      crash_counts: The crash counts of incomplete offsets, and the end of the probation.
      leaving: Whether a revoke is about to follow. Nothing more of the partition is dispatched or begins.
      revoked: Whether the partition was revoked or lost.
      log_start: The log start at the last check for flushed records.
      dirty: Whether the state has changed since the last commit.
      unanswered: The number of its commits without an answer.
      uncommitted: The number of records dispatched since the last acknowledged commit.
      dispatched_s: The time of the first dispatch since the last commit; infinite without one.
      sent_commits: Its last commits, as (offset, metadata), whether or not Kafka accepted them.
      committed_offset: The next offset of the last acknowledged commit.
      duplicates: Records of unique messages that were completed without a run, and not reported yet.
      restored_end: The end of the offsets that earlier owners have dispatched.
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
        lane_ends: Callable[[], Mapping[int, LogEnd]] = dict,
        lanes_are_closed: bool = False,
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
        self.crash_counts = CrashCounts(state.suspicions, probation_end)
        self.restored_end = state.highest + 1
        self.expected = state.next_offset
        self.expected_epoch = -1
        self.buffer: deque[ConsumedRecord] = deque()
        self.buffered_bytes = 0
        self.paused = False
        self.lanes: Lanes[ConsumedRecord] = Lanes() if lanes is None else lanes
        self.lanes_are_closed = lanes_are_closed
        self._restored_lanes = state.lanes
        self._lane_ends = lane_ends
        self.lane_entries: dict[int, LaneEntry[ConsumedRecord]] = {}
        self.returned: list[ConsumedRecord] = []
        self.in_flight: dict[int, Delivery] = {}
        self.leaving = False
        self.revoked = False
        self.log_start = 0
        self.dirty = True
        self.unanswered = 0
        self.uncommitted = 0
        self.dispatched_s = math.inf
        self.sent_commits: deque[tuple[int, str]] = deque(maxlen=REMEMBERED_COMMITS)
        self.committed_offset = 0
        self.duplicates: list[ConsumedRecord] = []
        self._fits_up_to = 0
        self._capacity = capacity

    def take_in(self, polled: Sequence[ConsumedRecord]) -> None:
        """Append records that were read to the buffer."""
        self.buffer.extend(polled)
        self.buffered_bytes += sum(record.serialized_value_size for record in polled)
        self.expected = polled[-1].offset + 1
        self.expected_epoch = polled[-1].leader_epoch

    def skip_to(self, position: int, leader_epoch: int) -> None:
        """Note that the log has no unread records below ``position``."""
        self.expected = position
        self.expected_epoch = leader_epoch
        self.dirty = True

    def first_foreign(self, polled: Sequence[ConsumedRecord]) -> ConsumedRecord | None:
        """The first of some records at an offset where an earlier owner read another record.

        The log was truncated since, and has grown again: the record has a later leader epoch than the last
        record which that owner read.
        """
        highest, leader_epoch = self.tracker.highest, self.tracker.leader_epoch
        if polled[0].offset > highest or leader_epoch < 0:
            return None  # the usual case
        return next((r for r in polled if r.offset <= highest and r.leader_epoch > leader_epoch), None)

    @property
    def first_unread(self) -> int:
        """The offset of the next record that goes into a lane, or is dispatched."""
        return self.buffer[0].offset if self.buffer else self.expected

    @property
    def topic_text(self) -> str:
        """The id of the topic as a text; empty when Kafka did not report one."""
        return "" if self.topic_id is None else str(self.topic_id)

    @property
    def has_ready(self) -> bool:
        """Whether a record may be dispatched that counts as delivered already."""
        return bool(self.returned or self.lanes.ready)

    @property
    def head(self) -> ConsumedRecord | None:
        """The next record to be dispatched."""
        if self.returned:
            return self.returned[0]
        if self.lanes.ready:
            return self.lanes.ready[0].record
        return self.buffer[0] if self.buffer else None

    def take_ready(self) -> ConsumedRecord:
        """Take the next record that counts as delivered: one that was returned, or of a ready lane entry."""
        if self.returned:
            return self.returned.pop(0)
        entry = self.lanes.ready.popleft()
        record = entry.record
        assert record is not None
        self.lane_entries[record.offset] = entry
        return record

    def take_plain(self, max_uncommitted: int) -> ConsumedRecord | None:
        """Take the next record and count it as delivered, in the usual case: it has no key, and nothing of
        the partition comes before it. None in any other case, about which the dispatcher decides.

        Parameters:
          max_uncommitted: The most records that may be dispatched after the last acknowledged commit.
        """
        tracker, lanes, counts = self.tracker, self.lanes, self.crash_counts
        if (
            not self.buffer
            or self.returned
            or lanes.ready
            or lanes.leaving
            or counts.probation_end
            or counts.suspicions
            or self.uncommitted >= max_uncommitted
            or len(tracker) >= CERTAINLY_FITS
        ):
            return None
        record = self.buffer[0]
        if record.key is not None or record.offset <= tracker.highest:
            return None
        self.take_out()
        tracker.deliver(record.offset, record.leader_epoch)
        return record

    def take_into_lane(self) -> None:
        """Move the next record of the buffer into its lane."""
        record = self.take_out()
        self.tracker.deliver(record.offset, record.leader_epoch)
        sequence, due_ms = _sequence_number_of(record)
        key = lane_of(record.headers)
        assert key is not None
        limit = read_limit(record.headers)
        if limit.interval_ms:
            self.lanes.tick(clock.wall_ms())
        is_new = self.lanes.take_in(
            key,
            sequence,
            record,
            size=record.serialized_value_size,
            requeued_due_ms=due_ms,
            unique=read_unique(record.headers),
            limit=limit,
        )
        if not is_new:
            # Now, and with no commit in between: the message of which it is a duplicate may be done before.
            self.complete_unrun(record.offset)
            self.duplicates.append(record)

    def hold(self) -> None:
        """Take the next record out of the buffer and leave it incomplete: it is read again later."""
        record = self.take_out()
        self.tracker.deliver(record.offset, record.leader_epoch)
        self.dirty = True

    def adopt(self, record: ConsumedRecord) -> None:
        """Take the next record out of the buffer: a delivery in flight runs it, or has run it."""
        self.take_out()
        self.tracker.deliver(record.offset, record.leader_epoch)
        if record.key is not None and (key := lane_of(record.headers)) is not None:
            entry = self.lanes.adopt(key, _sequence_number_of(record)[0])
            delivery = self.in_flight[record.offset]
            self.lane_entries[record.offset] = delivery.lane_entry = entry
            entry.limit = read_limit(record.headers)
            if (unique := read_unique(record.headers)) is not None:
                self.lanes.set_unique(entry, unique)
                if delivery.mark is not None:
                    self.lanes.free_key(entry, delivery.mark)

    def complete_unrun(self, offset: int) -> None:
        """Complete a record without a run: another record has its message, or a flush dropped it."""
        self.tracker.complete(offset)
        self.crash_counts.drop(offset)
        self.dirty = True

    def complete_repeated(self) -> None:
        """Complete the records that only repeat a message: the lanes topic has it, or it is done.

        A worker that stops takes no more steps, in which it would complete them.
        """
        leaving = self.lanes.leaving
        for _ in range(len(leaving)):
            record, entry = leaving.popleft()
            if entry is None:
                self.complete_unrun(record.offset)
            else:
                leaving.append((record, entry))

    def take_out(self) -> ConsumedRecord:
        """Take the next record out of the buffer."""
        record = self.buffer.popleft()
        self.buffered_bytes -= record.serialized_value_size
        return record

    def dispatch(self, delivery: Delivery) -> None:
        """Count ``delivery`` as in flight."""
        self.in_flight[delivery.origin.offset] = delivery
        self.uncommitted += 1
        if self.dispatched_s == math.inf:
            self.dispatched_s = clock.monotonic_s()
        self._capacity.take(delivery)

    def take_back(self, delivery: Delivery) -> None:
        """Take back the record of a dispatched delivery that no thread has begun. A crash from now on counts
        nothing against it.
        """
        del self.in_flight[delivery.origin.offset]
        assert delivery.record is not None
        self.put_back(delivery.record)
        self._capacity.give_back(delivery)

    def park_again(self, delivery: Delivery) -> None:
        """Take back the record of a dispatched delivery for which the rate of its key has no place yet."""
        record, offset = delivery.record, delivery.origin.offset
        assert record is not None
        del self.in_flight[offset]
        self.lanes.park_again(self.lane_entries.pop(offset), record, record.serialized_value_size)
        self.crash_counts.unmark(offset)
        self.dirty = True
        self._capacity.give_back(delivery)

    def put_back(self, record: ConsumedRecord) -> None:
        """Let a record that counts as delivered be dispatched later."""
        insort(self.returned, record, key=lambda each: each.offset)
        self.crash_counts.unmark(record.offset)
        self.dirty = True

    def complete(self, offset: int) -> None:
        """Complete the delivery at ``offset``, advance its lane, and give its capacity back."""
        if (delivery := self.in_flight.pop(offset, None)) is not None:
            if self.lane_entries and (entry := self.lane_entries.pop(offset, None)) is not None:
                if delivery.wait is None or delivery.flushed:
                    self.lanes.finish(entry)
                else:
                    self.lanes.wait(entry, delivery.wait.due_ms)
            self.tracker.complete(offset)
            if self.crash_counts.suspicions:
                self.crash_counts.drop(offset)
            self.dirty = True
            self._capacity.give_back(delivery)

    def holds_below(self, offset: int) -> bool:
        """Whether a record below ``offset`` is in the buffer or incomplete."""
        first = self.buffer[0].offset if self.buffer else offset
        return min(first, self.tracker.next_offset) < offset

    def drop_below(self, offset: int) -> int:
        """Complete the records below ``offset`` that were read and not dispatched; return their number."""
        dropped = 0
        while self.buffer and self.buffer[0].offset < offset:
            self.take_out()
            dropped += 1
        while self.returned and self.returned[0].offset < offset:
            record = self.returned.pop(0)
            self.complete_unrun(record.offset)
            if (entry := self.lane_entries.pop(record.offset, None)) is not None:
                self.lanes.finish(entry)
            dropped += 1
        for record in self.lanes.drop_below(offset):
            self.complete_unrun(record.offset)
            dropped += 1
        self.tracker.skip_to(offset)  # completes offsets that an earlier owner left incomplete, too
        self.expected = max(self.expected, offset)
        self.dirty = True
        return dropped

    def runs(self) -> bool:
        """Whether a delivery runs or is being settled."""
        return any(delivery.begun for delivery in self.in_flight.values())

    def revoke(self) -> list[Delivery]:
        """End the assignment and return the deliveries in flight.

        The buffer stays: :meth:`snapshot` needs it for the last commit, where its records count as not
        delivered.
        """
        self.revoked = True
        outstanding = list(self.in_flight.values())
        self.in_flight.clear()
        self._capacity.give_back(*outstanding)
        return outstanding

    def head_crashes(self) -> int:
        """The crash count of the next record."""
        head = self.head
        return 0 if head is None else self.crash_counts.crashes(head.offset)

    def is_suspect(self) -> bool:
        """Whether the next record is a suspect."""
        head = self.head
        return head is not None and self.crash_counts.is_suspect(head.offset)

    def on_probation(self) -> bool:
        """Whether the next record may have crashed an owner."""
        counts = self.crash_counts
        if not counts.probation_end and not counts.suspicions:
            return False  # the usual case
        head = self.head
        return head is not None and counts.is_on_probation(head.offset)

    @property
    def is_committed(self) -> bool:
        """Whether Kafka has acknowledged a commit of the current state."""
        return not self.dirty and not self.unanswered

    def snapshot(self, *, clean: bool = False) -> CommitState:
        """The state that a commit contains now.

        Parameters:
          clean: Whether the commit is the handover of the partition.
        """
        state = self._snapshot(clean=clean)
        return replace(state, lanes=self._committed_lanes(state))

    def _committed_lanes(self, state: CommitState) -> CommittedLanes | None:
        """The part of the lanes that fits beside ``state`` into the commit metadata."""
        if self.lanes_are_closed:  # nothing has changed there
            whole = encode(replace(state, lanes=self._restored_lanes))
            return self._restored_lanes if len(whole) <= MAX_METADATA_CHARS else None
        if not (ends := self._lane_ends()):
            return None
        room = (MAX_METADATA_CHARS - len(encode(state))) * 3 // 4
        return summarize(ends, self.lanes.kept_offsets, highest=state.highest, room=room)

    def _snapshot(self, *, clean: bool = False) -> CommitState:
        next_unread = self.buffer[0].offset if self.buffer else self.expected
        if self.returned:
            next_unread = min(next_unread, self.returned[0].offset)
        if not self.buffer:
            self.tracker.skip_to(self.expected, self.expected_epoch)
        incomplete = dict.fromkeys(self.tracker.incomplete)
        if clean and self.lanes:
            lowest = self.lanes.lowest_offset()
            next_unread = next_unread if lowest is None else min(next_unread, lowest)
        return CommitState(
            self.tracker.next_offset,
            self.tracker.highest,
            tuple(incomplete),
            # The next owner continues a probation that has not ended.
            clean=clean and next_unread >= self.crash_counts.probation_end,
            suspicions=self.crash_counts.of_commit(incomplete, clean=clean),
            log_start=self.log_start if self.log_start > self.tracker.next_offset else 0,
            leader_epoch=self.tracker.leader_epoch,
        )

    def has_room_in_metadata(self) -> bool:
        """Whether one more incomplete offset still fits into the commit metadata."""
        if len(self.tracker) < CERTAINLY_FITS:
            return True
        has_suspicions = bool(self.crash_counts.suspicions)
        if self.tracker.highest < self._fits_up_to and not has_suspicions:
            return True
        left_chars = MAX_METADATA_CHARS - _HEADROOM_CHARS - len(encode(self._snapshot()))
        if not has_suspicions:
            # An offset that completes shortens the text, so only the next ones can fill it: not one of them
            # needs another look before the first that may not fit.
            self._fits_up_to = self.tracker.highest + left_chars // _OFFSET_CHARS
        return left_chars >= 0


def _sequence_number_of(record: ConsumedRecord) -> tuple[SequenceNumber, int | None]:
    """A record's sequence number, and the due time of the wait that it ends (None for a first record)."""
    if record.headers and (read := read_requeue_headers(record.headers)) is not None:
        return read
    return SequenceNumber(record.offset, record.timestamp), None
