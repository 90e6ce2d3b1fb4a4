"""Produces records to Kafka, and reports for each record whether Kafka has acknowledged it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from zlib import crc32

from dramatiq.errors import BrokerConnectionError

from ..errors import RECORD_ERRORS, KafkaUnavailable, NotAuthorized, TopicMisconfigured
from ..kafka.clients import Clients
from ..kafka.errors import (
    BrokerResponseError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
    is_about_time,
    is_unknown_partition,
)
from ..kafka.partitioner import StickyBatchPartitioner
from ..kafka.protocol import ProducerClient
from ..kafka.record_size import ROOM_BYTES, batch_bytes, fits, headers_bound
from ..kafka.rights import Rights, denied_topics, is_denial, not_published
from ..kafka.single_flight import SingleFlight
from ..kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from ..kafka.topics import Topics
from ..process import clock, forks
from ..process.threads import start_unwaited
from .delivery_reports import TOPIC_ERRORS, DeliveryReports, PartitionGone
from .send_batching import SendBatcher, Sent, current_batch

logger = logging.getLogger(__name__)

#: The minimum time for a producer to connect, even shortly before a deadline.
MIN_CONNECT_S = 0.1

#: The bounds of a request's timeout, which is a third of the whole time. A frozen node keeps its connections;
#: the new leader gets a request only after this timeout.
MIN_ANSWER_MS = 5_000
MAX_ANSWER_MS = 30_000

#: A call with more records fills its own requests, without a shared batch.
MAX_BATCHED = 16

#: The pause before another attempt to create the topic of a record's destination.
CREATE_BACKOFF_S = 60.0
#: The time after which a topic that a producer does not know is checked for existence.
UNKNOWN_TOPIC_TIMEOUT_S = 1.0
#: Failures of the producer, not of the records: another producer is used at once.
_UNSENT = (IllegalStateError, PartitionGone)
#: Kafka's value for "no timestamp", which no limit of a topic refuses (RecordBatch.NO_TIMESTAMP).
NO_TIMESTAMP = -1
#: The time for which records have no timestamp after Kafka has refused this machine's clock.
UNTIMED_S = 60.0


class Watch(Protocol):
    """Receives the position of a record."""

    def __call__(self, partition: int, offset: int | None, leader_epoch: int = -1) -> None:
        """Called on the publishing thread.

        Parameters:
          partition: The chosen partition.
          offset: The offset; None for an unacknowledged record, which may exist all the same.
          leader_epoch: The leader epoch of the record; -1 when it is not certain.
        """


@dataclass(frozen=True, slots=True)
class Record:
    """One record to be produced.

    Attributes:
      topic: The topic, which is created when missing.
      value: The body; None for a tombstone, which needs a key.
      key: Records of one key go to one partition unless ``partition`` is given.
      headers: Pairs of a name and its bytes.
      partition: An explicit partition, or None to leave the choice to the producer.
      placement: Determines the partition instead of the key: records of one placement are in one partition,
        as long as the topic's partition count stays.
      destination: The later record of the same message in another topic. A record whose destination is too
        large for its topic is refused here.
      spare: Further bytes that the topic must accept, for a later version of the record.
      watch: Called with the place of the record; see ``Watch``.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    partition: int | None = None
    placement: bytes | None = None
    destination: Record | None = None
    spare: int = 0
    watch: Watch | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """The bytes that the topic must accept."""
        return batch_bytes(self.key, self.value, self.headers) + self.spare

    @property
    def steps(self) -> Iterator[Record]:
        """The record and its destinations."""
        step: Record | None = self
        while step is not None:
            yield step
            step = step.destination

    def fits(self, limit: int) -> bool:
        """Whether a topic with that limit accepts the record."""
        return fits(self.key, self.value, self.headers, limit - self.spare)


