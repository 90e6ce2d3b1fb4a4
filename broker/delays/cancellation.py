"""Cancelling a delayed message: the client writes a request, and waits for the forwarder's decision.

The request is a record in the message's partition. Only the forwarder that owns the partition decides. It
decides on its forwarding thread, so a message is never both forwarded and cancelled.

The message id and the partition count determine the partition of a message. A message that was delayed before
partitions were added is in another partition. If the first partition does not know the message, the client
asks the other partitions.
"""

from __future__ import annotations

from contextlib import closing

from ..kafka.clients import Clients
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import reading
from ..kafka.topics import Topics
from ..kafka.types import TopicPartition
from ..process import clock
from ..produce.publisher import Publisher, publish_all
from ..produce.record import partition_of
from .delayed_topic import look_up
from .record_format import CancelDecision, CancelNote, Outcome, cancel_request, strongest
from .topic_reading import REQUEST_TIMEOUT_MS, entries_of


class CancelUndecided(TimeoutError):
    """No forwarder has decided in time: no worker runs, or its forwarder is still rebuilding its index. The
    request stands."""


class CancelClient:
    """Writes cancel requests and reads the decisions."""

    def __init__(self, clients: Clients, topics: Topics, publisher: Publisher) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher

    def cancel(self, message_id: str, note: CancelNote, *, timeout_s: float) -> Outcome:
        """See ``Delays.cancel``."""
        topic = look_up(self._clients, self._topics)
        number = partition_of(message_id.encode(), topic.partition_count)
        outcome = self._request(topic.name, message_id, note, [number], timeout_s)
        others = [other for other in range(topic.partition_count) if other != number]
        if outcome is Outcome.UNKNOWN and others:
            outcome = self._request(topic.name, message_id, note, others, timeout_s)
        return outcome

    def _request(
        self, topic: str, message_id: str, note: CancelNote, numbers: list[int], timeout_s: float
    ) -> Outcome:
        partitions = [TopicPartition(topic, number) for number in numbers]
        doing = f"The decision about {message_id} could not be read"
        ends = self._clients.ask(lambda: self._ends_of(partitions), doing, rights=reading(topic))
        asked = [cancel_request(topic, message_id, partition=number, note=note) for number in numbers]
        records = [record for _, record in asked]
        publish_all(self._publisher, records, f"Kafka did not acknowledge the cancel of {message_id}")
        requests = {request.id for request, _ in asked}
        deadline_s = clock.monotonic_s() + timeout_s  # from now on a forwarder can decide
        return self._clients.ask(
            lambda: self._decision(ends, message_id, requests, deadline_s),
            doing,
            deadline_s=deadline_s,
            rights=reading(topic),
        )

    def _ends_of(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        with closing(self._clients.consumer()) as kafka:
            kafka.assign(partitions)
            ends: dict[TopicPartition, int] = kafka.end_offsets(partitions, timeout_ms=REQUEST_TIMEOUT_MS)
            return ends

    def _decision(
        self, starts: dict[TopicPartition, int], message_id: str, requests: set[str], deadline_s: float
    ) -> Outcome:
        with closing(self._clients.consumer(auto_offset_reset="none")) as kafka:
            kafka.assign(list(starts))
            for partition, start in starts.items():
                kafka.seek(partition, start)
            return _decision(kafka, message_id, requests, deadline_s)


def _decision(kafka: ConsumerClient, message_id: str, requests: set[str], deadline_s: float) -> Outcome:
    """The decision of the forwarders together: the message is cancelled if one forwarder cancelled it."""
    decided: dict[str, Outcome] = {}
    while (left_s := deadline_s - clock.monotonic_s()) > 0:
        for records in kafka.poll(timeout_ms=left_s * 1000).values():
            for entry in entries_of(records):
                if isinstance(entry, CancelDecision) and entry.id in requests:
                    decided[entry.id] = entry.outcome
        if Outcome.CANCELLED in decided.values() or decided.keys() == requests:
            outcome = strongest(decided.values())
            assert outcome is not None
            return outcome
    raise CancelUndecided(
        f"No forwarder has decided about {message_id} yet. The request stands until a worker runs "
        "and decides; read the outcome then."
    )
