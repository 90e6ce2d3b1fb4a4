"""Puts records into Kafka and says, record by record, whether Kafka has them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
from ..kafka.record_size import batch_bytes, fits
from ..kafka.rights import Rights, denied_topics, is_denial
from ..kafka.single_flight import SingleFlight
from ..kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from ..kafka.topics import Topics
from ..process import forks
from ..process.threads import start_unwaited
from .delivery_reports import TOPIC_ERRORS, DeliveryReports, PartitionGone
from .send_batching import SendBatcher, Sent, current_batch

logger = logging.getLogger(__name__)

#: What a producer is given to find the cluster when there is hardly any time left.
MIN_CONNECT_S = 0.1

#: How long one node may take to answer: a third of the whole time, within these bounds. One that is frozen
#: keeps its connections, and the node that leads in its place by then is asked only after this.
MIN_ANSWER_MS = 5_000
MAX_ANSWER_MS = 30_000

#: More records than that in one call fill requests of their own.
MAX_BATCHED = 16

#: How long nobody tries again to create a topic that a record goes on to later.
LEFT_TO_OTHERS_S = 60.0
#: How long a producer may not know a topic before it is looked whether there is one.
UNKNOWN_TOPIC_PATIENCE_S = 1.0
#: Failures of the producer that was used, not of the records: another one is tried at once.
_AGAIN = (IllegalStateError, PartitionGone)
#: What Kafka takes for "no timestamp", whatever limits it has for them (RecordBatch.NO_TIMESTAMP).
NO_TIMESTAMP = -1
#: For how long records go without one after Kafka has refused this machine's time.
UNTIMED_S = 60.0


@dataclass(frozen=True, slots=True)
class Record:
    """One record to be produced.

    Attributes:
      topic: Its topic, which is created when missing.
      value: Its body; None makes a tombstone, which needs a key.
      key: Records of one key go to one partition unless ``partition`` is given.
      headers: Pairs of a name and its bytes.
      partition: An explicit partition, or None to leave the choice to the producer.
      placement: What decides the partition in place of the key: records of one placement are in one
        partition, as long as the topic's partition count stays.
      destination: The record that it becomes in another topic. A record too large for that topic is refused
        here.
      spare: How many bytes more its topic must be able to take, for what may come back in its place.
      watch: Called, on the publishing thread, with the partition that was chosen and the offset there, or
        None for one that was not acknowledged and may be there all the same.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    partition: int | None = None
    placement: bytes | None = None
    destination: Record | None = None
    spare: int = 0
    watch: Callable[[int, int | None], None] | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """The bytes that its topic must be able to take."""
        return batch_bytes(self.key, self.value, self.headers) + self.spare

    @property
    def steps(self) -> Iterator[Record]:
        """The record, and what it becomes."""
        step: Record | None = self
        while step is not None:
            yield step
            step = step.destination

    def fits(self, limit: int) -> bool:
        """Whether a topic with that limit takes it."""
        return fits(self.key, self.value, self.headers, limit - self.spare)