class Publisher:
    """A thread-safe producer that survives forks and outages.

    A call returns within ``timeout_ms`` while Kafka is unreachable, independent of other threads, and within
    twice that time when Kafka becomes unreachable while the records are in flight.

    kafka-python's idempotent producer never recovers from an outage longer than its delivery timeout. So a
    producer with a failure is discarded, and the next call creates another. For the same reason no call waits
    for less than the delivery timeout: it could not tell whether the record is still in flight.

    Parameters:
      timeout_ms: The timeout of the connection to Kafka, and again of the acknowledgement of a record.
      linger_ms: The time for which the producer waits for more records to share a request; 0 sends at once.
    """

    def __init__(self, clients: Clients, topics: Topics, *, timeout_ms: int, linger_ms: int = 0) -> None:
        self._clients = clients
        self._topics = topics
        self._timeout_ms = timeout_ms
        self._linger_ms = linger_ms
        self._answer_ms = min(max(min(timeout_ms, MIN_ANSWER_MS), timeout_ms // 3), MAX_ANSWER_MS)
        self._connecting = SingleFlight()
        self._send_batcher = SendBatcher()
        self.reset_after_fork()
        forks.reset_on_fork(self)
        #: Destination topics that could not be created, and the time of the next attempt.
        self._uncreated_until_s: dict[str, float] = {}
        self._untimed_until_s = -UNTIMED_S

    def reset_after_fork(self) -> None:
        """Drop the producer, which belongs to the parent. The next call that publishes creates another."""
        self._lock = threading.Lock()
        self._producer: ProducerClient | None = None

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        """Produce all ``records`` with one wait and return why some failed, by their index.

        An empty result means that Kafka has acknowledged all of them. A failure raises no error: the caller
        decides which failures matter.
        """
        if not records:
            return {}
        forks.check_for_fork()
        reach_by_s = clock.monotonic_s() + self._timeout_ms / 1000
        try:
            refusals = self._ensure(records, reach_by_s)
        except (KafkaUnavailable, NotAuthorized) as e:
            return dict.fromkeys(range(len(records)), e)
        refused = self._refused(records, refusals)
        if not refused:
            return self._publish(records, reach_by_s)
        others = [index for index in range(len(records)) if index not in refused]
        failures = self._publish([records[index] for index in others], reach_by_s)
        return {**refused, **{others[number]: e for number, e in failures.items()}}

    def refusals(self, records: Sequence[Record]) -> dict[int, BaseException]:
        """The known reasons for which Kafka would refuse some of ``records`` for good, by their index.

        No record is sent.

        Raises:
          KafkaUnavailable: When Kafka does not answer; publish() would send no record either.
        """
        forks.check_for_fork()
        try:
            self._ensure(records, clock.monotonic_s() + self._timeout_ms / 1000)
        except NotAuthorized:
            return {}  # publish() returns it for the records concerned
        return self._refused(records, {})

    def _ensure(self, records: Sequence[Record], reach_by_s: float) -> Mapping[str, BrokerConnectionError]:
        """Ensure the topics of ``records``. Return the topics that refuse records, each with the reason.

        Raises:
          KafkaUnavailable: When Kafka does not answer, or refuses to create a topic.
          NotAuthorized: When this client may not write to the only topic.
        """
        topics = {record.topic for record in records}
        destination = {record.destination.topic for record in records if record.destination is not None}
        if self._uncreated_until_s:
            now_s = clock.monotonic_s()
            destination = {topic for topic in destination if self._uncreated_until_s.get(topic, 0.0) <= now_s}
        try:
            try:
                self._topics.ensure(topics | destination, right="WRITE", deadline_s=reach_by_s)
            except (KafkaUnavailable, NotAuthorized) as e:
                if destination <= topics:
                    if isinstance(e, KafkaUnavailable) or len(topics) == 1:
                        raise
                    return self._ensure_each(topics, reach_by_s)
                # The client that produces the destination records may have the right to create their topic.
                self._topics.ensure(topics, right="WRITE", deadline_s=reach_by_s)
                until_s = clock.monotonic_s() + CREATE_BACKOFF_S
                self._uncreated_until_s |= dict.fromkeys(destination - topics, until_s)
        except TopicMisconfigured:
            return self._topics.refusals(topics | destination)
        return {}

    def _ensure_each(self, topics: Iterable[str], reach_by_s: float) -> dict[str, BrokerConnectionError]:
        """Ensure each topic separately, so that one without the right to write does not block the others."""
        refusals: dict[str, BrokerConnectionError] = {}
        for topic in topics:
            try:
                self._topics.ensure([topic], right="WRITE", deadline_s=reach_by_s)
            except (NotAuthorized, TopicMisconfigured) as e:
                refusals[topic] = e
        return refusals

    def _refused(
        self, records: Sequence[Record], refusals: Mapping[str, BrokerConnectionError]
    ) -> dict[int, BaseException]:
        """Why some records are not sent: their topic loses messages, or never accepts them."""
        refused: dict[int, BaseException] = {}
        rooms = {topic: self._room_of(topic) for topic in {record.topic for record in records}}
        for index, record in enumerate(records):
            size = len(record.value or b"") + len(record.key or b"") + record.spare
            if record.headers:
                size += headers_bound(record.headers)
            if size <= rooms[record.topic] and record.destination is None and not refusals:
                continue  # the usual case
            for step in record.steps:
                reason = refusals.get(step.topic) or self._too_large(step)
                if reason is not None:
                    refused[index] = reason
                    break
        return refused

    def _room_of(self, topic: str) -> int:
        """The bytes of a key, a value and headers that the producer and a topic accept for certain."""
        limit = self._topics.limit_of(topic)
        return min(MAX_DEAD_LETTER_BYTES, limit or MAX_DEAD_LETTER_BYTES) - ROOM_BYTES

    def seems_to_fit(self, record: Record) -> bool:
        """Whether a record fits the known limits of its topic and its destinations. No request is made."""
        return self._clients.compresses or all(
            (limit := self._topics.limit_of(step.topic)) is None or step.fits(limit) for step in record.steps
        )

    def _too_large(self, record: Record) -> MessageSizeTooLargeError | None:
        limit = self._topics.limit_of(record.topic)
        if not fits(record.key, record.value, record.headers, MAX_DEAD_LETTER_BYTES):
            return too_large(record, limit)  # the producer refuses it, whatever its topic accepts
        if limit is None or record.fits(limit) or self._clients.compresses:
            return None
        limit = self._topics.max_message_bytes(record.topic)  # an operator may have raised it meanwhile
        return None if limit is None or record.fits(limit) else too_large(record, limit)

    def _publish(self, records: Sequence[Record], reach_by_s: float) -> dict[int, BaseException]:
        if not records:
            return {}
        failures: dict[int, BaseException] = {}
        suspects: Sequence[int] = range(len(records))
        try:
            producer = self._current(reach_by_s)
            failures, suspects = self._produce(producer, records, suspects, reach_by_s)
            for select in (_unsent, self._mistimed):
                again = select(failures)
                if not again:
                    continue
                if not all(isinstance(failures[index], IllegalStateError) for index in again):
                    self._retire(producer)  # else another thread has replaced it
                producer = self._current(reach_by_s)
                failed, more = self._produce(producer, records, again, reach_by_s)
                suspects = [*(index for index in suspects if index not in again), *more]
                failures = {index: e for index, e in failures.items() if index not in again} | failed
            if failures:
                suspects = self._replace(producer, records, failures, suspects, reach_by_s)
            if suspects:
                self._bisect_failures(records, suspects, failures, reach_by_s + self._timeout_ms / 1000)
        except KafkaUnavailable as e:
            failures.update(dict.fromkeys(suspects, e))
        return {index: self._explained(records[index], e) for index, e in failures.items()}

    def _replace(
        self,
        producer: ProducerClient,
        records: Sequence[Record],
        failures: dict[int, BaseException],
        suspects: Sequence[int],
        reach_by_s: float,
    ) -> list[int]:
        """Replace a producer that is of no use after ``failures``.

        Returns:
          The suspects that are left: neither denied nor refused for their topic's settings.
        """
        denied = {index for index, e in failures.items() if _is_denied(records[index], e)}
        suspects = [index for index in suspects if index not in denied]
        others = [e for index, e in failures.items() if index not in denied]
        if suspects or any(not isinstance(e, RECORD_ERRORS) for e in others):
            logger.warning("Kafka did not acknowledge all records; the producer is replaced.")
            self._retire(producer)
            self._topics.forget({record.topic for record in records})
            failures |= self._misconfigured(records, failures, reach_by_s)
            return [index for index in suspects if not isinstance(failures[index], TopicMisconfigured)]
        if denied:
            self._retire(producer)
        return suspects

    def _explained(self, record: Record, failure: BaseException) -> BaseException:
        """A failure as an error of this broker."""
        if isinstance(failure, MessageSizeTooLargeError | RecordListTooLargeError):
            reason: BaseException = self._why_too_large(record)
            return reason
        if isinstance(failure, KafkaError) and is_denial(failure):
            doing = f"Nothing could be put into the topic {record.topic!r}"
            return self._clients.translated(failure, doing, Rights((record.topic,), "WRITE"))
        return failure

    def _why_too_large(self, record: Record) -> MessageSizeTooLargeError:
        limit = self._topics.limit_of(record.topic)
        if limit is None or record.fits(limit):  # the limit was changed
            limit = self._topics.max_message_bytes(record.topic, max_age_s=0.0)
        return too_large(record, limit)

    def _misconfigured(
        self, records: Sequence[Record], failures: Mapping[int, BaseException], reach_by_s: float
    ) -> dict[int, BaseException]:
        """The failures that the settings of their topic caused, as far as Kafka returns those settings."""
        topics = {records[index].topic for index, e in failures.items() if isinstance(e, TOPIC_ERRORS)}
        try:
            self._topics.ensure(topics, deadline_s=reach_by_s)
        except (KafkaUnavailable, NotAuthorized) as e:
            logger.info("The settings of %s could not be read: %s", sorted(topics), e)
        except TopicMisconfigured:
            refusals = self._topics.refusals(topics)
            return {index: refusals[t] for index in failures if (t := records[index].topic) in refusals}
        return {}

    def _mistimed(self, failures: dict[int, BaseException]) -> list[int]:
        """The failures that a wrong clock of this machine caused. They are sent again without a timestamp.

        A topic with the timestamps of producers refuses a timestamp more than an hour ahead of Kafka's clock
        (``message.timestamp.after.max.ms``), and the rest of its batch.
        """
        if not any(is_about_time(e) for e in failures.values()):
            return []
        if clock.monotonic_s() > self._untimed_until_s:
            logger.error(
                "Kafka refuses the time of this machine, %s: records have no timestamp until the clock is "
                "right. Set the clock. %s",
                time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(clock.wall_ms() / 1000)),
                next(e for e in failures.values() if is_about_time(e)),
            )  # fmt: skip
        self._untimed_until_s = clock.monotonic_s() + UNTIMED_S
        return [index for index, e in failures.items() if is_about_time(e) or type(e) is KafkaError]

    def _bisect_failures(
        self,
        records: Sequence[Record],
        suspects: Sequence[int],
        failures: dict[int, BaseException],
        deadline_s: float,
    ) -> None:
        """Remove the failures from ``failures`` that another record caused.

        A record that Kafka refuses for good ends its producer. All records in flight, of this call or of
        another thread, fail with its error. They are sent again in halves, each by its own producer, until
        only the refused records fail. Some records arrive twice, with the same message id.
        """
        groups = _halves(suspects)
        while groups and clock.monotonic_s() < deadline_s:
            group = groups.pop()
            producer = self._new_producer(deadline_s)
            failed, suspects = self._produce(producer, records, group, deadline_s)
            _close(producer, timeout_s=1.0)
            for index in group:
                failures.pop(index, None)
            failures.update(failed)
            if len(group) > 1:
                groups += _halves(suspects)

    def close(self) -> None:
        """Close the producer. No record is in flight: each call has waited for its records."""
        forks.check_for_fork()
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer, timeout_s=1.0)

    def replace_producer(self) -> None:
        """Replace the producer.

        A log that lost its tail lost the state of its producers with it. It refuses the next record of each
        producer, and kafka-python retries until its timeout.
        """
        if (producer := self._own()) is not None:
            self._retire(producer)

    def _current(self, deadline_s: float) -> ProducerClient:
        return self._own() or self._connecting.run(lambda: self._renew(deadline_s), deadline_s=deadline_s)

    def _own(self) -> ProducerClient | None:
        with self._lock:
            return self._producer

    def _renew(self, deadline_s: float) -> ProducerClient:
        if (producer := self._own()) is not None:
            return producer
        producer = self._new_producer(deadline_s)
        with self._lock:
            self._producer = producer
        return producer

    def _new_producer(self, deadline_s: float) -> ProducerClient:
        return self._clients.producer(
            within_s=max(MIN_CONNECT_S, deadline_s - clock.monotonic_s()),
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            delivery_timeout_ms=self._timeout_ms,
            request_timeout_ms=self._answer_ms,
            max_block_ms=self._timeout_ms,
            max_request_size=MAX_DEAD_LETTER_BYTES,
            linger_ms=self._linger_ms,
            partitioner=StickyBatchPartitioner(current_batch),
        )

    def _produce(
        self, producer: ProducerClient, records: Sequence[Record], indices: Sequence[int], reach_by_s: float
    ) -> tuple[dict[int, BaseException], list[int]]:
        """Produce some of ``records``. Return the failures, and those that Kafka may refuse for good."""
        failures = self._look_up(producer, records, indices, reach_by_s)
        known = [index for index in indices if index not in failures]
        reports = DeliveryReports(producer, self._topics, timeout_s=self._timeout_ms / 1000)

        def send() -> Sent:
            timestamp_ms = NO_TIMESTAMP if clock.monotonic_s() < self._untimed_until_s else None
            return _send(producer, records, known, timestamp_ms)

        if len(known) > MAX_BATCHED:
            answered, suspects = reports.outcomes(send())
        else:
            answered, suspects = self._send_batcher.produce(
                send, reports.outcomes, timeout_s=self._timeout_ms / 1000
            )
        return failures | answered, suspects

    def _look_up(
        self, producer: ProducerClient, records: Sequence[Record], indices: Sequence[int], reach_by_s: float
    ) -> dict[int, BaseException]:
        """Wait until the producer knows the partitions of the records. Return the failures by index.

        Without this, send() would wait for the whole timeout again, and for each topic.
        """
        unknown: dict[str, BaseException] = {}
        for topic in {records[index].topic for index in indices}:
            try:
                self._wait_until_known(topic, producer, reach_by_s)
            except (KafkaError, BrokerConnectionError, TypeError, ValueError, AssertionError) as e:
                unknown[topic] = e
        failures = {index: unknown[t] for index in indices if (t := records[index].topic) in unknown}
        for index in indices:
            record = records[index]
            if record.partition is None or index in failures or _is_known(producer, record):
                continue
            producer.refresh_metadata(timeout_s=max(0.0, reach_by_s - clock.monotonic_s()))
            if not _is_known(producer, record):
                failures[index] = no_partition(record)
        return failures

    def _wait_until_known(self, topic: str, producer: ProducerClient, reach_by_s: float) -> None:
        left_s = max(0.0, reach_by_s - clock.monotonic_s())
        try:
            producer.wait_for_topic(topic, min(left_s, UNKNOWN_TOPIC_TIMEOUT_S) * 1000)
        except KafkaTimeoutError:
            if left_s <= UNKNOWN_TOPIC_TIMEOUT_S:
                raise
            self._topics.look_again(topic, deadline_s=reach_by_s)  # it may have been deleted
            producer.wait_for_topic(topic, max(0.0, reach_by_s - clock.monotonic_s()) * 1000)

    def _retire(self, producer: ProducerClient) -> None:
        with self._lock:
            if self._producer is not producer:
                return  # another thread saw the same failure first
            self._producer = None
        # Other threads may still wait for its futures, so it is closed in the background after their timeout.
        close = partial(_close, producer, timeout_s=self._timeout_ms / 1000)
        start_unwaited(close, name="dramatiq-kafka-retired-producer")


