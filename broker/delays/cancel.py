"""Asks the forwarder that answers for a message to drop it, and waits for what it decides.

The request is a record in the message's partition. Only the partition's forwarder decides, on the thread that
also forwards, so there is no moment at which a message is both forwarded and cancelled.
"""

from __future__ import annotations

import time

from kafka import KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from ..clients import Clients
from ..errors import KafkaUnavailable
from ..publisher import Publisher, partition_of
from ..topics import Topics
from ..unreadable import explained
from .partitions import REQUEST_TIMEOUT_MS, entries_of
from .records import CancelDecision, CancelRequest, Outcome, cancel_request
from .topic import look_up


class CancelUndecided(TimeoutError):
    """No forwarder has decided in time: no worker runs, or it is still reading its index. The request
    stands."""


class Cancelling:
    """The asking side."""

    def __init__(self, clients: Clients, topics: Topics, publisher: Publisher) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher

    def cancel(self, message_id: str, *, timeout_s: float) -> Outcome:
        """See ``Delays.cancel``."""
        topic = look_up(self._clients, self._topics)
        number = partition_of(message_id.encode(), topic.partition_count)
        partition = TopicPartition(topic.name, number)
        try:
            kafka = self._clients.consumer(auto_offset_reset="none")
            try:
                kafka.assign([partition])
                kafka.seek(
                    partition, kafka.end_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
                )
                request, record = cancel_request(topic.name, message_id, partition=number)
                if failures := self._publisher.publish([record]):
                    raise KafkaUnavailable(f"Kafka did not acknowledge the cancel: {failures[0]!r}")
                return _decision(kafka, request, time.monotonic() + timeout_s)
            finally:
                kafka.close(autocommit=False)
        except KafkaError as e:
            raise KafkaUnavailable(
                f"The decision about {message_id} could not be read: {explained(e)}"
            ) from e


def _decision(kafka: KafkaConsumer, request: CancelRequest, deadline_s: float) -> Outcome:
    while (left_s := deadline_s - time.monotonic()) > 0:
        for records in kafka.poll(timeout_ms=left_s * 1000).values():
            for entry in entries_of(records):
                if isinstance(entry, CancelDecision) and entry.id == request.id:
                    return entry.outcome
    raise CancelUndecided(
        f"No forwarder has decided about {request.message_id} yet. The request stands and is decided when a "
        "worker runs; read the outcome then."
    )
