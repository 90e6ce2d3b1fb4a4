"""Runs the records of one consumer that may have crashed a worker, so that a further crash names the cause.

    on probation    marked ──► the marks are in a commit: cleared ──► dispatched
    suspect         the same, one at a time, and only once nothing else is in flight in the process
    poison          its crash count has reached max_crashes: dead-lettered without a run

A partition is on probation after an unclean handover, up to its ``probation_end``. A record with a crash
count is on probation until it is complete. ``offsets/crash_counts.py`` has both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from ..deliveries.assigned_partition import AssignedPartition, Capacity
from ..deliveries.in_flight import InFlightDeliveries
from ..errors import PoisonMessage
from ..kafka.types import ConsumedRecord
from ..process.backoff import Backoff

#: The maximum number of records that are marked in one commit: their crash counts must fit its metadata.
MAX_MARKED = 64
#: The pause before marks are committed again that Kafka did not accept.
MARK_BACKOFF_S = 0.5

#: Commits the state of partitions and waits for the response; False when Kafka did not accept the commit.
CommitNow = Callable[[Sequence[AssignedPartition]], bool]


class Records(Protocol):
    """The next records of a consumer's partitions (see ``Dispatcher``)."""

    def has_next(self, assigned: AssignedPartition) -> bool: ...

    def has_room(self, assigned: AssignedPartition) -> bool: ...

    def pop(self, assigned: AssignedPartition) -> ConsumedRecord: ...

    def reject(self, assigned: AssignedPartition, record: ConsumedRecord, error: Exception) -> None: ...


class Probation:
    """The records of one consumer on probation that were taken and are not dispatched. The consumer's thread
    calls all methods.

    It is also the owner of the process's isolation, while a suspect of this consumer runs alone.

    Parameters:
      max_crashes: The crash count at which a suspect is dead-lettered.

    Attributes:
      marked: A partition and its records whose marks are not committed yet. No other record may be dispatched
        meanwhile.
      cleared: Records that may run: their marks are committed.
    """

    def __init__(
        self,
        records: Records,
        in_flight: InFlightDeliveries,
        capacity: Capacity,
        *,
        commit_now: CommitNow,
        max_crashes: int,
    ) -> None:
        self.marked: tuple[AssignedPartition, list[ConsumedRecord]] | None = None
        self.cleared: deque[tuple[AssignedPartition, ConsumedRecord]] = deque()
        self._records = records
        self._in_flight = in_flight
        self._capacity = capacity
        self._commit_now = commit_now
        self._max_crashes = max_crashes
        self._backoff = Backoff(MARK_BACKOFF_S)
        self._suspected: AssignedPartition | None = None

    def take_next(self, assigned: AssignedPartition) -> None:
        """Take the next records of a partition whose next record is on probation."""
        if assigned.is_suspect():
            self._suspected = assigned
            self.decide_on_suspect()
        else:
            self._take_and_mark(assigned, MAX_MARKED)

    def decide_on_suspect(self) -> None:
        """Reject the suspect as poison, or take it once nothing else is in flight in this process. When there
        is no suspect, end the isolation.
        """
        assigned = self._suspected
        if assigned is None or not self._records.has_next(assigned) or not assigned.is_suspect():
            self._suspected = None
            if self._in_flight.isolate(self):  # no message runs: the last suspect is done
                self._in_flight.end_isolation(self)
        elif (crashes := assigned.head_crashes()) >= self._max_crashes:
            error = PoisonMessage(f"its worker died, or lost its partitions, {crashes} times with it")
            self._records.reject(assigned, self._records.pop(assigned), error)
        elif self._in_flight.isolate(self):
            self._take_and_mark(assigned, 1)

    def _take_and_mark(self, assigned: AssignedPartition, at_most: int) -> None:
        """Take some records and give them running marks. After a crash the marks name them."""
        marked: list[ConsumedRecord] = []
        while len(marked) < min(at_most, self._capacity.free) and self._records.has_next(assigned):
            if marked and (assigned.is_suspect() or not assigned.on_probation()):
                break
            if marked and not assigned.has_ready and not self._records.has_room(assigned):
                break
            record = self._records.pop(assigned)
            marked.append(record)
            with self._in_flight.lock:
                assigned.crash_counts.mark_running(record.offset)
        if marked:
            self.marked = assigned, marked
            self.commit_marks()

    def commit_marks(self) -> None:
        """Commit the running marks, unless the last attempt failed a moment ago. Clear their records on
        success.
        """
        if self.marked is None:
            return
        assigned, records = self.marked
        if assigned.revoked:
            self.marked = None
        elif self._backoff.is_over:
            if self._commit_now([assigned]):
                self.cleared.extend((assigned, record) for record in records)
                self.marked = None
            else:
                self._backoff.fail()

    def drop_below(self, assigned: AssignedPartition, offset: int) -> list[ConsumedRecord]:
        """Drop the taken records of a partition below ``offset``, and return them."""
        dropped = [record for owner, record in self.cleared if owner is assigned and record.offset < offset]
        self.cleared = deque(entry for entry in self.cleared if entry[1] not in dropped)
        if self.marked is not None and self.marked[0] is assigned:
            records = self.marked[1]
            dropped += [record for record in records if record.offset < offset]
            kept = [record for record in records if record.offset >= offset]
            self.marked = (assigned, kept) if kept else None
        return dropped

    def put_back(self) -> None:
        """Return the records that were taken and not dispatched, as nothing may run for a while. A crash
        meanwhile counts nothing against them.
        """
        with self._in_flight.lock:
            taken = [*self.cleared]
            if self.marked is not None:
                taken += [(self.marked[0], record) for record in self.marked[1]]
            for assigned, record in taken:
                if not assigned.revoked:
                    assigned.put_back(record)
            self.cleared.clear()
            self.marked = None

    def close(self) -> None:
        """End the isolation of the process, if a suspect runs alone in it."""
        self._in_flight.end_isolation(self)
