"""Requeues the messages that wait in the lanes topic, when they are due and near the head of their lane."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..deliveries.assigned_partition import AssignedPartition
from ..errors import KafkaUnavailable
from ..kafka.errors import KafkaError, MessageSizeTooLargeError
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import is_denial, reading
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.unreadable_batches import explained
from ..offsets.commit_metadata import CommitState
from ..offsets.committed_lanes import LogEnd
from ..partition_keys.lane import LaneEntry, LaneEntryState
from ..partition_keys.lanes import Lanes
from ..partition_keys.record_format import Place, Waiting, requeue_record, tombstone, waiting_record
from ..partition_keys.waiting_store import WaitingStore
from ..process import clock
from .config import ConsumerConfig, ConsumerParts
from .lane_repair import LaneRepair
from .unreturnable_entries import UnreturnableEntries

logger = logging.getLogger(__name__)

#: The interval in which the releaser checks for due messages.
STEP_GAP_S = 0.02
#: The pause between attempts while Kafka is unreachable, or refuses one.
BACKOFF_S = 1.0
#: A requeue record that was not read within this time is sent again.
REQUEUE_TIMEOUT_S = 5.0
#: The interval in which the releaser checks whether waiting messages were flushed.
POLL_INTERVAL_S = 2.0


class LaneReleaser:
    """The messages of one consumer's partitions that wait in Kafka. The consumer's thread calls all methods.

    Only the owner of a partition writes the lane records of that partition. So its state is the records that
    it read at the takeover, and those that it wrote since. The releaser checks for a flush by another process
    at intervals, and before each release. An absent record proves nothing: a leader that was frozen returns
    an old state of its log.
    """

    def __init__(
        self,
        config: ConsumerConfig,
        parts: ConsumerParts,
        kafka: ConsumerClient,
        assigned_partitions: dict[TopicPartition, AssignedPartition],
    ) -> None:
        self.next_step_s = 0.0
        self._config = config
        self._parts = parts
        self._kafka = kafka
        self._assigned_partitions = assigned_partitions
        self._queue_topic = config.topic
        self._topic = config.lanes_topic
        self._log = WaitingStore(
            parts.clients,
            self._topic,
            config.application_group,
            publisher=parts.lane_writer.publisher,
            written=parts.lane_writer.written,
            mend=self._repair,
        )
        self._lane_repair = LaneRepair(
            parts.clients,
            parts.lane_writer.publisher,
            parts.lane_writer.written,
            self._log,
            group=config.application_group,
            queue_topic=self._queue_topic,
            lanes_topic=self._topic,
        )
        self._unreturnable_entries = UnreturnableEntries(config, parts)
        #: Partitions that were taken over while there was no lanes topic, or none that may be seen.
        self._unread: set[TopicPartition] = set()
        self._looked_s = 0.0
        self._released_s = 0.0
        self._failing = False

    def lanes_of(
        self,
        partitions: Iterable[TopicPartition],
        states: Mapping[TopicPartition, CommitState] = MappingProxyType({}),
    ) -> dict[TopicPartition, Lanes[ConsumedRecord]]:
        """The lanes of assigned partitions, in the state of their last owners.

        Parameters:
          states: The committed states of partitions to compare with the lanes topic.

        Raises:
          KafkaError, KafkaUnavailable: When Kafka does not answer.
        """
        lanes: dict[TopicPartition, Lanes[ConsumedRecord]] = {partition: Lanes() for partition in partitions}
        waited = any(state.lanes is not None and state.lanes.waiting for state in states.values())
        # Asked over the connection that there is anyway. A topic that something waited in was deleted, or may
        # not be seen any more.
        if not self._kafka.partitions_for_topic(self._topic) and not waited:
            self._unread.update(lanes)
            return lanes
        try:
            # The last owner may have written its last records to a leader that another one has replaced.
            self._log.catch_up_with_all()
            self._catch_up()
            self._lane_repair.repair(states)
        except KafkaError as e:
            if not is_denial(e):
                raise
            doing = f"The queue cannot be consumed, as the topic {self._topic!r} could not be read"
            raise self._parts.clients.translated(e, doing, reading(self._topic)) from e
        for partition, restored in lanes.items():
            restored.restore(self._log.waiting(partition.partition))
        self._unread.difference_update(lanes)
        return lanes

    def ends_for(self, partition: TopicPartition) -> dict[int, LogEnd]:
        """The offsets up to which this process has read or written the lanes topic; empty while it may not
        know all waiting messages of a partition.
        """
        return {} if partition in self._unread else self._log.log_ends()

    def _look_at_unread(self) -> None:
        """Note the partitions whose waiting messages are all known by now, after their topic appeared."""
        with self._parts.in_flight.lock:
            for partition in list(self._unread):
                assigned = self._assigned_partitions.get(partition)
                waiting = self._log.waiting(partition.partition)
                kept = set(assigned.lanes.kept_offsets) if assigned is not None else set()
                if assigned is None or all(sequence.offset in kept for _, sequence, _, _ in waiting):
                    self._unread.discard(partition)

    def step(self, now_s: float) -> None:
        """Release the messages that may be released."""
        self.next_step_s = now_s + STEP_GAP_S
        if self._parts.shutdown.stopping:
            return
        now_ms = clock.wall_ms()
        for assigned in list(self._assigned_partitions.values()):
            if not assigned.lanes:
                continue
            with self._parts.in_flight.lock:
                if self._has_lost_requeues(assigned, now_s):
                    assigned.lanes.release_again()
                entries = assigned.lanes.to_release(now_ms)
            if entries:
                self._release(assigned, entries, now_s)
        if now_s - self._looked_s > POLL_INTERVAL_S:
            kept = any(assigned.lanes.kept for assigned in self._assigned_partitions.values())
            if kept or self._log.may_have_changed():
                self._look_at_log(now_s)
            self._looked_s = now_s

    def _look_at_log(self, now_s: float) -> None:
        """Forget messages that another process flushed, so that no lane waits for their due time. Notice lost
        records while this process knows the messages.
        """
        try:
            self._catch_up()
        except (KafkaError, BrokerConnectionError) as e:
            self._report(e, now_s)
        else:
            if self._unread:
                self._look_at_unread()
            self._report(None, now_s)

    def _catch_up(self) -> None:
        """Read the new records of the lanes topic, and forget the flushed messages."""
        self._log.catch_up()
        if self._log.read_again:
            self._make_whole()
            self._log.read_again = False
        if not self._log.ended:
            return
        with self._parts.in_flight.lock:
            flushed = [place for place, key in list(self._log.ended.items()) if self._waits(place, key)]
        if not flushed:
            return
        # A running message may have become a waiting retry since the log was read. The tombstone was then of
        # its previous wait.
        self._log.catch_up()
        with self._parts.in_flight.lock:
            for place in flushed:
                key = self._log.ended.pop(place, None)
                lanes = self._lanes_at(place)
                if key is not None and lanes is not None:
                    lanes.forget(key, place.sequence)

    def _make_whole(self) -> None:
        """Write the records of waiting messages again to a lanes topic that lost its tail and was reread."""
        with self._parts.in_flight.lock:
            assigned_partitions = list(self._assigned_partitions.values())
            kept = {a.partition.partition: list(a.lanes.kept_offsets) for a in assigned_partitions}
        self._log.catch_up()  # all records of the waiting messages were acknowledged
        lost: dict[int, list[int]] = {}
        for number, offsets in kept.items():
            there = {sequence.offset for _, sequence, _, _ in self._log.waiting(number)}
            there |= {p.sequence.offset for p in self._log.seen_done if p.partition == number}
            if absent := [offset for offset in offsets if offset not in there]:
                lost[number] = absent
        if lost:
            self._parts.lane_writer.publisher.replace_producer()
            back = self._lane_repair.write_again(lost)
            logger.error(
                "The topic %r has lost its tail: the records of %d waiting message(s) were written again "
                "from the queue's own records, and %d are lost, as retention has removed their records.",
                self._topic, back, sum(map(len, lost.values())) - back,
            )  # fmt: skip
            self._log.catch_up()
        with self._parts.in_flight.lock:
            for assigned in assigned_partitions:
                assigned.dirty = True  # the committed state of the lanes topic is outdated

    def _repair(self, lost: list[Waiting], back: list[Waiting]) -> None:
        """Write the records again that the lanes topic lost with its tail, for this consumer's partitions.

        Raises:
          KafkaUnavailable: When Kafka does not acknowledge them. The repair is repeated before any release.
        """
        with self._parts.in_flight.lock:
            kept = [(waiting, entry) for waiting in lost if (entry := self._entry_of(waiting)) is not None]
            done = [waiting for waiting in back if self._is_done(waiting)]
        lane_writer = self._parts.lane_writer
        records = [
            waiting_record(
                self._topic,
                waiting,
                destination=self._queue_topic,
                watch=partial(lane_writer.note, self._topic, entry),
            )
            for waiting, entry in kept
        ]
        records += [tombstone(self._topic, waiting.place, partition=waiting.kept_in) for waiting in done]
        lane_writer.publisher.replace_producer()
        failures = lane_writer.publisher.publish(records)
        if failures:
            reason = next(iter(failures.values()))
            raise KafkaUnavailable(
                f"The lost records of {self._topic!r} could not be written again: {reason!r}"
            )
        logger.error(
            "The topic %r has lost its tail: the records of %d waiting message(s) were written again, and "
            "the tombstones of %d completed one(s).", self._topic, len(kept), len(done),
        )  # fmt: skip

    def _entry_of(self, waiting: Waiting) -> LaneEntry[ConsumedRecord] | None:
        """The lane entry of an incomplete message, if this consumer owns its partition."""
        lanes = self._lanes_at(waiting.place)
        return None if lanes is None else lanes.find(waiting.key, waiting.place.sequence)

    def _is_done(self, waiting: Waiting) -> bool:
        """Whether a message is done, and this consumer owns its partition."""
        return self._lanes_at(waiting.place) is not None and self._entry_of(waiting) is None

    def _waits(self, place: Place, key: bytes) -> bool:
        """Whether a message with a tombstone in the lanes topic still waits here. A done one is removed."""
        lanes = self._lanes_at(place)
        entry = lanes.find(key, place.sequence) if lanes is not None else None
        if entry is None:
            del self._log.ended[place]
        # A running message was flushed while it ran, or its retry was flushed before its entry was updated.
        return entry is not None and entry.state is LaneEntryState.WAITING

    def _lanes_at(self, place: Place) -> Lanes[ConsumedRecord] | None:
        assigned = self._assigned_partitions.get(TopicPartition(self._queue_topic, place.partition))
        return None if assigned is None else assigned.lanes

    def seconds_until_due(self) -> float | None:
        """The time until the next release, as far as it is known; None for unknown."""
        due_ms = [
            due for a in self._assigned_partitions.values() if (due := a.lanes.next_due_ms()) is not None
        ]
        return max(0.0, (min(due_ms) - clock.wall_ms()) / 1000) if due_ms else None

    def close(self) -> None:
        self._log.close()

    def _release(
        self, assigned: AssignedPartition, entries: list[LaneEntry[ConsumedRecord]], now_s: float
    ) -> None:
        partition = assigned.partition.partition
        entries = [
            entry for entry in entries if self._place_of(entry, partition) not in self._unreturnable_entries
        ]
        places = [self._place_of(entry, partition) for entry in entries]
        failures: dict[int, Any] = {}
        try:
            self._catch_up()
            self._account_for(assigned, entries, places)
        except (KafkaError, BrokerConnectionError) as e:
            failures = dict.fromkeys(range(len(entries)), e)
            found = []
        else:
            found = [(entry, self._log.get(place)) for entry, place in zip(entries, places, strict=True)]
            requeue_records = [
                requeue_record(self._queue_topic, waiting) for _, waiting in found if waiting is not None
            ]
            failures = self._parts.lane_writer.publisher.publish(requeue_records)
        with self._parts.in_flight.lock:
            if not assigned.revoked:
                self._note(assigned, entries, found, failures)
        self._released_s = now_s
        self._report(next(iter(failures.values()), None), now_s)

    def _account_for(
        self, assigned: AssignedPartition, entries: list[LaneEntry[ConsumedRecord]], places: list[Place]
    ) -> None:
        """Check the waiting entries without a record or a tombstone in the log. Report the lost ones."""

        def missing() -> list[Place]:
            absent = [n for n, place in enumerate(places) if self._log.get(place) is None]
            with self._parts.in_flight.lock:
                find = assigned.lanes.find
                return [places[n] for n in absent if find(entries[n].key, entries[n].sequence) is entries[n]]

        if not missing():
            return
        self._log.catch_up_with_all()
        self._catch_up()
        if lost := missing():
            logger.error(
                "%d message(s) that waited in their lanes are no longer in the topic %r, and were not "
                "flushed: the topic was recreated, or has lost its tail. The later messages of their lanes "
                "continue. The first lost one is %s.",
                len(lost), self._topic, lost[0],
            )  # fmt: skip

    def _place_of(self, entry: LaneEntry[ConsumedRecord], partition: int) -> Place:
        return Place(self._config.application_group, partition, entry.sequence)

    def _note(
        self,
        assigned: AssignedPartition,
        entries: list[LaneEntry[ConsumedRecord]],
        found: list[tuple[LaneEntry[ConsumedRecord], Any]],
        failures: dict[int, Any],
    ) -> None:
        lanes = assigned.lanes
        if not found:
            for entry in entries:
                lanes.recall(entry)
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

    def _has_lost_requeues(self, assigned: AssignedPartition, now_s: float) -> bool:
        """Whether all records were read, and acknowledged requeue records were not among them."""
        return (
            assigned.lanes.awaits_requeue_records
            and not assigned.buffer
            and now_s - self._released_s > REQUEUE_TIMEOUT_S
            and (self._kafka.highwater(assigned.partition) or 0) <= assigned.expected
        )

    def _report(self, failure: BaseException | None, now_s: float) -> None:
        if failure is not None:
            self.next_step_s = now_s + BACKOFF_S
            if not self._failing:
                logger.warning(
                    "Messages in the lanes cannot be requeued at the moment: %s", explained(failure)
                )
        elif self._failing:
            logger.info("Messages in the lanes are requeued again.")
        self._failing = failure is not None
