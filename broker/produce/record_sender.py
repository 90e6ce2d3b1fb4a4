"""Sends records with one producer, and waits for Kafka's responses."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from dramatiq.errors import BrokerConnectionError

from ..kafka.errors import (
    BrokerResponseError,
    KafkaError,
    KafkaTimeoutError,
    UnknownTopicOrPartitionError,
    is_about_time,
    is_unknown_partition,
)
from ..kafka.protocol import ProducerClient
from ..kafka.topics import Topics
from ..process import clock
from .delivery_reports import DeliveryReports
from .record import Record, partition_of
from .send_batching import SendBatcher, Sent

logger = logging.getLogger(__name__)

#: A call with more records fills its own requests, without a shared batch.
MAX_BATCHED = 16

#: The time after which a topic that a producer does not know is checked for existence.
UNKNOWN_TOPIC_TIMEOUT_S = 1.0
#: Kafka's value for "no timestamp", which no limit of a topic refuses (RecordBatch.NO_TIMESTAMP).
NO_TIMESTAMP = -1
#: The time for which records have no timestamp after Kafka has refused this machine's clock.
UNTIMED_S = 60.0


class RecordSender:
    """Sends the records of all threads. A producer is given with each call.

    Parameters:
      timeout_ms: The delivery timeout of the producers.
    """

    def __init__(self, topics: Topics, *, timeout_ms: int) -> None:
        self._topics = topics
        self._timeout_s = timeout_ms / 1000
        self._send_batcher = SendBatcher()
        #: Of ``clock.monotonic_s()``; None until Kafka refuses this machine's clock.
        self._untimed_until_s: float | None = None

    def send(
        self, producer: ProducerClient, records: Sequence[Record], indices: Sequence[int], reach_by_s: float
    ) -> tuple[dict[int, BaseException], list[int]]:
        """Send some of ``records``, and wait for Kafka's responses.

        Parameters:
          indices: Those of the records that are sent.
          reach_by_s: The deadline of the metadata of their topics, of ``clock.monotonic_s()``.

        Returns:
          The failures by index, and the indices of those that another record may have caused.
        """
        failures = self._look_up(producer, records, indices, reach_by_s)
        known = [index for index in indices if index not in failures] if failures else indices
        reports = DeliveryReports(producer, self._topics, timeout_s=self._timeout_s)

        def send() -> Sent:
            return _start(producer, records, known, NO_TIMESTAMP if self._is_untimed() else None)

        if len(known) > MAX_BATCHED:
            answered, unclear = reports.outcomes(send())
        else:
            answered, unclear = self._send_batcher.produce(send, reports.outcomes, timeout_s=self._timeout_s)
        return failures | answered, unclear

    def mistimed(self, failures: Mapping[int, BaseException]) -> list[int]:
        """The failures that a wrong clock of this machine caused. They are sent again without a timestamp.

        A topic with the timestamps of producers refuses a timestamp more than an hour ahead of Kafka's clock
        (``message.timestamp.after.max.ms``), and the rest of its batch.
        """
        if not any(is_about_time(e) for e in failures.values()):
            return []
        if not self._is_untimed():
            logger.error(
                "Kafka refuses the time of this machine, %s: records have no timestamp until the clock is "
                "right. Set the clock. %s",
                time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(clock.wall_ms() / 1000)),
                next(e for e in failures.values() if is_about_time(e)),
            )  # fmt: skip
        self._untimed_until_s = clock.monotonic_s() + UNTIMED_S
        return [index for index, e in failures.items() if is_about_time(e) or type(e) is KafkaError]

    def _is_untimed(self) -> bool:
        return self._untimed_until_s is not None and clock.monotonic_s() < self._untimed_until_s

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
        failures: dict[int, BaseException] = {}
        for index in indices:
            record = records[index]
            if record.topic in unknown:
                failures[index] = unknown[record.topic]
                continue
            if record.partition is None or _is_known(producer, record):
                continue
            producer.refresh_metadata(timeout_s=max(0.0, reach_by_s - clock.monotonic_s()))
            if not _is_known(producer, record):
                failures[index] = _no_partition(record)
        return failures

    def _wait_until_known(self, topic: str, producer: ProducerClient, reach_by_s: float) -> None:
        left_s = max(0.0, reach_by_s - clock.monotonic_s())
        try:
            producer.wait_for_topic(topic, min(left_s, UNKNOWN_TOPIC_TIMEOUT_S) * 1000)
        except KafkaTimeoutError:
            if left_s <= UNKNOWN_TOPIC_TIMEOUT_S:
                raise
            self._topics.recreate(topic, deadline_s=reach_by_s)  # it may have been deleted
            producer.wait_for_topic(topic, max(0.0, reach_by_s - clock.monotonic_s()) * 1000)


def _start(
    producer: ProducerClient, records: Sequence[Record], indices: Sequence[int], timestamp_ms: int | None
) -> Sent:
    """Hand some of ``records`` to the producer, without a wait for Kafka's responses."""
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
            sent.failures[index] = _no_partition(record) if is_unknown_partition(e) else e
        else:
            sent.pending.append((index, future))
            if record.watch is not None:
                where = producer.partition_of(future)
                leader_epoch = producer.leader_epoch(where)
                sent.watched.append((record.watch, where, future, leader_epoch))
    return sent


def _partition(producer: ProducerClient, record: Record) -> int | None:
    if record.placement is None:
        return record.partition
    return partition_of(record.placement, len(producer.partitions_for(record.topic)))


def _is_known(producer: ProducerClient, record: Record) -> bool:
    """Whether a producer knows the partition that a record names."""
    return record.partition in (producer.known_partitions(record.topic) or ())


def _no_partition(record: Record) -> UnknownTopicOrPartitionError:
    """The error for a partition that the producer does not know. The caller may have newer metadata."""
    return UnknownTopicOrPartitionError(
        f"the topic {record.topic!r} has no partition {record.partition} in Kafka's metadata: the partition "
        "was just added, or the topic was recreated with fewer partitions"
    )