def _unsent(failures: Mapping[int, BaseException]) -> list[int]:
    """The failures that another producer may avoid."""
    return [index for index, e in failures.items() if isinstance(e, _UNSENT)]


def _send(
    producer: ProducerClient, records: Sequence[Record], indices: Sequence[int], timestamp_ms: int | None
) -> Sent:
    sent = Sent()
    for index in indices:
        record = records[index]
        try:
            future = producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                headers=record.headers,
                partition=_partition(producer, record),
                timestamp_ms=timestamp_ms,
            )
        except (KafkaError, BrokerResponseError, TypeError, ValueError, AssertionError) as e:
            sent.failures[index] = no_partition(record) if is_unknown_partition(e) else e
        else:
            sent.pending.append((index, future))
            if record.watch is not None:
                where = producer.partition_of(future)
                leader_epoch = producer.leader_epoch(where)
                sent.watched.append((record.watch, where, future, leader_epoch))
    return sent


def _is_denied(record: Record, error: BaseException) -> bool:
    """Whether Kafka denies access to this record's topic, and not to that of another record."""
    return is_denial(error) and (denied_topics(error) or {record.topic}) == {record.topic}


def _is_known(producer: ProducerClient, record: Record) -> bool:
    """Whether a producer knows the partition that a record names."""
    return record.partition in (producer.known_partitions(record.topic) or ())