class Publisher:
    """A thread-safe producer that survives forks and outages.

    A caller has its answer within ``timeout_ms`` while Kafka cannot be reached, whatever other threads do,
    and within twice that when Kafka is lost while the records are on their way.

    kafka-python's idempotent producer never recovers from an outage longer than its delivery timeout, so a
    producer with which something failed is thrown away and the next call builds another. For the same reason
    nobody waits for less than that timeout: a caller who gave up early could not tell whether the record is
    still on its way.

    Parameters:
      timeout_ms: How long it may take to reach Kafka, and then Kafka to acknowledge a record, before that
        counts as failed.
      linger_ms: How long the producer waits for more records to share a request; 0 sends at once.
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
        #: Topics that records go on to and that could not be created here, and until when that is believed.
        self._left_to_others: dict[str, float] = {}
        self._untimed_until_s = -UNTIMED_S

    def reset_after_fork(self) -> None:
        """Connect again when there is something to publish: in the child of a fork, the producer is the
        parent's.
        """
        self._lock = threading.Lock()
        self._producer: ProducerClient | None = None

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        """Produce all ``records`` with one wait and return why some failed, by their index.

        An empty result means that Kafka has acknowledged every one of them. Nothing is raised for a failure:
        the caller decides which of them matter.
        """
        if not records:
            return {}
        forks.check_for_fork()
        reach_by_s = time.monotonic() + self._timeout_ms / 1000
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

    def _ensure(self, records: Sequence[Record], reach_by_s: float) -> Mapping[str, BrokerConnectionError]:
        """See to the topics of ``records``, and return why some may not be written to.

        Raises:
          KafkaUnavailable: When Kafka does not answer, or refuses to create one.
          NotAuthorized: When the only one may not be written to.
        """
        topics = {record.topic for record in records}
        destination = {record.destination.topic for record in records if record.destination is not None}
        if self._left_to_others:
            now_s = time.monotonic()
            destination = {topic for topic in destination if self._left_to_others.get(topic, 0.0) <= now_s}
        try:
            try:
                self._topics.ensure(topics | destination, right="WRITE", deadline_s=reach_by_s)
            except (KafkaUnavailable, NotAuthorized) as e:
                if destination <= topics:
                    if isinstance(e, KafkaUnavailable) or len(topics) == 1:
                        raise
                    return self._ensure_each(topics, reach_by_s)
                # Whoever brings the records there finds out, and may be allowed to create it.
                self._topics.ensure(topics, right="WRITE", deadline_s=reach_by_s)
                until_s = time.monotonic() + LEFT_TO_OTHERS_S
                self._left_to_others |= dict.fromkeys(destination - topics, until_s)
        except TopicMisconfigured:
            return self._topics.refusals(topics | destination)
        return {}

    def _ensure_each(self, topics: Iterable[str], reach_by_s: float) -> dict[str, BrokerConnectionError]:
        """See to each topic by itself: one that may not be written to is not to hold the others up."""
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
        """Why some records are not sent: their topic loses messages, or never takes them."""
        refused: dict[int, BaseException] = {}
        for index, record in enumerate(records):
            for step in record.steps:
                reason = refusals.get(step.topic) or self._too_large(step)
                if reason is not None:
                    refused[index] = reason
                    break
        return refused

    def seems_to_fit(self, record: Record) -> bool:
        """Whether its topic, and those that it goes on to, take a record as far as is known. It costs
        nothing.
        """
        return self._clients.compresses or all(
            (limit := self._topics.limit_of(step.topic)) is None or step.fits(limit) for step in record.steps
        )

    def _too_large(self, record: Record) -> MessageSizeTooLargeError | None:
        limit = self._topics.limit_of(record.topic)
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
            again = [index for index, e in failures.items() if isinstance(e, _AGAIN)]
            if again:  # another thread has replaced the producer, or it knows partitions that are no more
                if any(isinstance(failures[index], PartitionGone) for index in again):
                    self._retire(producer)
                producer = self._current(reach_by_s)
                failed, more = self._produce(producer, records, again, reach_by_s)
                failures = {index: e for index, e in failures.items() if index not in again} | failed
                suspects = [*suspects, *more]
            if mistimed := self._mistimed(failures):
                self._retire(producer)
                producer = self._current(reach_by_s)
                failed, more = self._produce(producer, records, mistimed, reach_by_s)
                suspects = [*(index for index in suspects if index not in mistimed), *more]
                failures = {index: e for index, e in failures.items() if index not in mistimed} | failed
            denied = {index for index, e in failures.items() if _is_denied(records[index], e)}
            suspects = [index for index in suspects if index not in denied]
            others = [e for index, e in failures.items() if index not in denied]
            if suspects or any(not isinstance(e, RECORD_ERRORS) for e in others):
                logger.warning("Kafka did not take everything; the producer is replaced.")
                self._retire(producer)
                self._topics.forget({record.topic for record in records})
                failures |= self._misconfigured(records, failures, reach_by_s)
                suspects = [
                    index for index in suspects if not isinstance(failures[index], TopicMisconfigured)
                ]
            elif denied:
                self._retire(producer)  # kafka-python's is of no use after that
            if suspects:
                self._bisect_failures(records, suspects, failures, reach_by_s + self._timeout_ms / 1000)
        except KafkaUnavailable as e:
            failures.update(dict.fromkeys(suspects, e))
        for index, failure in failures.items():
            if isinstance(failure, MessageSizeTooLargeError | RecordListTooLargeError):
                failures[index] = self._why_too_large(records[index])
            elif isinstance(failure, KafkaError) and is_denial(failure):
                topic = records[index].topic
                doing = f"Nothing could be put into the topic {topic!r}"
                failures[index] = self._clients.translated(failure, doing, Rights((topic,), "WRITE"))
        return failures

    def _why_too_large(self, record: Record) -> MessageSizeTooLargeError:
        limit = self._topics.limit_of(record.topic)
        if limit is None or record.fits(limit):  # which is not Kafka's any more
            limit = self._topics.max_message_bytes(record.topic, max_age_s=0.0)
        return too_large(record, limit)

    def _misconfigured(
        self, records: Sequence[Record], failures: Mapping[int, BaseException], reach_by_s: float
    ) -> dict[int, BaseException]:
        """The failures that come of their topic's settings, when Kafka says those."""
        topics = {records[index].topic for index, e in failures.items() if isinstance(e, TOPIC_ERRORS)}
        try:
            self._topics.ensure(topics, deadline_s=reach_by_s)
        except (KafkaUnavailable, NotAuthorized) as e:
            logger.info("The settings of %s could not be looked at: %s", sorted(topics), e)
        except TopicMisconfigured:
            refusals = self._topics.refusals(topics)
            return {index: refusals[t] for index in failures if (t := records[index].topic) in refusals}
        return {}

    def _mistimed(self, failures: dict[int, BaseException]) -> list[int]:
        """The failures that a wrong clock of this machine has caused, to be sent again without a timestamp.

        A topic that keeps its producers' timestamps refuses those that are more than an hour ahead of its own
        clock (``message.timestamp.after.max.ms``), and others of their batch with them.
        """
        if not any(is_about_time(e) for e in failures.values()):
            return []
        if time.monotonic() > self._untimed_until_s:
            logger.error(
                "Kafka refuses the time of this machine, %s: records go without a timestamp until it is "
                "right. Set the clock. %s",
                time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
                next(e for e in failures.values() if is_about_time(e)),
            )  # fmt: skip
        self._untimed_until_s = time.monotonic() + UNTIMED_S
        return [index for index, e in failures.items() if is_about_time(e) or type(e) is KafkaError]

    def _bisect_failures(
        self,
        records: Sequence[Record],
        suspects: Sequence[int],
        failures: dict[int, BaseException],
        deadline_s: float,
    ) -> None:
        """Take out of ``failures`` those that another record has caused.

        A record that Kafka refuses for good ends its producer, and whatever was on the way, this call's or
        another thread's, fails with its error. Sent again in halves, by producers of their own, the others
        arrive (some of them for the second time, with the same message id).
        """
        groups = _halves(suspects)
        while groups and time.monotonic() < deadline_s:
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
        """Close the producer. Everything published has been waited for already."""
        forks.check_for_fork()
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer, timeout_s=1.0)

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
            within_s=max(MIN_CONNECT_S, deadline_s - time.monotonic()),
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
        """Produce some of ``records``: why some failed, and which of these Kafka seems to refuse for good."""
        failures = self._look_up(producer, records, indices, reach_by_s)
        known = [index for index in indices if index not in failures]
        awaited = DeliveryReports(producer, self._topics, timeout_s=self._timeout_ms / 1000)

        def send() -> Sent:
            timestamp_ms = NO_TIMESTAMP if time.monotonic() < self._untimed_until_s else None
            return _send(producer, records, known, timestamp_ms)

        if len(known) > MAX_BATCHED:
            answered, suspects = awaited.outcomes(send())
        else:
            answered, suspects = self._send_batcher.produce(
                send, awaited.outcomes, timeout_s=self._timeout_ms / 1000
            )
        return failures | answered, suspects

    def _look_up(
        self, producer: ProducerClient, records: Sequence[Record], indices: Sequence[int], reach_by_s: float
    ) -> dict[int, BaseException]:
        """Wait until the producer knows where the records go, and return why it does not know it of some.

        Its send() would wait for as long again, and for each topic.
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
            producer.refresh_metadata(timeout_s=max(0.0, reach_by_s - time.monotonic()))
            if not _is_known(producer, record):
                failures[index] = no_partition(record)
        return failures

    def _wait_until_known(self, topic: str, producer: ProducerClient, reach_by_s: float) -> None:
        left_s = max(0.0, reach_by_s - time.monotonic())
        try:
            producer.wait_for_topic(topic, min(left_s, UNKNOWN_TOPIC_PATIENCE_S) * 1000)
        except KafkaTimeoutError:
            if left_s <= UNKNOWN_TOPIC_PATIENCE_S:
                raise
            self._topics.look_again(topic, deadline_s=reach_by_s)  # it may have been deleted
            producer.wait_for_topic(topic, max(0.0, reach_by_s - time.monotonic()) * 1000)

    def _retire(self, producer: ProducerClient) -> None:
        with self._lock:
            if self._producer is not producer:
                return  # another thread saw the same failure first
            self._producer = None
        # Other threads may still wait on its futures, so it is closed in the background, once they have their
        # answer.
        close = partial(_close, producer, timeout_s=self._timeout_ms / 1000)
        start_unwaited(close, name="dramatiq-kafka-retired-producer")


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
                sent.watched.append((record.watch, producer.partition_of(future).partition, future))
    return sent


def _is_denied(record: Record, error: BaseException) -> bool:
    """Whether Kafka denies this record's topic, and not that of another one of its producer."""
    return is_denial(error) and (denied_topics(error) or {record.topic}) == {record.topic}


