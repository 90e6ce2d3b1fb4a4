"""What this process runs, across all its consumers and all their assignments."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable

from ..kafka.types import TopicPartition
from ..offsets.remembered import Remembered
from ..process.forks import reset_on_fork
from .assigned_partition import AssignedPartition
from .delivery import Delivery

#: How many tasks that ended after their partition was lost are remembered, with their messages.
MAX_FINISHED = 1_000


class InFlightDeliveries:
    """Moves deliveries from dispatched to begun to complete. Thread-safe, and quick.

    It outlives consumers: Dramatiq makes a new one after every error, and a task that still runs then belongs
    to no assignment. It stays here as an *orphan*. When its partition comes back to this process, the new
    assignment adopts it instead of running it a second time; otherwise the new owner runs the record again,
    and the orphan's ack is ignored. An orphan that has ended is remembered, too, and so is what the lost
    assignment had completed (see ``remembered``).

    It also lets one consumer have the process to itself, so that a crash names its culprit.
    """

    def __init__(self) -> None:
        self._epochs = itertools.count(1)
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Run nothing: in the child of a fork, all of it is the parent's."""
        self.lock = threading.RLock()
        self._assigned_partitions: set[AssignedPartition] = set()
        self._orphans: dict[tuple[TopicPartition, int], Delivery] = {}
        self._finished: dict[tuple[TopicPartition, int], Delivery] = {}  # the longest known first
        self._remembered: dict[TopicPartition, Remembered] = {}
        self._running = 0
        self._isolated_for: object | None = None

    def next_epoch(self) -> int:
        return next(self._epochs)

    def dispatch(self, delivery: Delivery, consumer: object) -> bool:
        """Note that ``delivery`` goes to Dramatiq; False when it was revoked or has to wait."""
        with self.lock:
            return not self.excludes(consumer) and self._take_on(delivery)

    def hold(self, delivery: Delivery) -> bool:
        """Note that ``delivery`` is outstanding although no worker thread gets it; False when its partition
        was taken away.
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
        """Note that a worker thread starts on ``delivery``; False when its partition was taken away, or when
        it was flushed.
        """
        with self.lock:
            if delivery.completed or delivery.assigned_partition.revoked:
                return False
            delivery.begun = True
            return True

    def drop_below(self, assigned: AssignedPartition, offset: int) -> int:
        """Complete, without a run, what a flush has deleted and no thread has begun; return how much that
        was.
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
        """Complete ``delivery``, whose outbox is in Kafka. A second call, and one for a lost partition,
        change nothing.
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
        """Whether this process still decides what becomes of ``delivery``.

        When its partition was taken away, it ends here: no later assignment adopts it. One that has run is
        remembered, and what is left to say of it is said if the partition comes back.
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
        """Take charge of a partition. Its tracker says by now what was remembered of it."""
        with self.lock:
            self._assigned_partitions.add(assigned)
            self._remembered.pop(assigned.partition, None)
            next_offset = assigned.tracker.next_offset
            for partition, offset in list(self._finished):
                if partition == assigned.partition and offset < next_offset:
                    del self._finished[partition, offset]

    def revoke(self, assigned: AssignedPartition) -> None:
        """Take a partition away: what has begun becomes an orphan, what has not will be skipped."""
        with self.lock:
            self._assigned_partitions.discard(assigned)
            self._remembered[assigned.partition] = Remembered(
                assigned.snapshot(), tuple(assigned.said), assigned.probation_end, assigned.topic_id
            )
            for delivery in assigned.revoke():
                if delivery.begun:
                    self._orphans[assigned.partition, delivery.origin.offset] = delivery
                else:
                    # A worker that is stopping never takes it from its queue, so it ends here.
                    delivery.completed = True
                    self._running -= 1

    def is_committed(self) -> bool:
        """Whether Kafka has acknowledged everything that is complete in this process."""
        with self.lock:
            return all(assigned.is_committed for assigned in self._assigned_partitions)

    def adopt(self, assigned: AssignedPartition, offset: int, raw: bytes | None) -> bool:
        """Hand the orphan that runs the record at ``offset`` to ``assignment``, if there is one.

        ``raw`` tells a record from another one that has its offset since its topic was made anew.
        """
        if not self._orphans:
            return False
        with self.lock:
            orphan = self._orphans.get((assigned.partition, offset))
            if orphan is None or orphan.raw != raw or assigned.revoked:
                return False
            del self._orphans[assigned.partition, offset]
            orphan.assigned_partition = assigned
            assigned.dispatch(orphan)
            return True

    def recall(self, assigned: AssignedPartition, offset: int, raw: bytes | None) -> Delivery | None:
        """The orphan that has run the record at ``offset`` to its end since its partition was lost.

        It is outstanding again until the caller has settled it: what was left to say of it is still to be
        said. None when there is none.
        """
        if not self._finished:
            return None
        with self.lock:
            delivery = self._finished.get((assigned.partition, offset))
            if delivery is None or delivery.raw != raw or assigned.revoked:
                return None
            del self._finished[assigned.partition, offset]
            delivery.completed = False
            delivery.assigned_partition = assigned
            self._running += 1
            assigned.dispatch(delivery)
            return delivery

    def remembered(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Remembered]:
        """What this process knows of partitions that it has owned before."""
        with self.lock:
            return {p: self._remembered[p] for p in partitions if p in self._remembered}

    def excludes(self, consumer: object) -> bool:
        """Whether another consumer's suspect has the process to itself."""
        return self._isolated_for is not None and self._isolated_for is not consumer

    def isolates(self, consumer: object) -> bool:
        """Whether ``consumer`` has claimed the process."""
        return self._isolated_for is consumer

    def isolate(self, consumer: object) -> bool:
        """Claim the process for ``consumer``; True once it is claimed, nothing runs in it, and Kafka knows
        that.

        What has just finished counts as running until then: after a crash it would be taken for the culprit.
        """
        with self.lock:
            if self._isolated_for is None:
                self._isolated_for = consumer
            return self._isolated_for is consumer and self._running == 0 and self.is_committed()

    def end_isolation(self, consumer: object) -> None:
        with self.lock:
            if self._isolated_for is consumer:
                self._isolated_for = None
