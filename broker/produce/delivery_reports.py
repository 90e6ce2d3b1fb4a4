"""Waits for what Kafka says about records that are on their way."""

from __future__ import annotations

import time

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
from .send_batching import Sent

#: The producer reports a record's fate at its delivery timeout; this much later a silent future counts as
#: failed.
REPORT_GRACE_S = 5.0
#: How long an answer may be late before it is looked what Kafka says meanwhile.
POLL_INTERVAL_S = 0.25
#: How often it is looked whether a topic is gone.
LOOK_AGAIN_S = 1.0

#: What Kafka says about a record that the settings of its topic do not allow.
TOPIC_ERRORS = (InvalidRecordError, CorruptRecordError)
#: What is wrong with all records of this process.
_OF_ALL = (ClusterAuthorizationFailedError, InvalidTimestampError)
_GONE = (UnknownTopicOrPartitionError, UnknownTopicIdError)


class PartitionGone(UnknownTopicOrPartitionError):
    """A record is in a batch for a partition that its topic, created anew, does not have."""


def may_be_anothers(error: BaseException) -> bool:
    """Whether a record's failure may come of another one, which Kafka refuses for good.

    That one ends its producer and fails the batch that it is in.
    """
    if isinstance(error, RECORD_ERRORS) or type(error) is KafkaError:
        return True
    refused = isinstance(error, BrokerResponseError) and not error.retriable
    return refused and not isinstance(error, _OF_ALL)


class DeliveryReports:
    """The answers to the records of one call.

    Kafka's answer may be that a topic is not there: it was deleted, or created anew, since its producer has
    looked. The topic is then created again, and the producer, which still tries, finds it.

    Parameters:
      timeout_s: When the producer gives a record up.
    """

    def __init__(self, producer: ProducerClient, topics: Topics, *, timeout_s: float) -> None:
        self._producer = producer
        self._topics = topics
        self._timeout_s = timeout_s
        self._began_s = time.monotonic()
        self._looked_s: dict[str, float] = {}
        self._gone: set[TopicPartition] = set()

    def outcomes(self, sent: Sent) -> tuple[dict[int, BaseException], list[int]]:
        """Why some records failed, and which of these may have failed because of another one."""
        failures, suspects = dict(sent.failures), []
        silent_at_s = time.monotonic() + self._timeout_s + REPORT_GRACE_S
        for index, future in sent.pending:
            if future.succeeded():
                continue  # the usual case in bulk: most have their answer while the first are waited for
            try:
                self._wait(future, silent_at_s)
            except (KafkaError, BrokerConnectionError) as e:
                failures[index] = e
                if may_be_anothers(e):
                    suspects.append(index)
        for watch, partition, future in sent.watched:
            watch(partition, future.value.offset if future.succeeded() else None)
        return failures, suspects

    def _wait(self, future: SendFuture, silent_at_s: float) -> None:
        while True:
            left_s = max(0.0, silent_at_s - time.monotonic())
            if self._gone and not future.is_done:
                self._check_partition(future)  # many may be in one batch: the first has waited for all
            try:
                future.get(timeout=min(POLL_INTERVAL_S, left_s))
            except KafkaTimeoutError as e:
                if e is future.exception or left_s <= 0.0:
                    told = timed_out(e, self._answer_about(future))
                    raise told from told.__cause__
                if not future.is_done:
                    self._look(future, silent_at_s)
            else:
                return

    def _answer_about(self, future: SendFuture) -> BaseException | None:
        return self._producer.last_error(self._producer.partition_of(future), since_s=self._began_s)

    def _look(self, future: SendFuture, silent_at_s: float) -> None:
        """See to a topic that Kafka says it does not have.

        Raises:
          PartitionGone: When its producer can never get rid of the record.
          KafkaUnavailable, TopicMisconfigured: When the topic cannot be created again.
        """
        if not isinstance(self._answer_about(future), _GONE):
            return
        topic, partition = where = self._producer.partition_of(future)
        if time.monotonic() - self._looked_s.get(topic, 0.0) >= LOOK_AGAIN_S:
            self._topics.look_again(topic, deadline_s=silent_at_s)
            self._looked_s[topic] = time.monotonic()
        known = self._producer.known_partitions(topic)
        if known is not None and partition not in known:
            self._gone.add(where)
            self._check_partition(future)

    def _check_partition(self, future: SendFuture) -> None:
        topic, partition = where = self._producer.partition_of(future)
        if where in self._gone:
            raise PartitionGone(f"the topic {topic!r} has no partition {partition} any more")
