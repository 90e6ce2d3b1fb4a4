"""Reads one queue's topic and hands its records to Dramatiq, which calls all of this from one thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Iterable
from functools import partial

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import BrokerConnectionError, ConnectionClosed

from ..admin.flush_markers import FlushMarkers
from ..deliveries.assigned_partition import Capacity
from ..deliveries.delivery import Delivery
from ..kafka.errors import KafkaError
from ..kafka.heartbeat_monitor import HeartbeatMonitor
from ..kafka.protocol import ConsumerClient
from ..kafka.rebalance import heartbeat_soon, learn_partitions
from ..kafka.rights import is_denial
from ..kafka.unreadable_batches import UnreadableBatchSkipper
from ..process import clock
from .committer import Committer
from .config import ConsumerConfig, ConsumerParts
from .dispatcher import Dispatcher
from .flush_watcher import FlushWatcher
from .lane_releaser import LaneReleaser
from .mark_cleaner import MarkCleaner
from .open_transactions import OpenTransactions
from .owned_lanes import OwnedLanes
from .poller import MAX_BUFFERED_BYTES, Poller
from .queue_rights import QueueRights
from .rebalances import Rebalances
from .takeover import Takeover

logger = logging.getLogger(__name__)

#: kafka-python 3.0.12 never returns to a paused partition of which poll() returned only a part (its parsed
#: rest is unparked only while no other partition has one), so every poll takes all fetched records. The size
#: of a fetch limits them.
EVERYTHING = 1_000_000_000
MAX_FETCH_BYTES = 8 * 1024 * 1024
#: The interval of polls while no records are needed: a rebalance starts in a poll.
MAX_POLL_GAP_S = 0.05
#: The interval of polls while records wait only for others of their key.
LANE_POLL_GAP_S = 0.005


class QueueConsumer(Consumer):
    """The consumer of one queue.

    Worker threads call :meth:`ack` and :meth:`nack`, which only note the result. One thread at a time uses
    the Kafka client: the consumer's thread in :meth:`__next__`, and the caller of :meth:`close`.

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
        self._timeout_s = timeout_ms / 1000
        self._driving = threading.Lock()
        self._closing = False
        self._closed = False
        self._capacity = capacity = Capacity(prefetch)
        self._rights = QueueRights(
            parts.clients, parts.denials, queue_name=queue_name, topic=config.topic, group=config.group
        )

        parts.topic_repair.ensure(queue_name, config.topics, lanes_topic=config.lanes_topic)
        self._kafka = kafka = _connect(config, parts)
        skipper = UnreadableBatchSkipper(kafka)
        counters = partial(parts.consumption.of, queue_name)
        self._committer = committer = Committer(
            kafka,
            parts.in_flight,
            interval_s=config.commit_interval_s,
            on_denial=self._rights.note_denial,
            counters=counters,
        )
        self._dispatcher = dispatcher = Dispatcher(config, parts, capacity, commit_now=committer.commit_now)
        self._assigned_partitions = assigned_partitions = dispatcher.assigned_partitions
        self._owned_lanes = owned_lanes = OwnedLanes(config, parts, kafka, assigned_partitions)
        self._lane_releaser = LaneReleaser(config, parts, kafka, assigned_partitions, owned_lanes)
        self._mark_cleaner = MarkCleaner(parts, config.lanes_topic, assigned_partitions)
        self._takeover = takeover = Takeover(
            parts,
            kafka,
            skipper,
            dispatcher,
            committer,
            owned_lanes,
            capacity,
            self._rights,
            kill_notes=partial(parts.kill_notes.read, config.application_group),
        )
        self._poller = Poller(
            config.topic, kafka, skipper, parts.in_flight, assigned_partitions, takeover, self._rights
        )
        self._flush_watcher = FlushWatcher(
            kafka, dispatcher, FlushMarkers(parts.clients, config.group), self._rights
        )
        self._open_transactions = OpenTransactions(kafka)
        self._heartbeat_monitor = HeartbeatMonitor(kafka, queue_name, parts.silent_since_s)

        self._slot = slot = parts.registrar.slot()
        rebalances = Rebalances(
            queue_name, parts.in_flight, dispatcher, committer, takeover, capacity, slot, counters
        )
        kafka.subscribe([config.topic], listener=rebalances.listener())
        self._learn_partitions()

    def _learn_partitions(self) -> None:
        # A group leader that does not know the partitions yet assigns none, and rebalances at once.
        try:
            self._parts.clients.ask(
                lambda: learn_partitions(self._kafka, self._config.topic),
                f"The partitions of {self._queue_name!r} could not be read",
                unless=self._shutdown.asked,
                rights=self._rights.needed,
            )
        except BrokerConnectionError:
            self.close()
            raise

    # The interface to Dramatiq

    def __next__(self) -> MessageProxy | None:
        if self._closing:
            clock.sleep(self._timeout_s)  # only a thread of an ending or quiet process still calls this
            return None
        with self._driving:
            return self._next()

    def _next(self) -> Delivery | None:
        deadline_s = clock.monotonic_s() + self._timeout_s
        try:
            while not self._closing:
                if self._parts.in_flight.gate.is_quiet and not self._runs():
                    self._leave_for_good()
                    break
                if (delivery := self.step()) is not None:
                    return delivery
                if (left_s := deadline_s - clock.monotonic_s()) <= 0:
                    return None
                if self._shutdown.stopping:
                    # It commits completed deliveries at once, and Dramatiq ends the thread between two calls.
                    self._wait(min(left_s, MAX_POLL_GAP_S))
                    return None
                self._wait(left_s)
        except KafkaError as e:
            if not is_denial(e):
                raise ConnectionClosed(f"Consuming {self._queue_name!r} failed: {e!r}") from e
            self._rights.note_denial(e)
            clock.wait(self._shutdown.asked, self._timeout_s)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Note that a delivery was processed. It completes once everything in its outbox is in Kafka."""
        self._settle(message)

    def nack(self, message: MessageProxy) -> None:
        """Note that a delivery failed. It completes once its dead letter is in Kafka; an expired message has
        none.

        Raises:
          DeadLetterNotMade: When its dead letter cannot be created. Dramatiq then repeats the nack.
        """
        assert isinstance(message, Delivery)
        message.drop_retry()  # a message is either retried or dead-lettered
        if not message.is_expired:
            self._parts.dead_letters.add(message, message._exception)
            # The dead letter has the traceback.
            self._parts.failures.keep(self._queue_name, message.message_id, message._exception)
        self._settle(message)

    def _settle(self, message: MessageProxy) -> None:
        assert isinstance(message, Delivery)
        if message.lane_entry is not None:
            self._parts.lane_writer.append_lane_update(message)
        self._parts.completer.settle(message)

    def wake(self) -> None:
        """Let :meth:`__next__` notice a stop at once. Thread-safe."""
        self._capacity.changed.set()
        self._kafka.interrupt()

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

    @property
    def waits_for_rates(self) -> int:
        """The number of records that are read and wait for the rate of their key."""
        return sum(assigned.lanes.parked_for_rates for assigned in self._assigned_partitions.values())

    def _runs(self) -> bool:
        """Whether a message of the queue runs here, or is being settled."""
        with self._parts.in_flight.lock:
            return any(assigned.runs() for assigned in list(self._assigned_partitions.values()))

    def _leave_for_good(self) -> None:
        """Leave the group while the worker lives on: it was told to take no more work."""
        self._leave()
        self._closing = self._closed = True
        logger.info("This worker has left the group of %r, as it takes no more work.", self._queue_name)

    def _leave(self) -> None:
        leaving = self._takeover.take_away(list(self._assigned_partitions))
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
        self._slot.leave()

    def heartbeat_soon(self, groups: Container[str]) -> None:
        """Send a heartbeat now if the queue's group is one of ``groups``: it rebalances. Any thread may call
        this.
        """
        if self._config.group in groups and not self._closing:
            heartbeat_soon(self._kafka)

    # The consumer's thread

    def step(self) -> Delivery | None:
        """Do all that is due, and return the next delivery, or None when none may be dispatched.

        A step waits for Kafka's answers, and for neither records nor capacity. The caller repeats it, and
        lets time pass in between (see :meth:`__next__`). One thread at a time may call this.

        Raises:
          KafkaError: When Kafka refuses a request, or does not answer.
        """
        now_s = clock.monotonic_s()
        at_once = self._shutdown.stopping or self._parts.in_flight.awaits_commits
        if at_once or now_s >= self._committer.next_at_s:
            self._committer.commit_when_due(self._assigned_partitions.values(), force=at_once)
        if self._takeover.is_due:
            self._takeover.step()
        if now_s >= self._lane_releaser.next_step_s:
            self._lane_releaser.step(now_s)
        if now_s >= self._mark_cleaner.next_step_s:
            self._mark_cleaner.step(now_s)
        if now_s - self._poller.polled_at_s > MAX_POLL_GAP_S:
            self._poll(0.0)
        delivery = self._dispatcher.next()
        if delivery is None:
            self._capacity.changed.clear()
            delivery = self._dispatcher.next()  # capacity may have been freed before the event was cleared
        return delivery

    def _poll(self, timeout_s: float) -> None:
        self._poller.poll(timeout_s)
        polled_at_s = self._poller.polled_at_s
        self._flush_watcher.step(polled_at_s)
        self._heartbeat_monitor.check(polled_at_s)
        self._open_transactions.step(polled_at_s, list(self._assigned_partitions.values()))

    def _wait(self, remaining_s: float) -> None:
        """Wait until a delivery may be possible: for a record, or for free capacity."""
        if self._can_read():
            self._wait_for_records(remaining_s)
        else:
            clock.wait(self._capacity.changed, min(remaining_s, MAX_POLL_GAP_S))

    def _wait_for_records(self, remaining_s: float) -> None:
        assigned_partitions = self._assigned_partitions.values()
        # A poll that gets partitions returns.
        remaining_s = min(remaining_s, self._takeover.seconds_until_due())
        if any(assigned.in_flight or assigned.dirty for assigned in assigned_partitions):
            remaining_s = min(remaining_s, self._config.commit_interval_s)
        if any(assigned.lanes for assigned in assigned_partitions):
            due_s = self._lane_releaser.seconds_until_due()
            # A retry may be added at any time, and be due soon.
            remaining_s = min(remaining_s, MAX_POLL_GAP_S)
            if due_s is not None:
                remaining_s = min(remaining_s, due_s + LANE_POLL_GAP_S)
            if any(assigned.lanes.parked and assigned.in_flight for assigned in assigned_partitions):
                # The parked records wait for worker threads, while poll() would wait for Kafka. Without one
                # they wait for the rate of their key.
                clock.wait(self._capacity.changed, min(remaining_s, LANE_POLL_GAP_S))
                remaining_s = 0.0
        self._poll(remaining_s)

    def _can_read(self) -> bool:
        return self._capacity.free > 0 and not any(
            a.buffer or a.has_ready or a.lanes.leaving for a in self._assigned_partitions.values()
        )


def _connect(config: ConsumerConfig, parts: ConsumerParts) -> ConsumerClient:
    return parts.clients.consumer(
        topics=[config.topic],
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