def no_partition(record: Record) -> UnknownTopicOrPartitionError:
    """The error for a partition that the producer does not know. The caller may have newer metadata."""
    return UnknownTopicOrPartitionError(
        f"the topic {record.topic!r} has no partition {record.partition} in Kafka's metadata: the partition "
        "was just added, or the topic was recreated with fewer partitions"
    )


def too_large(record: Record, limit: int | None) -> MessageSizeTooLargeError:
    """Kafka's error with the size and the limit, which Kafka's own text lacks."""
    takes = "its max.message.bytes" if limit is None else f"{limit:,} bytes (its max.message.bytes)"
    if limit is not None and record.fits(limit):
        takes += f", but no client of this broker sends more than {MAX_DEAD_LETTER_BYTES:,} bytes"
    return MessageSizeTooLargeError(
        f"its record has {record.size:,} bytes, and the topic {record.topic!r} takes {takes}"
    )


def publish_all(publisher: Publisher, records: Sequence[Record], doing: str) -> None:
    """Produce ``records``, all of which have to be acknowledged.

    Parameters:
      doing: What failed otherwise, for the error's text: ``"The topic 'x' could not be flushed"``.

    Raises:
      KafkaUnavailable, NotAuthorized: When Kafka did not acknowledge one of them.
    """
    for failure in publisher.publish(records).values():
        raise not_published(doing, failure) from failure


def _halves(indices: Sequence[int]) -> list[Sequence[int]]:
    middle = len(indices) // 2
    return [half for half in (indices[:middle], indices[middle:]) if half]


def partition_of(placement: bytes, partition_count: int) -> int:
    """The partition of the records of a placement."""
    return crc32(placement) % partition_count


def _partition(producer: ProducerClient, record: Record) -> int | None:
    if record.placement is None:
        return record.partition
    return partition_of(record.placement, len(producer.partitions_for(record.topic)))


def _close(producer: ProducerClient, *, timeout_s: float) -> None:
    try:
        producer.close(timeout=timeout_s)
    except (KafkaTimeoutError, IllegalStateError):
        # kafka-python leaves a producer that cannot flush open, with its thread and sockets. All its callers
        # have returned.
        producer.force_close()
