"""The deliveries in flight in this process, of all consumers and all assignments."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterable

from ..kafka.types import ConsumedRecord, TopicPartition
from ..offsets.remembered import Remembered
from ..process.forks import reset_on_fork
from .assigned_partition import AssignedPartition
from .delivery import Delivery
from .gate import Gate

#: The number of orphans that have ended and are remembered, with their messages.
MAX_FINISHED = 1_000


class InFlightDeliveries:
    """Moves deliveries from dispatched to begun to complete. Thread-safe; no method waits for I/O.

    The object outlives consumers, which Dramatiq replaces after every error. A task that still runs then
    belongs to no assignment: it is an *orphan*. When its partition returns to this process, the new
    assignment adopts it instead of running it a second time. Otherwise the new owner runs the record again,
    and the orphan's ack is ignored. Orphans that have ended are remembered, and so are the offsets that the
    lost assignment had completed (see ``remembered``).

    One consumer can isolate itself in the process, so that a crash identifies the suspect that it runs.

    Attributes:
      lock: Guards the deliveries, the assigned partitions and the gate.
      gate: The state that each delivery must pass before it begins.
      awaits_commits: Whether an isolation waits for nothing but commits. Each consumer of the process then
        commits at once: the interval may be long.
    """

    def __init__(self) -> None:
        self._epochs = itertools.count(1)
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Drop all deliveries: in the child of a fork, they belong to the parent."""
        self.lock = threading.RLock()
        self.gate = Gate()
        self._assigned_partitions: set[AssignedPartition] = set()
        self._orphans: dict[tuple[TopicPartition, int], Delivery] = {}
        self._finished: dict[tuple[TopicPartition, int], Delivery] = {}  # the oldest first
        self._remembered: dict[TopicPartition, Remembered] = {}
        self._running = 0
        self._isolated_for: object | None = None
        self.awaits_commits = False

    def next_epoch(self) -> int:
        return next(self._epochs)

    def take_plain(self, assigned: AssignedPartition, max_uncommitted: int) -> ConsumedRecord | None:
        """The next record of a partition in the usual case, counted as delivered; None in any other one. See
        ``AssignedPartition.take_plain``.
        """
        with self.lock:
            if self._orphans or self._finished or assigned.revoked:
                return None
            return assigned.take_plain(max_uncommitted)

    def dispatch(self, delivery: Delivery, consumer: object) -> bool:
        """Count ``delivery`` as dispatched; False when its partition was revoked, or another consumer's
        suspect runs alone.
        """
        with self.lock:
            return not self.excludes(consumer) and self._take_on(delivery)

    def add_unrun(self, delivery: Delivery) -> bool:
        """Count ``delivery``, which no worker thread gets, as in flight; False when its partition was
        revoked.
        """
        with self.lock:
            delivery.begun = True
            return self._take_on(delivery)

    def _take_on(self, delivery: Delivery) -> bool:
        if delivery.assigned_partition.revoked:
            return False
        delivery.assigned_partition.dispatch(delivery)
        self._running += 1
        return True

    def begin(self, delivery: Delivery) -> bool:
        """Note that a worker thread begins ``delivery``; False when its partition was or will be revoked, or
        it was flushed, or the gate is closed for its queue. An owned partition gets it back.
        """
        with self.lock:
            if delivery.completed or delivery.assigned_partition.revoked:
                return False
            if delivery.assigned_partition.leaving or not self.gate.admits(delivery.queue_name):
                self._give_back(delivery)
                return False
            delivery.begun = True
            return True

    def admits(self, delivery: Delivery) -> bool:
        """Whether :meth:`begin` would let ``delivery`` begin now."""
        with self.lock:
            assigned = delivery.assigned_partition
            is_ours = not (delivery.completed or assigned.revoked or assigned.leaving)
            return is_ours and self.gate.admits(delivery.queue_name)

    def give_back(self, delivery: Delivery) -> None:
        """Return the record of a delivery that no thread has begun, and that cannot begin now, to its
        partition.
        """
        with self.lock:
            if not delivery.completed and not delivery.assigned_partition.revoked:
                self._give_back(delivery)

    def park_again(self, delivery: Delivery) -> None:
        """Let the record of a dispatched delivery wait for its place in the rate of its key."""
        with self.lock:
            if not delivery.completed and not delivery.assigned_partition.revoked:
                delivery.completed = True
                self._running -= 1
                delivery.assigned_partition.park_again(delivery)

    def _give_back(self, delivery: Delivery) -> None:
        """Let the record of a dispatched delivery be dispatched again, in another delivery."""
        delivery.completed = True
        self._running -= 1
        delivery.assigned_partition.take_back(delivery)

    @property
    def is_idle(self) -> bool:
        """Whether no delivery is in flight."""
        return self._running == 0

    def drop_below(self, assigned: AssignedPartition, offset: int) -> int:
        """Complete, without a run, the flushed records below ``offset`` that no thread has begun; return
        their number.
        """
        with self.lock:
            waiting = [
                delivery
                for origin, delivery in assigned.in_flight.items()
                if origin < offset and (not delivery.begun or delivery.moves)
            ]
            for delivery in waiting:
                delivery.flushed = True
                self.complete(delivery)
            return len(waiting) + assigned.drop_below(offset)

    def complete(self, delivery: Delivery) -> None:
        """Complete ``delivery``, whose outbox is in Kafka.

        A second call changes nothing. A call for an orphan completes no offset: the delivery is remembered.
        """
        with self.lock:
            if delivery.completed:
                return
            delivery.completed = True
            self._running -= 1
            assigned, offset = delivery.assigned_partition, delivery.origin.offset
            if not assigned.revoked:
                assigned.complete(offset)
            elif self._orphans.get((assigned.partition, offset)) is delivery:
                del self._orphans[assigned.partition, offset]
                self._finished[assigned.partition, offset] = delivery
                while len(self._finished) > MAX_FINISHED:
                    del self._finished[next(iter(self._finished))]

    def answers_for(self, delivery: Delivery) -> bool:
        """Whether this process still owns the partition of ``delivery``.

        When it does not, the delivery ends here and no later assignment adopts it. A delivery that has run is
        remembered. Its last writes to the lanes topic follow if the partition returns.
        """
        with self.lock:
            if delivery.completed:
                return False
            if delivery.assigned_partition.revoked:
                if delivery.moves:  # it has not run
                    self._orphans.pop((delivery.assigned_partition.partition, delivery.origin.offset), None)
                self.complete(delivery)
                return False
            return True

    def add(self, assigned: AssignedPartition) -> None:
        """Add an assigned partition. Its tracker already contains its remembered state."""
        with self.lock:
            self._assigned_partitions.add(assigned)
            self._remembered.pop(assigned.partition, None)
            next_offset = assigned.tracker.next_offset
            for partition, offset in list(self._finished):
                if partition == assigned.partition and offset < next_offset:
                    del self._finished[partition, offset]

    def begun_of(self, message_ids: Collection[str]) -> list[Delivery]:
        """The deliveries of some messages that worker threads have taken and not settled."""
        with self.lock:
            assigned = [d for partition in self._assigned_partitions for d in partition.in_flight.values()]
            return [
                delivery
                for delivery in (*assigned, *self._orphans.values())
                if delivery.begun and not delivery.unrun and delivery.message_id in message_ids
            ]

    def assigned(self) -> list[TopicPartition]:
        """The assigned partitions of all queues. It takes no lock, so it may miss the last change."""
        return [assigned.partition for assigned in self._assigned_partitions.copy()]

    def revoke(self, assigned: AssignedPartition) -> None:
        """Remove an assigned partition: begun deliveries become orphans, the others are withdrawn."""
        with self.lock:
            self._assigned_partitions.discard(assigned)
            assigned.complete_repeated()
            self._remembered[assigned.partition] = Remembered(
                assigned.snapshot(),
                tuple(assigned.sent_commits),
                assigned.crash_counts.probation_end,
                assigned.topic_id,
            )
            for delivery in assigned.revoke():
                if delivery.begun:
                    self._orphans[assigned.partition, delivery.origin.offset] = delivery
                else:
                    # No thread of a stopping worker would take it from the work queue, so it ends here.
                    delivery.completed = True
                    self._running -= 1

    def is_committed(self) -> bool:
        """Whether Kafka has acknowledged every completed offset of this process."""
        with self.lock:
            return all(assigned.is_committed for assigned in self._assigned_partitions)

    def adopt(self, assigned: AssignedPartition, offset: int, raw: bytes | None) -> bool:
        """Assign the orphan that runs the record at ``offset`` to ``assigned``; False without an
        orphan.

        Parameters:
          raw: The record's value. In a recreated topic, another record has the same offset.
        """
        if not self._orphans:
            return False
        with self.lock:
            orphan = self._orphans.get((assigned.partition, offset))
            if orphan is None or orphan.raw != (raw or b"") or assigned.revoked:
                return False
            del self._orphans[assigned.partition, offset]
            orphan.assigned_partition = assigned
            assigned.dispatch(orphan)
            return True

    def recall(self, assigned: AssignedPartition, offset: int, raw: bytes | None) -> Delivery | None:
        """The orphan that ran the record at ``offset`` to its end after its partition was lost, or None.

        It is in flight again until the caller has settled it: its writes to the lanes topic are missing.
        """
        if not self._finished:
            return None
        with self.lock:
            delivery = self._finished.get((assigned.partition, offset))
            if delivery is None or delivery.raw != (raw or b"") or assigned.revoked:
                return None
            del self._finished[assigned.partition, offset]
            delivery.completed = False
            delivery.assigned_partition = assigned
            self._running += 1
            assigned.dispatch(delivery)
            return delivery

    def remembered(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Remembered]:
        """The remembered state of those of ``partitions`` that this process has owned before."""
        with self.lock:
            return {p: self._remembered[p] for p in partitions if p in self._remembered}

    def excludes(self, consumer: object) -> bool:
        """Whether another consumer has isolated itself."""
        return self._isolated_for is not None and self._isolated_for is not consumer

    def isolates(self, consumer: object) -> bool:
        """Whether ``consumer`` has begun its isolation."""
        return self._isolated_for is consumer

    def isolate(self, consumer: object) -> bool:
        """Begin the isolation of ``consumer``; True once nothing else is in flight and all commits are
        acknowledged.

        Until then a record that has just finished is incomplete in the last commit: after a crash it would
        count as running.
        """
        with self.lock:
            if self._isolated_for is None:
                self._isolated_for = consumer
            if self._isolated_for is not consumer or self._running:
                return False
            self.awaits_commits = not self.is_committed()
            return not self.awaits_commits

    def end_isolation(self, consumer: object) -> None:
        with self.lock:
            if self._isolated_for is consumer:
                self._isolated_for = None
                self.awaits_commits = False
