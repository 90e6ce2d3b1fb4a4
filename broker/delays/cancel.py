"""Asks the forwarder that answers for a message to drop it, and waits for what it decides.

The request is a record in the message's partition. Only the partition's forwarder decides, on the thread that
also forwards, so there is no moment at which a message is both forwarded and cancelled.
"""

from __future__ import annotations

import time
from contextlib import closing

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from ..clients import Clients
from ..publisher import Publisher, partition_of
from ..rights import not_published, reading
from ..topics import Topics
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
        doing = f"The decision about {message_id} could not be read"
        end = self._clients.ask(lambda: self._end_of(partition), doing, rights=reading(topic.name))
        request, record = cancel_request(topic.name, message_id, partition=number)
        for failure in self._publisher.publish([record]).values():
            raise not_published(f"Kafka did not acknowledge the cancel of {message_id}", failure) from failure
        deadline_s = time.monotonic() + timeout_s
        return self._clients.ask(
            lambda: self._decision(partition, end, request, deadline_s),
            doing,
            deadline_s=deadline_s,
            rights=reading(topic.name),
        )

    def _end_of(self, partition: TopicPartition) -> int:
        with closing(self._clients.consumer()) as kafka:
            kafka.assign([partition])
            end: int = kafka.end_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
            return end

    def _decision(
        self, partition: TopicPartition, start: int, request: CancelRequest, deadline_s: float
    ) -> Outcome:
        with closing(self._clients.consumer(auto_offset_reset="none")) as kafka:
            kafka.assign([partition])
            kafka.seek(partition, start)
            return _decision(kafka, request, deadline_s)


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
