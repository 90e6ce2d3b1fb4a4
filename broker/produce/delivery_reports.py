"""Waits for Kafka's responses to the records in flight."""

from __future__ import annotations

from dramatiq.errors import BrokerConnectionError

from ..errors import RECORD_ERRORS
from ..kafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    KafkaError,
    KafkaTimeoutError,
    UnknownTopicIdError,
    UnknownTopicOrPartitionError,
)
from ..kafka.producer_errors import timed_out
from ..kafka.protocol import ProducerClient, SendFuture
from ..kafka.topics import Topics
from ..kafka.types import TopicPartition
from ..process import clock
from .send_batching import Sent

#: The producer reports a failed record at its delivery timeout. A future without a result counts as failed
#: this much later.
REPORT_GRACE_S = 5.0
#: The interval in which a late response makes this process check the producer's errors.
POLL_INTERVAL_S = 0.25
#: The interval of the check whether a topic was deleted.
TOPIC_CHECK_INTERVAL_S = 1.0

#: Kafka's errors for a record that the settings of its topic do not allow.
TOPIC_ERRORS = (InvalidRecordError, CorruptRecordError)
#: Errors that concern all records of this process.
_OF_ALL = (ClusterAuthorizationFailedError, InvalidTimestampError)
_GONE = (UnknownTopicOrPartitionError, UnknownTopicIdError)


class PartitionGone(UnknownTopicOrPartitionError):
    """A record is in a batch for a partition that its recreated topic does not have."""


def may_be_collateral(error: BaseException) -> bool:
    """Whether another record, which Kafka refuses for good, may have caused a record's failure.

    A refused record ends its producer and fails its batch.
    """
    if isinstance(error, RECORD_ERRORS) or type(error) is KafkaError:
        return True
    refused = isinstance(error, BrokerResponseError) and not error.retriable
    return refused and not isinstance(error, _OF_ALL)


class DeliveryReports:
    """The responses to the records of one call.

    Kafka may respond that a topic does not exist: it was deleted or recreated after the producer fetched its
    metadata. The topic is then created again, and the producer, which still retries, finds it.

    Parameters:
      timeout_s: The delivery timeout of the producer.
    """

    def __init__(self, producer: ProducerClient, topics: Topics, *, timeout_s: float) -> None:
        self._producer = producer
        self._topics = topics
        self._timeout_s = timeout_s
        self._began_s = clock.monotonic_s()
        self._checked_s: dict[str, float] = {}
        self._gone: set[TopicPartition] = set()

    def outcomes(self, sent: Sent) -> tuple[dict[int, BaseException], list[int]]:
        """The failures by index, and the indices of those that another record may have caused."""
        failures, unclear = dict(sent.failures), []
        silent_at_s = clock.monotonic_s() + self._timeout_s + REPORT_GRACE_S
        for index, future in sent.pending:
            if future.succeeded():
                continue  # the usual case in bulk: most responses arrive during the wait for the first
            try:
                self._wait(future, silent_at_s)
            except (KafkaError, BrokerConnectionError) as e:
                failures[index] = e
                if may_be_collateral(e):
                    unclear.append(index)
        for watch, where, future, leader_epoch in sent.watched:
            if leader_epoch != self._producer.leader_epoch(where):
                leader_epoch = None  # an election took place: the record may be older or newer than it
            watch(
                where.partition,
                future.value.offset if future.succeeded() else None,
                -1 if leader_epoch is None else leader_epoch,
            )
        return failures, unclear

    def _wait(self, future: SendFuture, silent_at_s: float) -> None:
        while True:
            left_s = max(0.0, silent_at_s - clock.monotonic_s())
            if self._gone and not future.is_done:
                self._check_partition(future)  # a batch may hold many records: the first has waited for all
            try:
                future.get(timeout=min(POLL_INTERVAL_S, left_s))
            except KafkaTimeoutError as e:
                if e is future.exception or left_s <= 0.0:
                    error = timed_out(e, self._error_of(future))
                    raise error from error.__cause__
                if not future.is_done:
                    self._check_topic(future, silent_at_s)
            else:
                return

    def _error_of(self, future: SendFuture) -> BaseException | None:
        return self._producer.last_error(self._producer.partition_of(future), since_s=self._began_s)

    def _check_topic(self, future: SendFuture, silent_at_s: float) -> None:
        """Create a topic again that does not exist, according to Kafka's response.

        Raises:
          PartitionGone: When the producer can never send the record, since its partition does not exist.
          KafkaUnavailable, TopicMisconfigured: When the topic cannot be created again.
        """
        if not isinstance(self._error_of(future), _GONE):
            return
        topic, partition = where = self._producer.partition_of(future)
        if clock.monotonic_s() - self._checked_s.get(topic, 0.0) >= TOPIC_CHECK_INTERVAL_S:
            self._topics.recreate(topic, deadline_s=silent_at_s)
            self._checked_s[topic] = clock.monotonic_s()
        known = self._producer.known_partitions(topic)
        if known is not None and partition not in known:
            self._gone.add(where)
            self._check_partition(future)

    def _check_partition(self, future: SendFuture) -> None:
        topic, partition = where = self._producer.partition_of(future)
        if where in self._gone:
            raise PartitionGone(f"the topic {topic!r} has no partition {partition} any more")
