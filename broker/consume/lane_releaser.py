"""Requeues the messages that wait in the lanes topic, when they are due and near the head of their lane."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from dramatiq.errors import BrokerConnectionError

from ..deliveries.assigned_partition import AssignedPartition
from ..errors import NotAuthorized
from ..kafka.errors import KafkaError, MessageSizeTooLargeError
from ..kafka.protocol import ConsumerClient
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.unreadable_batches import explained
from ..partition_keys.lane import LaneEntry
from ..partition_keys.record_format import requeue_record
from ..process import clock
from ..process.backoff import Backoff
from .config import ConsumerConfig, ConsumerParts
from .owned_lanes import Found, OwnedLanes
from .unreturnable_entries import UnreturnableEntries

logger = logging.getLogger(__name__)

#: The interval in which the releaser checks for due messages. After a step that took longer, as long as that:
#: the consumer's thread has other work, too.
STEP_GAP_S = 0.02
MAX_PAUSE_S = 0.2
#: The pause between attempts while Kafka is unreachable, or refuses one.
BACKOFF_S = 1.0
#: A requeue record that was not read within this time is sent again.
REQUEUE_TIMEOUT_S = 5.0
#: The interval in which the releaser checks whether waiting messages were flushed.
CHECK_INTERVAL_S = 2.0


class LaneReleaser:
    """Sends the requeue records of one consumer's partitions. The consumer's thread calls all methods.

    Attributes:
      next_step_s: The time (``clock.monotonic_s()``) at which :meth:`step` is due again.
    """

    def __init__(
        self,
        config: ConsumerConfig,
        parts: ConsumerParts,
        kafka: ConsumerClient,
        assigned_partitions: Mapping[TopicPartition, AssignedPartition],
        owned_lanes: OwnedLanes,
    ) -> None:
        self.next_step_s = 0.0
        self._parts = parts
        self._kafka = kafka
        self._queue_topic = config.topic
        self._assigned_partitions = assigned_partitions
        self._owned_lanes = owned_lanes
        self._unreturnable_entries = UnreturnableEntries(config, parts)
        self._checked_s = 0.0
        self._released_s = 0.0
        self._backoff = Backoff(BACKOFF_S)
        self._requeuing = f"Messages in the lanes of {config.queue_name!r} cannot be requeued"
        self._checking = f"Flushes of the lanes of {config.queue_name!r} cannot be noticed"
        self._failing: set[str] = set()

    def step(self, now_s: float) -> None:
        """Release the messages that may be released."""
        self.next_step_s = now_s + STEP_GAP_S
        if self._parts.shutdown.stopping:
            return
        self._release_due(now_s)
        end_s = clock.monotonic_s()
        self.next_step_s = max(self.next_step_s, end_s + min(end_s - now_s, MAX_PAUSE_S))

    def _release_due(self, now_s: float) -> None:
        now_ms = clock.wall_ms()
        for assigned in list(self._assigned_partitions.values()):
            if not assigned.lanes:
                continue
            with self._parts.in_flight.lock:
                assigned.lanes.tick(now_ms)
                if self._has_lost_requeues(assigned, now_s):
                    assigned.lanes.release_again()
                entries = assigned.lanes.to_release(now_ms)
            if entries:
                self.release(assigned, entries, now_s)
        if now_s - self._checked_s > CHECK_INTERVAL_S:
            if self._owned_lanes.may_have_changed():
                self.check(now_s)
            self._checked_s = now_s

    def check(self, now_s: float) -> None:
        """Notice flushes by other processes, so that no lane waits for the due time of a flushed message, and
        lost records while this process knows the messages.
        """
        failure: Exception | None = None
        try:
            self._owned_lanes.check()
        except (KafkaError, BrokerConnectionError) as e:
            failure = e
        self._report(self._checking, failure, now_s)

    def release(
        self, assigned: AssignedPartition, entries: Sequence[LaneEntry[ConsumedRecord]], now_s: float
    ) -> None:
        """Release waiting entries of one partition."""
        entries = [
            entry
            for entry in entries
            if self._owned_lanes.place_of(assigned, entry) not in self._unreturnable_entries
        ]
        failure: BaseException | None
        try:
            found = self._owned_lanes.find(assigned, entries)
        except (KafkaError, BrokerConnectionError) as e:
            failure = e if entries else None
            with self._parts.in_flight.lock:
                if not assigned.revoked:
                    for entry in entries:
                        assigned.lanes.recall(entry)
        else:
            failure = self._requeue(assigned, found)
        self._released_s = now_s
        self._report(self._requeuing, failure, now_s)

    def _requeue(self, assigned: AssignedPartition, found: Found) -> BaseException | None:
        """Send requeue records; return the failure of one that is to be sent again, if there is one."""
        waiting = [each for _, each in found if each is not None]
        failures = self._parts.completion_publisher.publish(
            [requeue_record(self._queue_topic, each) for each in waiting]
        )
        with self._parts.in_flight.lock:
            if not assigned.revoked:
                self._note(assigned, found, failures)
        return next(iter(failures.values()), None)

    def _note(self, assigned: AssignedPartition, found: Found, failures: dict[int, BaseException]) -> None:
        """Note the results of requeue records.

        Parameters:
          failures: By the number of the record. Those that no further attempt can change are removed.
        """
        lanes = assigned.lanes
        number = 0
        for entry, waiting in found:
            if waiting is None:
                lanes.forget(entry.key, entry.sequence)  # the message was flushed or lost
                continue
            entry.due_ms, entry.kept_in = waiting.due_ms, waiting.kept_in
            if isinstance(failures.get(number), MessageSizeTooLargeError):
                self._unreturnable_entries.add_dead_letter(assigned, entry, waiting, failures.pop(number))
            else:
                lanes.recall(entry) if number in failures else lanes.release(entry)
            number += 1

    def seconds_until_due(self) -> float | None:
        """The time until the next release, as far as it is known; None for unknown."""
        due_ms = [
            due for a in self._assigned_partitions.values() if (due := a.lanes.next_due_ms()) is not None
        ]
        return max(0.0, (min(due_ms) - clock.wall_ms()) / 1000) if due_ms else None

    def _has_lost_requeues(self, assigned: AssignedPartition, now_s: float) -> bool:
        """Whether all records were read, and acknowledged requeue records were not among them."""
        return (
            assigned.lanes.awaits_requeue_records
            and not assigned.buffer
            and now_s - self._released_s > REQUEUE_TIMEOUT_S
            and (self._kafka.highwater(assigned.partition) or 0) <= assigned.expected
        )

    def _report(self, activity: str, failure: BaseException | None, now_s: float) -> None:
        if failure is not None:
            if isinstance(failure, NotAuthorized):
                self._parts.denials.note(activity, NotAuthorized(f"{activity}: {failure}"))
            elif activity not in self._failing:
                logger.warning("%s at the moment: %s", activity, explained(failure))
            self._failing.add(activity)
            self.next_step_s = now_s + self._backoff.fail()
        elif activity in self._failing:
            self._failing.remove(activity)
            self._parts.denials.is_over(activity)
            logger.info("It is over: %s.", activity)
            if not self._failing:
                self._backoff.reset()
