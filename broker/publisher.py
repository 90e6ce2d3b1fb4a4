"""Puts records into Kafka and says, record by record, whether Kafka has them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from zlib import crc32

from kafka import KafkaProducer
from kafka.errors import (
    BrokerResponseError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)

from .attempts import SharedAttempts
from .clients import Clients
from .errors import RECORD_ERRORS, KafkaUnavailable
from .gathering import Gathering, RoundPartitioner, Sent
from .threads import start_unwaited
from .topics import MAX_DEAD_LETTER_BYTES, Topics

logger = logging.getLogger(__name__)

#: The producer reports a record's fate at its delivery timeout; this much later a silent future counts as
#: failed.
REPORT_GRACE_S = 5.0
#: What a producer is given to find the cluster when there is hardly any time left.
MIN_CONNECT_S = 0.1

#: More records than that in one call fill requests of their own.
MAX_GATHERED = 16

#: Below this no topic's limit is asked for: nearly every message is far below it.
WORTH_A_LOOK_BYTES = 64 * 1024
#: What Kafka adds to a record at most, which the limit is for, too: a batch's header and a record's fields.
BATCH_BYTES = 128
#: How kafka-python's ValueError begins for a partition that it has not heard of.
_UNRECOGNIZED = "Unrecognized partition"


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
      bound_for: The topic that its body goes on to. What is too large for that one is refused here.
      watch: Called, on the publishing thread, with the partition that was chosen and the offset there, or
        None for one that was not acknowledged and may be there all the same.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    partition: int | None = None
    placement: bytes | None = None
    bound_for: str | None = None
    watch: Callable[[int, int | None], None] | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """Its bytes, but for the few that Kafka adds."""
        parts = [self.key, self.value]
        for name, content in self.headers:
            parts += [name.encode(), content]
        return sum(len(part) for part in parts if part)


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
        self._connecting = SharedAttempts()
        self._gathering = Gathering()
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._owner_pid = 0

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        """Produce all ``records`` with one wait and return why some failed, by their index.

        An empty result means that Kafka has acknowledged every one of them. Nothing is raised for a failure:
        the caller decides which of them matter.
        """
        stuck = {index: e for index, record in enumerate(records) if (e := self._would_get_stuck(record))}
        if not stuck:
            return self._publish(records)
        others = [index for index in range(len(records)) if index not in stuck]
        failures = self._publish([records[index] for index in others])
        return {**stuck, **{others[number]: e for number, e in failures.items()}}

    def _would_get_stuck(self, record: Record) -> MessageSizeTooLargeError | None:
        """Why the topic that a record is bound for would never take it."""
        if record.bound_for is None or record.size < WORTH_A_LOOK_BYTES:
            return None
        try:
            self._topics.ensure([record.bound_for])
        except KafkaUnavailable:
            return None  # which publishing finds out, and says
        limit = self._topics.max_message_bytes(record.bound_for)
        if limit is None or record.size + BATCH_BYTES <= limit:
            return None
        return _too_large(record, record.bound_for, limit)

    def _publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        if not records:
            return {}
        reach_by_s = time.monotonic() + self._timeout_ms / 1000
        failures: dict[int, BaseException] = {}
        suspects: Sequence[int] = range(len(records))
        try:
            self._topics.ensure({record.topic for record in records}, deadline_s=reach_by_s)
            producer = self._current(reach_by_s)
            failures, suspects = self._produce(producer, records, range(len(records)), reach_by_s)
            closed = [index for index, e in failures.items() if isinstance(e, IllegalStateError)]
            if closed:  # by another thread, for whose record's sake it was replaced
                producer = self._current(reach_by_s)
                failed, more = self._produce(producer, records, closed, reach_by_s)
                failures = {index: e for index, e in failures.items() if index not in closed} | failed
                suspects = [*suspects, *more]
            if suspects or any(not isinstance(e, RECORD_ERRORS) for e in failures.values()):
                self._retire(producer)
                self._topics.forget({record.topic for record in records})
            if suspects:
                self._sift(records, suspects, failures, reach_by_s + self._timeout_ms / 1000)
        except KafkaUnavailable as e:
            failures.update(dict.fromkeys(suspects, e))
        for index, failure in failures.items():
            if isinstance(failure, MessageSizeTooLargeError | RecordListTooLargeError):
                topic = records[index].topic
                failures[index] = _too_large(records[index], topic, self._topics.max_message_bytes(topic))
        return failures

    def _sift(
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
        """Close the producer, if this process made one. Everything published has been waited for already."""
        with self._lock:
            producer, self._producer = self._producer, None
            inherited = self._owner_pid != os.getpid()
        if producer is not None and not inherited:
            _close(producer, timeout_s=1.0)

    def _current(self, deadline_s: float) -> KafkaProducer:
        return self._own() or self._connecting.run(lambda: self._renew(deadline_s), deadline_s=deadline_s)

    def _own(self) -> KafkaProducer | None:
        # A producer inherited through fork() has no I/O thread here: it is dropped, its owner closes it.
        with self._lock:
            return self._producer if self._owner_pid == os.getpid() else None

    def _renew(self, deadline_s: float) -> KafkaProducer:
        if (producer := self._own()) is not None:
            return producer
        producer = self._new_producer(deadline_s)
        with self._lock:
            if self._owner_pid != os.getpid():
                self._gathering = Gathering()  # its thread, too, stayed with the parent
            self._producer, self._owner_pid = producer, os.getpid()
        return producer

    def _new_producer(self, deadline_s: float) -> KafkaProducer:
        return self._clients.producer(
            within_s=max(MIN_CONNECT_S, deadline_s - time.monotonic()),
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            delivery_timeout_ms=self._timeout_ms,
            request_timeout_ms=self._timeout_ms,
            max_block_ms=self._timeout_ms,
            max_request_size=MAX_DEAD_LETTER_BYTES,
            linger_ms=self._linger_ms,
            partitioner=RoundPartitioner(),
        )

    def _produce(
        self, producer: KafkaProducer, records: Sequence[Record], indices: Sequence[int], reach_by_s: float
    ) -> tuple[dict[int, BaseException], list[int]]:
        """Produce some of ``records``: why some failed, and which of these Kafka seems to refuse for good."""
        failures = self._look_up(producer, records, indices, reach_by_s)
        known = [index for index in indices if index not in failures]

        def send() -> Sent:
            return _send(producer, records, known)

        if len(known) > MAX_GATHERED:
            answered, suspects = self._wait(send())
        else:
            answered, suspects = self._gathering.produce(send, self._wait, timeout_s=self._timeout_ms / 1000)
        return failures | answered, suspects

    def _look_up(
        self, producer: KafkaProducer, records: Sequence[Record], indices: Sequence[int], reach_by_s: float
    ) -> dict[int, BaseException]:
        """Wait until the producer knows where the records go, and return why it does not know it of some.

        Its send() would wait for as long again, and for each topic.
        """
        unknown: dict[str, BaseException] = {}
        known: dict[str, set[int]] = {}
        for topic in {records[index].topic for index in indices}:
            try:
                known[topic] = producer._wait_on_metadata(topic, _left_s(reach_by_s) * 1000)
            except (KafkaError, BrokerResponseError, TypeError, ValueError, AssertionError) as e:
                unknown[topic] = e
        failures = {index: unknown[t] for index in indices if (t := records[index].topic) in unknown}
        for index in indices:
            record = records[index]
            if record.partition is None or index in failures:
                continue
            if record.partition not in known[record.topic]:
                # It was added since the producer last looked.
                known[record.topic] = _partitions_now(producer, record.topic, _left_s(reach_by_s))
                if record.partition not in known[record.topic]:
                    failures[index] = _no_partition(record)
        return failures

    def _wait(self, sent: Sent) -> tuple[dict[int, BaseException], list[int]]:
        failures, suspects = dict(sent.failures), []
        silent_at_s = time.monotonic() + self._timeout_ms / 1000 + REPORT_GRACE_S
        for index, future in sent.pending:
            if future.succeeded():
                continue  # the usual case in bulk: most have their answer while the first are waited for
            try:
                future.get(timeout=max(0.0, silent_at_s - time.monotonic()))
            except (KafkaError, BrokerResponseError) as e:
                failures[index] = e
                if isinstance(e, RECORD_ERRORS):
                    suspects.append(index)
        for watch, partition, future in sent.watched:
            watch(partition, future.value.offset if future.succeeded() else None)
        return failures, suspects

    def _retire(self, producer: KafkaProducer) -> None:
        with self._lock:
            if self._producer is not producer:
                return  # another thread saw the same failure first
            self._producer = None
        logger.warning("Kafka did not take everything; the producer is replaced.")
        # Other threads may still wait on its futures, so it is closed in the background, once they have their
        # answer.
        close = partial(_close, producer, timeout_s=self._timeout_ms / 1000)
        start_unwaited(close, name="dramatiq-kafka-retired-producer")


def _send(producer: KafkaProducer, records: Sequence[Record], indices: Sequence[int]) -> Sent:
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
            )
        except (KafkaError, BrokerResponseError, TypeError, ValueError, AssertionError) as e:
            sent.failures[index] = _no_partition(record) if str(e).startswith(_UNRECOGNIZED) else e
        else:
            sent.pending.append((index, future))
            if record.watch is not None:
                sent.watched.append((record.watch, future._produce_future.topic_partition.partition, future))
    return sent


def _partitions_now(producer: KafkaProducer, topic: str, timeout_s: float) -> set[int]:
    """The partitions that a topic has now, or those that are known when Kafka does not answer in time."""
    told = Event()
    producer._metadata.request_update().add_both(lambda _: told.set())
    producer._sender.wakeup()
    told.wait(timeout_s)
    return set(producer._metadata.partitions_for_topic(topic) or ())


def _no_partition(record: Record) -> UnknownTopicOrPartitionError:
    """No fault of the record: whoever named the partition has heard of it before the producer did."""
    return UnknownTopicOrPartitionError(
        f"the topic {record.topic!r} has no partition {record.partition} as far as Kafka says: it was added "
        "just now, or the topic was recreated with fewer"
    )


def _left_s(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())


def _too_large(record: Record, topic: str, limit: int | None) -> MessageSizeTooLargeError:
    """Kafka's error, which names neither the size nor the limit, with both."""
    takes = "its max.message.bytes" if limit is None else f"{limit:,} bytes (its max.message.bytes)"
    return MessageSizeTooLargeError(
        f"its record has {record.size:,} bytes, and the topic {topic!r} takes {takes}"
    )


def _halves(indices: Sequence[int]) -> list[Sequence[int]]:
    middle = len(indices) // 2
    return [half for half in (indices[:middle], indices[middle:]) if half]


def partition_of(placement: bytes, partition_count: int) -> int:
    """The partition that records of this placement are in."""
    return crc32(placement) % partition_count


def _partition(producer: KafkaProducer, record: Record) -> int | None:
    if record.placement is None:
        return record.partition
    return partition_of(record.placement, len(producer.partitions_for(record.topic)))


def _close(producer: KafkaProducer, *, timeout_s: float) -> None:
    try:
        producer.close(timeout=timeout_s)
    except (KafkaTimeoutError, IllegalStateError):
        # kafka-python leaves a producer open that has something it cannot flush, with its thread and sockets.
        # Its callers have been told long ago.
        producer._sender.force_close()
        producer._closed = True
