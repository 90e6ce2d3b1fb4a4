"""The thread of a worker process that follows the control topic, and one more topic if it is given one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError, KafkaTimeoutError
from ..kafka.protocol import ConsumerClient, PendingOffsets
from ..kafka.rights import Denials, denied_topics, is_denial, reading
from ..kafka.topics import Topics
from ..kafka.types import ConsumedRecord, TopicPartition
from ..kafka.unreadable_batches import UnreadableBatchSkipper
from ..process import clock
from ..process.backoff import Backoff
from ..process.forks import reset_on_fork
from .standing import LEASE_S, StandingCommands

logger = logging.getLogger(__name__)

#: The longest wait for records, and so the time in which the thread notices a stop.
POLL_S = 0.5
#: The same while the control topic is not read to its end yet, as workers wait for that.
FIRST_POLL_S = 0.02
#: The interval in which the thread looks for topics that do not exist. It notices one up to POLL_S later, and
#: reads it after the end of up to three fetches that wait for records of another topic, of 0.5 s each.
LOOK_UP_GAP_S = 1.0
#: The same for topics that are awaited, and not read.
AWAITED_GAP_S = 5.0
#: The interval in which the thread asks for the end of the control topic, to renew the lease.
RENEWAL_GAP_S = 2.0
#: The timeout of a request. A failure leaves time for another attempt before the lease ends.
REQUEST_TIMEOUT_MS = 4_000
#: A topic counts as deleted after this time: a node that has just started may not know it for a moment.
GONE_AFTER_S = 5.0
#: The topic counts as unreadable after this time without a read, while Kafka answers: the time of an outage,
#: or in which this process was frozen, does not count. After an earlier read it is longer than the lease: the
#: election of a leader takes seconds, and the earlier pauses stay in force.
UNREADABLE_AFTER_S = 3 * LEASE_S
NEVER_READ_AFTER_S = LEASE_S
#: The first and the longest pause after a failure.
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 2.0
#: The pause while a right is missing, for the control topic and for another one.
DENIED_BACKOFF_S = 5.0
OTHER_DENIED_BACKOFF_S = 60.0
STOP_TIMEOUT_S = 2.0
_READING = "The operators' commands cannot be read, and a pause of a queue is unknown to this worker"

Take = Callable[[ConsumedRecord], None]


@dataclass
class _Followed:
    """One topic that is read.

    Attributes:
      from_end: Whether only records are read that are written from now on.
      back_ms: The age of the records that are read nevertheless.
      positions: The next offset of each partition that is read.
      end: The request for the ends from which the topic is read.
      was_there: Whether it existed, and does not count as deleted.
      missing_since_s: The time of the first look-up that did not find the topic, since Kafka answers; None
        while it exists.
      denied_until_s: The time until which a missing right is not tried again.
    """

    topic: str
    take: Take
    from_end: bool
    back_ms: int = 0
    topic_id: object = None
    positions: dict[int, int] = field(default_factory=dict)
    end: PendingOffsets | None = None
    was_there: bool = False
    missing_since_s: float | None = None
    denied_until_s: float = float("-inf")

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in self.positions]


class NoticeReader:
    """Reads the control topic to its end, follows it, and renews the lease of the worker's gate.

    One consumer without a group reads all topics. A topic that does not exist has no records, and the reader
    notices its creation after LOOK_UP_GAP_S. No error ends the thread.

    Parameters:
      topics: Names the control topic, and checks its settings.
      standing: Takes the commands.
    """

    def __init__(self, clients: Clients, topics: Topics, standing: StandingCommands) -> None:
        self._clients = clients
        self._topics = topics
        self._standing = standing
        self._control = _Followed(topics.control, standing.take, from_end=False)
        self._followed = [self._control]
        self._awaited: dict[str, Callable[[], None]] = {}
        self._denials = Denials()
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Drop the thread and the consumer: in the child of a fork, they belong to the parent."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._kafka: ConsumerClient | None = None
        self._skipper: UnreadableBatchSkipper | None = None
        self._backoff = Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S)
        self._looked_up_s = self._looked_for_awaited_s = float("-inf")
        self._still_awaited = set(self._awaited)
        self._asked: tuple[float, PendingOffsets] | None = None
        self._renewal: tuple[float, dict[TopicPartition, int]] | None = None
        self._next_renewal_s = float("-inf")
        self._read_s = clock.monotonic_s()
        self._answered_s = self._answers_since_s = float("-inf")
        self._has_read = False
        self._is_unreadable_logged = False
        self._is_lapse_logged = False
        self._is_checked = False

    def follow(self, topic: str, take: Take, *, back_ms: int = 0) -> None:
        """Read one more topic, from its end. Call this before :meth:`start`.

        After an interruption the reader continues where it was. Records can come twice, and late: ``take``
        compares their timestamps with the clock if their age matters.

        Parameters:
          take: Called with each record on the reader's thread. It must not block.
          back_ms: The age of the oldest record at the beginning that is read.
        """
        self._followed.append(_Followed(topic, take, from_end=True, back_ms=back_ms))

    def await_topic(self, topic: str, there: Callable[[], None]) -> None:
        """Call ``there`` once on the reader's thread when a topic exists. Call this before :meth:`start`."""
        self._awaited[topic] = there

    # Life

    def begin(self) -> None:
        """Let no task of this process begin before the control topic was read to its end."""
        self._read_s = clock.monotonic_s()
        self._standing.close_until_read()

    def start(self) -> None:
        """Begin, and start the thread. Kafka need not be reachable yet."""
        self.begin()
        self.join()  # the thread of an earlier worker of this process
        self._stop = threading.Event()
        self._still_awaited = set(self._awaited)
        self._looked_for_awaited_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="dramatiq-kafka-notices", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the thread has ended, for STOP_TIMEOUT_S at most."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()
            if (pause_s := self._backoff.remaining_s) > 0:
                clock.wait(self._stop, pause_s)
        self.close()

    def close(self) -> None:
        """Close the consumer. The next :meth:`step` reads on where this one has ended."""
        kafka, self._kafka = self._kafka, None
        self._asked = self._renewal = None
        if kafka is not None:
            try:
                kafka.close(autocommit=False, timeout_ms=REQUEST_TIMEOUT_MS)
            except KafkaError as e:
                logger.debug("The consumer of the notices could not be closed: %r", e)

    # One pass

    def step(self, max_wait_s: float = POLL_S) -> None:
        """Look for topics, read, and renew the lease, on the calling thread.

        Parameters:
          max_wait_s: The longest wait for a record.
        """
        if not self._backoff.is_over:
            return
        try:
            self._step(self._kafka or self._connect(), max_wait_s)
            self._backoff.reset()
        except (KafkaError, BrokerConnectionError) as e:
            self._fail(e)
        except Exception as e:
            # An unforeseen error must neither end the thread, as the worker needs its lease, nor be hidden.
            logger.exception("The reader of the operators' commands failed; it restarts.")
            self._fail(e)
        self._judge()

    def _step(self, kafka: ConsumerClient, max_wait_s: float) -> None:
        if not self._look_up(kafka):
            return
        self._ask_for_end(kafka)
        is_awaited = (self._control.positions and self._standing.is_reading) or any(
            followed.end is not None for followed in self._followed
        )
        self._read(kafka, min(max_wait_s, FIRST_POLL_S) if is_awaited else max_wait_s)
        self._renew(kafka)
        self._check_settings()

    def _connect(self) -> ConsumerClient:
        kafka = self._clients.consumer(
            # An offset that the log does not have belongs to an earlier log.
            auto_offset_reset="earliest",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        self._kafka, self._skipper = kafka, UnreadableBatchSkipper(kafka)
        self._note_answer(clock.monotonic_s())
        self._looked_up_s = self._next_renewal_s = float("-inf")
        for followed in self._followed:
            self._resume(kafka, followed)
        return kafka

    def _resume(self, kafka: ConsumerClient, followed: _Followed) -> None:
        """Let a new consumer continue where its predecessor was.

        The control topic is read from its beginning again: a record that compaction has removed meanwhile is
        known then.
        """
        followed.end = None
        if not followed.from_end:
            followed.positions.clear()
        elif followed.positions:
            self._assign(kafka)
            for partition in followed.partitions:
                kafka.seek(partition, followed.positions[partition.partition])

    # The topics

    def _look_up(self, kafka: ConsumerClient) -> bool:
        """Look for missing topics, and begin to read those that are there. False when a topic is gone: the
        consumer is closed then.
        """
        now_s = clock.monotonic_s()
        wanted = [followed for followed in self._followed if now_s >= followed.denied_until_s]
        missing = [followed for followed in wanted if not kafka.known_partitions(followed.topic)]
        if missing and now_s - self._looked_up_s >= LOOK_UP_GAP_S:
            self._looked_up_s = now_s
            existing = kafka.existing_topics([followed.topic for followed in missing], REQUEST_TIMEOUT_MS)
            self._note_answer(now_s)
            for followed in missing:
                if followed.topic in existing:
                    kafka.partitions_for_topic(followed.topic)  # known from now on
                else:
                    self._note_missing(followed, now_s)
        self._look_for_awaited(kafka, now_s)
        if self._kafka is None:
            return False
        for followed in wanted:
            if numbers := kafka.known_partitions(followed.topic):
                followed.missing_since_s = None
                self._take_up(kafka, followed, numbers)
            elif followed.end is not None:
                self._take_up_from_end(kafka, followed, ())
        return True

    def _look_for_awaited(self, kafka: ConsumerClient, now_s: float) -> None:
        if not self._still_awaited or now_s - self._looked_for_awaited_s < AWAITED_GAP_S:
            return
        self._looked_for_awaited_s = now_s
        try:
            existing = set(kafka.existing_topics(list(self._still_awaited), REQUEST_TIMEOUT_MS))
        except KafkaError as e:
            if not is_denial(e):
                raise
            logger.debug("A topic that is awaited may not be seen: %r", e)
            return
        for topic in existing:
            self._still_awaited.discard(topic)
            self._awaited[topic]()

    def _note_missing(self, followed: _Followed, now_s: float) -> None:
        if followed.missing_since_s is None:
            followed.missing_since_s = now_s
        if followed.was_there:
            if now_s - followed.missing_since_s < GONE_AFTER_S:
                return
            followed.was_there = False
            followed.positions.clear()
            self.close()  # kafka-python asks continuously for a topic that was assigned
            if followed is self._control:
                logger.warning("The topic %r is gone, and all pauses with it.", followed.topic)
        if followed is self._control:
            self._standing.forget()
            self._note_read(now_s)

    def _take_up(self, kafka: ConsumerClient, followed: _Followed, numbers: Iterable[int]) -> None:
        """Read the partitions of a topic that are not read yet."""
        topic_id = kafka.topic_id(followed.topic)
        if followed.positions and topic_id != followed.topic_id:
            self._restart(followed)
        followed.topic_id, followed.was_there = topic_id, True
        if not (added := sorted(set(numbers).difference(followed.positions))):
            return
        partitions = [TopicPartition(followed.topic, number) for number in added]
        if followed.from_end and not followed.positions:
            self._take_up_from_end(kafka, followed, partitions)
            return
        followed.positions.update(dict.fromkeys(added, 0))
        self._assign(kafka)
        kafka.seek_to_beginning(*partitions)
        if followed is self._control:
            self._standing.begin_reading()
            self._asked = self._renewal = None
            self._next_renewal_s = float("-inf")

    def _take_up_from_end(
        self, kafka: ConsumerClient, followed: _Followed, partitions: Sequence[TopicPartition]
    ) -> None:
        if followed.end is None:
            followed.end = kafka.ask_ends(partitions, REQUEST_TIMEOUT_MS)
        if not followed.end.is_done:
            return
        answer, followed.end = followed.end, None
        if answer.succeeded():
            starts = {partition: found.offset for partition, found in answer.value.items()}
            if followed.back_ms:
                since = dict.fromkeys(starts, clock.wall_ms() - followed.back_ms)
                found = kafka.offsets_for_times(since, timeout_ms=REQUEST_TIMEOUT_MS)
                starts |= {partition: first.offset for partition, first in found.items() if first is not None}
            followed.positions = {partition.partition: offset for partition, offset in starts.items()}
            self._assign(kafka)
            for partition, offset in starts.items():
                kafka.seek(partition, offset)

    def _restart(self, followed: _Followed) -> None:
        logger.warning("The topic %r was recreated, or has lost records; it is read again.", followed.topic)
        followed.positions.clear()

    def _assign(self, kafka: ConsumerClient) -> None:
        kafka.assign([partition for followed in self._followed for partition in followed.partitions])

    # The records

    def _read(self, kafka: ConsumerClient, max_wait_s: float) -> None:
        if not any(followed.positions for followed in self._followed):
            clock.wait(self._stop, max_wait_s)
            return
        assert self._skipper is not None
        for partition, records in self._skipper.poll(max_wait_s * 1000).items():
            followed = next(f for f in self._followed if f.topic == partition.topic)
            for record in records:
                followed.take(record)
        self._standing.apply()
        for followed in self._followed:
            self._follow_positions(kafka, followed)

    def _follow_positions(self, kafka: ConsumerClient, followed: _Followed) -> None:
        for partition in followed.partitions:
            position = kafka.position(partition, timeout_ms=0)
            if position is None:
                continue
            if position < followed.positions[partition.partition]:
                # The log has lost its end, or is another one.
                self._restart(followed)
                return
            followed.positions[partition.partition] = position

    # The lease

    def _ask_for_end(self, kafka: ConsumerClient) -> None:
        """Ask for the end of the control topic: once that is read, all commands up to now are applied."""
        now_s = clock.monotonic_s()
        if self._control.positions and self._asked is None and now_s >= self._next_renewal_s:
            self._asked = now_s, kafka.ask_ends(self._control.partitions, REQUEST_TIMEOUT_MS)
            self._next_renewal_s = now_s + RENEWAL_GAP_S

    def _renew(self, kafka: ConsumerClient) -> None:
        if self._asked is not None and self._asked[1].is_done:
            (asked_s, answer), self._asked = self._asked, None
            if not answer.succeeded():
                raise KafkaTimeoutError(f"no answer about the end of {self._control.topic!r}")
            self._note_answer(asked_s)
            if self._renewal is None:
                self._renewal = asked_s, {p: found.offset for p, found in answer.value.items()}
        if self._renewal is None:
            return
        asked_s, ends = self._renewal
        if all(
            # The embedded broker answers with an offset in the last batch, which is too low.
            self._control.positions.get(partition.partition, -1) >= max(end, kafka.highwater(partition) or 0)
            for partition, end in ends.items()
        ):
            self._renewal = None
            if self._is_unreadable_logged and not self._has_fetched(kafka):
                return  # an empty topic is at its end without the right to read it
            self._standing.end_reading()
            self._note_read(asked_s)

    def _has_fetched(self, kafka: ConsumerClient) -> bool:
        """Whether this consumer was allowed to read each partition of the control topic."""
        return all(kafka.highwater(partition) is not None for partition in self._control.partitions)

    def _note_answer(self, asked_s: float) -> None:
        """Note that Kafka has answered a request of that time."""
        if asked_s - self._answered_s >= LEASE_S:
            self._answers_since_s = asked_s
            for followed in self._followed:
                followed.missing_since_s = None
        self._answered_s = max(self._answered_s, asked_s)

    def _note_read(self, asked_s: float) -> None:
        self._read_s, self._has_read = asked_s, True
        if self._is_unreadable_logged or self._is_lapse_logged:
            logger.warning("The operators' commands are read again.")
            self._is_unreadable_logged = self._is_lapse_logged = False
        self._denials.is_over(_READING)
        self._standing.note_fresh(asked_s)

    def _check_settings(self) -> None:
        """Check once that the topic keeps commands."""
        if not self._is_checked and self._control.positions and not self._standing.is_reading:
            self._is_checked = True
            self._topics.ensure([], beside=[self._control.topic], for_reading=True, unless=self._stop)

    # Failures

    def _fail(self, error: Exception) -> None:
        self.close()
        self._backoff.fail()
        if self._stop.is_set() or not is_denial(error):
            if not self._stop.is_set():
                logger.info("The operators' commands cannot be read at the moment: %r", error)
            return
        now_s = clock.monotonic_s()
        denied = denied_topics(error)
        if others := [f for f in self._followed if f is not self._control and f.topic in denied]:
            for followed in others:
                followed.denied_until_s = now_s + OTHER_DENIED_BACKOFF_S
                followed.positions.clear()  # a new consumer would read it at once, and be denied again
                self._note_denial(f"The topic {followed.topic!r} cannot be followed", followed.topic, error)
        if not others or self._control.topic in denied:
            self._control.denied_until_s = now_s + DENIED_BACKOFF_S
            self._is_unreadable_logged = True
            self._note_denial(_READING, self._control.topic, error)
            self._standing.note_unreadable(now_s)

    def _note_denial(self, doing: str, topic: str, error: Exception) -> None:
        if isinstance(error, KafkaError):
            self._denials.note(doing, self._clients.translated(error, doing, reading(topic)))
        else:
            self._denials.note(doing, error)

    def _judge(self) -> None:
        """Let tasks begin although the topic cannot be read, if Kafka answers; log the end of the lease."""
        now_s = clock.monotonic_s()
        answered_s = now_s - max(self._read_s, self._answers_since_s)
        limit_s = UNREADABLE_AFTER_S if self._has_read else NEVER_READ_AFTER_S
        if answered_s >= limit_s and now_s - self._answered_s < LEASE_S:
            self._standing.note_unreadable(self._answered_s)
            if not self._is_unreadable_logged:
                self._is_unreadable_logged = True
                logger.error("%s: Kafka answers, and not about %r.", _READING, self._control.topic)
        elif self._standing.is_lapsed and not self._is_lapse_logged:
            self._is_lapse_logged = True
            logger.warning(
                "Kafka has not told this worker the operators' commands for %.0f s. No task begins until it "
                "does, as a queue may be paused.", now_s - self._read_s,
            )  # fmt: skip