def _is_known(producer: ProducerClient, record: Record) -> bool:
    """Whether a producer has heard of the partition that a record names."""
    return record.partition in (producer.known_partitions(record.topic) or ())


def no_partition(record: Record) -> UnknownTopicOrPartitionError:
    """No fault of the record: whoever named the partition may have heard of it before the producer did."""
    return UnknownTopicOrPartitionError(
        f"the topic {record.topic!r} has no partition {record.partition} as far as Kafka says: it was added "
        "just now, or the topic was recreated with fewer"
    )


def too_large(record: Record, limit: int | None) -> MessageSizeTooLargeError:
    """Kafka's error, which names neither the size nor the limit, with both."""
    takes = "its max.message.bytes" if limit is None else f"{limit:,} bytes (its max.message.bytes)"
    if limit is not None and record.fits(limit):
        takes += f", but no client of this broker sends more than {MAX_DEAD_LETTER_BYTES:,} bytes"
    return MessageSizeTooLargeError(
        f"its record has {record.size:,} bytes, and the topic {record.topic!r} takes {takes}"
    )


def _halves(indices: Sequence[int]) -> list[Sequence[int]]:
    middle = len(indices) // 2
    return [half for half in (indices[:middle], indices[middle:]) if half]


def partition_of(placement: bytes, partition_count: int) -> int:
    """The partition that records of this placement are in."""
    return crc32(placement) % partition_count


def _partition(producer: ProducerClient, record: Record) -> int | None:
    if record.placement is None:
        return record.partition
    return partition_of(record.placement, len(producer.partitions_for(record.topic)))


def _close(producer: ProducerClient, *, timeout_s: float) -> None:
    try:
        producer.close(timeout=timeout_s)
    except (KafkaTimeoutError, IllegalStateError):
        # It has something that it cannot flush. Its callers have been told long ago.
        producer.force_close()
