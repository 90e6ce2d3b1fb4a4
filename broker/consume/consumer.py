"""Reads one queue's topic and hands its records to Dramatiq, which calls all of this from one thread."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Awaitable, Iterable, Mapping
from functools import partial

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import BrokerConnectionError, ConnectionClosed

from ..admin.flush_markers import FlushMarkers
from ..deliveries.assigned_partition import AssignedPartition, Capacity
from ..deliveries.delivery import Delivery
from ..errors import NotAuthorized
from ..kafka.errors import CorruptRecordError, KafkaError, UnsupportedCodecError
from ..kafka.heartbeat_monitor import HeartbeatMonitor
from ..kafka.leader_epochs import EpochEnd, EpochEnds
from ..kafka.protocol import RebalanceListener
from ..kafka.rebalance import learn_partitions
from ..kafka.rights import is_denial, reading
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.unreadable_batches import UnreadableBatchSkipper, explained
from ..offsets.committed_state import (
    RESTORE_TIMEOUT_MS,
    Restored,
    name_of,
    report_lost_tail,
    report_removed,
    restore,
)
from ..offsets.truncation import ALL_OF_IT, forget_from
from ..partition_keys.lanes import Lanes
from ..process import clock
from .committer import Committer
from .config import ConsumerConfig, ConsumerParts
from .dispatcher import MAX_UNCOMMITTED, Dispatcher
from .flush_watcher import FlushWatcher
from .lane_releaser import LaneReleaser
from .open_transactions import OpenTransactions
from .owned_lanes import OwnedLanes

logger = logging.getLogger(__name__)

#: The bytes of each partition that are read ahead of dispatch. A partition with a full buffer is paused, so
#: that a long backlog neither starves the others nor needs more memory.
MAX_BUFFERED_BYTES = 256 * 1024
#: kafka-python 3.0.12 never returns to a paused partition of which poll() returned only a part (its parsed
#: rest is unparked only while no other partition has one), so every poll takes all fetched records. The size
#: of a fetch limits them.
EVERYTHING = 1_000_000_000
MAX_FETCH_BYTES = 8 * 1024 * 1024
#: The interval of polls while no records are needed: a rebalance starts in a poll.
MAX_POLL_GAP_S = 0.05
#: The interval of polls of a group member without partitions, which waits until another member leaves.
SPARE_POLL_GAP_S = 0.25
#: The interval of polls while records wait only for others of their key.
LANE_POLL_GAP_S = 0.005
#: The pause before a failed read of the committed offsets is repeated.
RESTORE_BACKOFF_S = 0.5


class QueueConsumer(Consumer):
    """The consumer of one queue.

    Worker threads call :meth:`ack` and :meth:`nack`, which only mark. One thread at a time uses the Kafka
    client: the consumer's thread in :meth:`__next__`, and the caller of :meth:`close`.

    Parameters:
      prefetch: The maximum number of outstanding deliveries.
      timeout_ms: The time for which :meth:`__next__` waits for a delivery.

    Raises:
      KafkaUnavailable: When Kafka does not answer. Dramatiq retries later.
      TopicMisconfigured: When a topic of the queue loses messages. Dramatiq retries later.
    """

    def __init__(
        self, config: ConsumerConfig, parts: ConsumerParts, *, prefetch: int, timeout_ms: int
    ) -> None:
        self._config = config
        self._parts = parts
        self._shutdown = parts.shutdown
        self._queue_name = queue_name = config.queue_name
        self._queue_topic = config.topic
        self._consuming = f"The queue {queue_name!r} cannot be consumed"
        self._timeout_s = timeout_ms / 1000
        self._driving = threading.Lock()
        self._closing = False
        self._closed = False
        self._in_flight = parts.in_flight
        self._capacity = Capacity(prefetch)
        self._unrestored: set[TopicPartition] = set()
        self._replays_said: set[TopicPartition] = set()
        self._restore_at_s = 0.0
        self._restore_failure = ""
        self._polled_at_s = 0.0
        self._paused: set[TopicPartition] = set()

        parts.topic_repair.ensure(queue_name, config.topics, lanes_topic=config.lanes_topic)
        self._kafka = parts.clients.consumer(
            group_id=config.group,
            auto_offset_reset="earliest",
            # Other programs may write to a queue's topic, in transactions, too. Only the broker writes to its
            # other topics: an open transaction must not hide the broker's records after it.
            isolation_level="read_committed",
            max_poll_records=EVERYTHING,
            max_partition_fetch_bytes=MAX_BUFFERED_BYTES,
            fetch_max_bytes=MAX_FETCH_BYTES,
            **config.client_settings,
        )
        self._reading = UnreadableBatchSkipper(self._kafka)
        self._committer = Committer(
            self._kafka,
            self._in_flight,
            interval_s=config.commit_interval_s,
            on_denial=self._note_denial,
        )
        self._dispatcher = Dispatcher(config, parts, self._capacity, commit_now=self._committer.commit_now)
        self._assigned_partitions = self._dispatcher.assigned_partitions
        self._owned_lanes = OwnedLanes(config, parts, self._kafka, self._assigned_partitions)
        self._lane_releaser = LaneReleaser(
            config, parts, self._kafka, self._assigned_partitions, self._owned_lanes
        )
        markers = FlushMarkers(parts.clients, config.group)
        self._flush_watcher = FlushWatcher(self._kafka, self._dispatcher, markers)
        self._open_transactions = OpenTransactions(self._kafka)
        self._heartbeat_monitor = HeartbeatMonitor(self._kafka, queue_name, parts.silent_since_s)
        self._kafka.subscribe(
            [config.topic],
            listener=RebalanceListener(
                on_assigned=self._on_assigned,
                on_revoked=self._on_revoked,
                on_lost=self._on_lost,
                is_busy=self._runs_keyed,
            ),
        )
        self._rights = reading(config.topic, group=config.group)
        try:
            # A group leader that does not know the partitions yet assigns none, and rebalances at once.
            parts.clients.ask(
                lambda: learn_partitions(self._kafka, config.topic),
                f"The partitions of {queue_name!r} could not be read",
                unless=parts.shutdown.asked,
                rights=self._rights,
            )
        except BrokerConnectionError:
            self.close()
            raise

    # The interface to Dramatiq

    def __next__(self) -> MessageProxy | None:
        if self._closing:
            clock.sleep(self._timeout_s)  # only a thread of an ending process still calls this
            return None
        with self._driving:
            return self._next()

    def _next(self) -> Delivery | None:
        deadline_s = clock.monotonic_s() + self._timeout_s
        try:
            while not self._closing:
                now_s = clock.monotonic_s()
                self._committer.commit_when_due(
                    self._assigned_partitions.values(), force=self._shutdown.stopping
                )
                if self._unrestored and now_s >= self._restore_at_s:
                    self._restore()
                if now_s >= self._lane_releaser.next_step_s:
                    self._lane_releaser.step(now_s)
                if now_s - self._polled_at_s > MAX_POLL_GAP_S:
                    self._poll(0.0)
                delivery = self._dispatcher.next()
                if delivery is None:
                    self._capacity.changed.clear()
                    delivery = (
                        self._dispatcher.next()
                    )  # capacity may have been freed before the event was cleared
                if delivery is not None:
                    return delivery
                if now_s >= deadline_s:
                    return None
                # A stopping worker commits completed deliveries at once.
                self._wait(min(deadline_s - now_s, MAX_POLL_GAP_S if self._shutdown.stopping else math.inf))
        except KafkaError as e:
            if not is_denial(e):
                raise ConnectionClosed(f"Consuming {self._queue_name!r} failed: {e!r}") from e
            self._note_denial(e)
            clock.wait(self._shutdown.asked, self._timeout_s)
        return None

    def _note_denial(self, error: KafkaError) -> None:
        """Log the missing right. The consumer continues, and works once the right is granted."""
        denial = self._parts.clients.translated(error, self._consuming, self._rights)
        self._parts.denials.note(self._consuming, denial)

    def ack(self, message: MessageProxy) -> None:
        """Mark a delivery as processed. It completes once everything in its outbox is in Kafka."""
        self._settle(message)

    def nack(self, message: MessageProxy) -> None:
        """Mark a delivery as failed. It completes once its dead letter is in Kafka.

        Raises:
          DeadLetterNotMade: When its dead letter cannot be created. Dramatiq then repeats the nack.
        """
        assert isinstance(message, Delivery)
        message.drop_retry()  # a message is either retried or dead-lettered
        self._parts.dead_letters.add(message, message._exception)
        # The dead letter has the traceback.
        self._parts.failures.keep(self._queue_name, message.message_id, message._exception)
        self._settle(message)

    def _settle(self, message: MessageProxy) -> None:
        assert isinstance(message, Delivery)
        if message.lane_entry is not None:
            self._parts.lane_writer.append_lane_update(message)
        self._parts.completer.settle(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Do nothing: the partition's next owner gets the incomplete offsets again."""

    def close(self) -> None:
        """Commit the completed offsets, hand over the partitions and leave the group at once."""
        if self._shutdown.stopping:
            self._parts.completer.drain(self._shutdown.settle_time_left_s())
        self._closing = True
        self._capacity.changed.set()
        if not self._driving.acquire(timeout=self._shutdown.close_timeout_s):
            logger.warning("The consumer of %r is busy and cannot be closed.", self._queue_name)
            return
        try:
            if not self._closed:
                self._leave()
                self._closed = True
        finally:
            self._driving.release()

    def _leave(self) -> None:
        leaving = self._take_away(list(self._assigned_partitions))
        self._dispatcher.close()
        timeout_s, began_s = self._shutdown.leave_group_timeout_s(), clock.monotonic_s()
        if leaving:
            self._committer.hand_over_now(leaving, timeout_s=timeout_s)
        if (waited_s := clock.monotonic_s() - began_s) >= timeout_s:
            self._shutdown.note_close_timeout(waited_s)
            timeout_s = self._shutdown.leave_group_timeout_s()
        self._owned_lanes.close()
        try:
            self._kafka.close(autocommit=False, timeout_ms=int(timeout_s * 1000))
        except KafkaError as e:
            logger.warning(
                "Leaving the group of %r failed; its partitions move after the session timeout: %r",
                self._queue_name,
                e,
            )

    # Rebalances: called on kafka-python's I/O thread

    def _on_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        # Reading the committed state needs round trips, for which the I/O thread must not wait.
        with self._in_flight.lock:
            self._kafka.pause(*partitions)
            self._unrestored.update(partitions)
        self._capacity.changed.set()

    def _runs_keyed(self, partitions: Iterable[TopicPartition]) -> bool:
        """Whether a keyed message is still running; the next owner would run it again concurrently.

        The partitions are marked as leaving, so no further message of a key starts.
        """
        with self._in_flight.lock:
            leaving = [self._assigned_partitions[p] for p in partitions if p in self._assigned_partitions]
            for assigned in leaving:
                assigned.leaving = True
            return any(a.lane_entries and a.runs_keyed() for a in leaving)

    def _on_revoked(self, partitions: Iterable[TopicPartition]) -> Awaitable[object] | None:
        leaving = self._take_away(partitions)
        return self._committer.hand_over(leaving) if leaving else None

    def _on_lost(self, partitions: Iterable[TopicPartition]) -> None:
        logger.warning(
            "This worker was removed from the group of %r and joins again: messages that it has started from "
            "%s run twice if another worker gets them meanwhile.",
            self._queue_name, sorted(partitions),
        )  # fmt: skip
        self._take_away(partitions)

    def _take_away(self, partitions: Iterable[TopicPartition]) -> list[AssignedPartition]:
        with self._in_flight.lock:
            self._unrestored.difference_update(partitions)
            self._paused.difference_update(partitions)
            for partition in partitions:
                self._reading.forget(partition)
            return [a for p in list(partitions) if (a := self._dispatcher.remove(p)) is not None]

    # The consumer's thread

    def _restore(self) -> None:
        """Take over the assigned partitions. None of their records is dispatched before this succeeds."""
        with self._in_flight.lock:
            partitions = list(self._unrestored)
        try:
            remembered = self._in_flight.remembered(partitions)
            restored = restore(
                self._parts.clients,
                self._kafka,
                partitions,
                remembered,
                replays_said=self._replays_said,
            )
            self._take_over(restored)
        except (KafkaError, BrokerConnectionError, ValueError) as e:
            # ValueError: the partition was revoked between the read and the seek.
            if isinstance(e, NotAuthorized):
                self._parts.denials.note(self._consuming, e)
            elif isinstance(e, KafkaError) and is_denial(e):
                self._note_denial(e)
            self._report_restore_failure(partitions, e)
            self._restore_at_s = clock.monotonic_s() + RESTORE_BACKOFF_S

    def _report_restore_failure(self, partitions: list[TopicPartition], error: Exception) -> None:
        reason = f"The partitions {partitions} cannot be taken over yet: {explained(error)}"
        is_news = reason != self._restore_failure and isinstance(
            error, UnsupportedCodecError | CorruptRecordError
        )
        logger.log(logging.ERROR if is_news else logging.INFO, "%s", reason)
        self._restore_failure = reason

    def _take_over(self, restored: Mapping[TopicPartition, Restored]) -> None:
        states = {partition: left.state for partition, left in restored.items()}
        lanes = self._owned_lanes.restore(restored, states)
        taken = {
            partition: self._new_assigned_partition(partition, left, lanes[partition])
            for partition, left in restored.items()
        }
        for partition, left in restored.items():
            self._kafka.seek(partition, left.state.next_offset, left.state.leader_epoch)
        # Committed before the first dispatch, so that even a crash on the first record leaves a trace.
        if not self._committer.commit_now(taken.values()):
            self._restore_at_s = clock.monotonic_s() + RESTORE_BACKOFF_S
            return
        with self._in_flight.lock:
            ours = self._unrestored.intersection(taken)  # without the partitions revoked meanwhile
            self._unrestored.difference_update(ours)
            for partition in ours:
                self._dispatcher.add(taken[partition])
        self._kafka.resume(*ours)

    def _new_assigned_partition(
        self, partition: TopicPartition, left: Restored, lanes: Lanes[ConsumedRecord]
    ) -> AssignedPartition:
        state, probation_end = left.state, left.probation_end
        if left.unclean:
            probation_end = min(state.highest + 1 + MAX_UNCOMMITTED, left.end_offset)
        return AssignedPartition(
            partition,
            state,
            epoch=self._in_flight.next_epoch(),
            capacity=self._capacity,
            probation_end=probation_end,
            lanes=lanes,
            lane_ends=partial(self._owned_lanes.ends_for, partition),
            topic_id=left.topic_id,
        )

    def _wait(self, remaining_s: float) -> None:
        """Wait until a delivery may be possible: for a record, or for free capacity."""
        if self._can_read():
            self._wait_for_records(remaining_s)
        else:
            clock.wait(self._capacity.changed, min(remaining_s, MAX_POLL_GAP_S))

    def _wait_for_records(self, remaining_s: float) -> None:
        assigned_partitions = self._assigned_partitions.values()
        if not assigned_partitions:
            # The poll in which this consumer gets its partitions does not return with the assignment.
            gap_s = MAX_POLL_GAP_S if self._kafka.is_joining() else SPARE_POLL_GAP_S
            remaining_s = min(remaining_s, gap_s)
        if any(assigned.in_flight or assigned.dirty for assigned in assigned_partitions):
            remaining_s = min(remaining_s, self._config.commit_interval_s)
        if any(assigned.lanes for assigned in assigned_partitions):
            due_s = self._lane_releaser.seconds_until_due()
            # A retry may be added at any time, and be due soon.
            remaining_s = min(remaining_s, MAX_POLL_GAP_S)
            if due_s is not None:
                remaining_s = min(remaining_s, due_s + LANE_POLL_GAP_S)
            if any(assigned.lanes.parked for assigned in assigned_partitions):
                # The parked records wait for worker threads, while poll() would wait for Kafka.
                self._capacity.changed.wait(min(remaining_s, LANE_POLL_GAP_S))
                remaining_s = 0.0
        self._poll(remaining_s)

    def _can_read(self) -> bool:
        return self._capacity.free > 0 and not any(
            a.buffer or a.lanes.ready or a.lanes.leaving for a in self._assigned_partitions.values()
        )

    def _poll(self, timeout_s: float) -> None:
        records = self._reading.poll(int(timeout_s * 1000))
        self._polled_at_s = clock.monotonic_s()
        for partition, batch in records.items():
            assigned = self._assigned_partitions.get(partition)
            if assigned is not None:
                self._take_in(assigned, batch)
        topic_id = self._topic_id()
        for assigned in list(self._assigned_partitions.values()):
            self._follow_position(assigned)
            if assigned.topic_id != topic_id is not None:
                self._reload_log(assigned, ALL_OF_IT)
        self._pause_full_partitions()
        self._flush_watcher.look(self._polled_at_s)
        self._heartbeat_monitor.look(self._polled_at_s)
        self._open_transactions.look(self._polled_at_s, list(self._assigned_partitions.values()))

    def _take_in(self, assigned: AssignedPartition, batch: list[ConsumedRecord]) -> None:
        self._parts.denials.is_over(self._consuming)
        first = batch[0]
        if first.offset < assigned.expected:
            # kafka-python went back to the cut of the log, or to the beginning of a new log.
            self._reload_log(assigned, first.offset, first.leader_epoch)
        elif (foreign := assigned.first_foreign(batch)) is not None:
            self._reload_log(assigned, foreign.offset, foreign.leader_epoch)
        else:
            if first.offset > assigned.expected:
                self._look_for_removed(assigned)
            with self._in_flight.lock:
                assigned.take_in(batch)

    def _follow_position(self, assigned: AssignedPartition) -> None:
        """Note that no records are left below the consumer's position.

        kafka-python does not return control records, nor aborted, compacted or expired ones.
        """
        if assigned.buffer or (self._kafka.highwater(assigned.partition) or 0) <= assigned.expected:
            return  # the usual case, without the call of position()
        position = self._kafka.position(assigned.partition, timeout_ms=0)
        if position is not None and position > assigned.expected:
            leader_epoch = self._kafka.position_epoch(assigned.partition)
            self._look_for_removed(assigned)
            with self._in_flight.lock:
                assigned.skip_to(position, leader_epoch)

    def _reload_log(self, assigned: AssignedPartition, cut: int, leader_epoch: int = -1) -> None:
        """Forget the state of the log from ``cut`` on: the records that were read there are gone.

        The rest is taken over as from another worker. So running messages are adopted, and records that were
        read and not started are read again.

        Parameters:
          leader_epoch: The leader epoch of the record at ``cut`` now; -1 for unknown.
        """
        partition = assigned.partition
        self._kafka.refresh_metadata(RESTORE_TIMEOUT_MS)
        lanes = self._owned_lanes.restore([partition])
        left_end = self._end_of_epoch(assigned)
        topic_id = self._topic_id()
        with self._in_flight.lock:
            if partition not in self._assigned_partitions:
                return  # the partition was revoked meanwhile
            left = assigned.snapshot()
            # A log loses its tail in an election, and its later records have a later epoch.
            if topic_id != assigned.topic_id or 0 <= leader_epoch <= left.leader_epoch:
                cut = ALL_OF_IT
            epoch_left = -1
            if cut != ALL_OF_IT and left_end is not None and left_end.epoch >= 0:
                # The end of the common epoch may be lower: some lost records were not read again.
                cut = min(cut, left_end.end_offset)
                epoch_left = left_end.epoch if cut == left_end.end_offset else -1
            state = forget_from(left, cut, leader_epoch=epoch_left)
            position = max(assigned.expected, left.highest + 1)
            undone = sum(offset >= cut for offset in left.incomplete)
            undone += sum(record.offset >= cut for record in assigned.buffer)
            self._take_away([partition])
            restored = Restored(
                state,
                unclean=False,
                end_offset=cut,
                probation_end=assigned.crash_counts.probation_end,
                topic_id=topic_id,
            )
            self._dispatcher.add(self._new_assigned_partition(partition, restored, lanes[partition]))
            self._kafka.seek(partition, state.next_offset, state.leader_epoch)
            self._kafka.resume(partition)
        if cut == ALL_OF_IT:
            logger.error(
                "%s was read up to offset %d and is another log now: the topic was recreated. Its earlier "
                "records are gone; %d of them were read and not done.",
                name_of(partition), position, undone,
            )  # fmt: skip
        else:
            report_lost_tail(partition, position, cut, undone, state.next_offset)

    def _end_of_epoch(self, assigned: AssignedPartition) -> EpochEnd | None:
        """The end of the latest leader epoch that the log has in common with the records that were read."""
        partition = assigned.partition
        with self._in_flight.lock:
            epochs = {partition: assigned.snapshot().leader_epoch}
        return EpochEnds(self._kafka, epochs, timeout_ms=RESTORE_TIMEOUT_MS).answers().get(partition)

    def _topic_id(self) -> object:
        return self._kafka.topic_id(self._queue_topic)

    def _look_for_removed(self, assigned: AssignedPartition) -> None:
        """Report records that retention removed, unlike a gap from compaction or a control record."""
        beginning = self._kafka.beginning_offsets([assigned.partition])[assigned.partition]
        with self._in_flight.lock:
            tracker, expected = assigned.tracker, assigned.expected
            removed = max(0, beginning - max(expected, tracker.highest + 1)) + tracker.left_behind(
                expected, beginning
            )
        if removed:
            report_removed(assigned.partition, removed, beginning)

    def _pause_full_partitions(self) -> None:
        with self._in_flight.lock:
            full = {p for p, a in self._assigned_partitions.items() if a.buffered_bytes >= MAX_BUFFERED_BYTES}
            drained = {
                p
                for p in self._paused
                if self._assigned_partitions[p].buffered_bytes < MAX_BUFFERED_BYTES // 2
            }
            if full - self._paused:
                self._kafka.pause(*(full - self._paused))
            if drained:
                self._kafka.resume(*drained)
            self._paused = (self._paused | full) - drained
