"""Checks whether the topics of records exist, and whether they accept the records."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from dramatiq.errors import BrokerConnectionError

from ..errors import KafkaUnavailable, NotAuthorized, TopicMisconfigured
from ..kafka.clients import Clients
from ..kafka.errors import (
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from ..kafka.record_size import ROOM_BYTES, fits, headers_bound
from ..kafka.rights import Rights, is_denial
from ..kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from ..kafka.topics import Topics
from ..process.backoff import Backoff
from .delivery_reports import TOPIC_ERRORS
from .record import Record

logger = logging.getLogger(__name__)

#: The pause before another attempt to create the topic of a record's destination.
CREATE_BACKOFF_S = 60.0


class TopicChecks:
    """The checks of records before they are sent, and the explanation of those that Kafka refused."""

    def __init__(self, clients: Clients, topics: Topics) -> None:
        self._clients = clients
        self._topics = topics
        #: The destination topics that could not be created.
        self._uncreated: dict[str, Backoff] = {}

    def ensure(self, records: Sequence[Record], deadline_s: float) -> Mapping[str, BrokerConnectionError]:
        """Ensure the topics of ``records``. Return the topics that refuse records, each with the reason.

        Raises:
          KafkaUnavailable: When Kafka does not answer, or refuses to create a topic.
          NotAuthorized: When this client may not write to the only topic.
        """
        topics: set[str] = set()
        destinations: set[str] = set()
        for record in records:
            topics.add(record.topic)
            if record.destination is not None:
                destinations.add(record.destination.topic)
        if self._uncreated:
            destinations = {topic for topic in destinations if self._may_create(topic)}
        try:
            try:
                self._topics.ensure(topics | destinations, right="WRITE", deadline_s=deadline_s)
            except (KafkaUnavailable, NotAuthorized) as e:
                if destinations <= topics:
                    if isinstance(e, KafkaUnavailable) or len(topics) == 1:
                        raise
                    return self._ensure_each(topics, deadline_s)
                # The client that produces the destination records may have the right to create their topic.
                self._topics.ensure(topics, right="WRITE", deadline_s=deadline_s)
                backoff = Backoff(CREATE_BACKOFF_S)
                backoff.fail()
                self._uncreated |= dict.fromkeys(destinations - topics, backoff)
        except TopicMisconfigured:
            return self._topics.refusals(topics | destinations)
        return {}

    def refused(
        self, records: Sequence[Record], refusals: Mapping[str, BrokerConnectionError]
    ) -> dict[int, BaseException]:
        """The records that are not sent, by index: their topic loses messages, or never accepts them.

        Parameters:
          refusals: The result of :meth:`ensure`.
        """
        refused: dict[int, BaseException] = {}
        rooms: dict[str, int] = {}
        for index, record in enumerate(records):
            room = rooms.get(record.topic)
            if room is None:
                room = rooms[record.topic] = self._room_of(record.topic)
            size = len(record.value or b"") + len(record.key or b"") + record.reserved_bytes
            if record.headers:
                size += headers_bound(record.headers)
            if size <= room and record.destination is None and not refusals:
                continue  # the usual case
            for step in record.steps:
                reason = refusals.get(step.topic) or self._refusal_by_size(step)
                if reason is not None:
                    refused[index] = reason
                    break
        return refused

    def seems_to_fit(self, record: Record) -> bool:
        """Whether a record fits the known limits of its topic and its destinations. No request is made."""
        return self._clients.compresses or all(
            (limit := self._topics.limit_of(step.topic)) is None or step.fits(limit) for step in record.steps
        )

    def misconfigured(
        self, records: Sequence[Record], failures: Mapping[int, BaseException], deadline_s: float
    ) -> dict[int, BaseException]:
        """The failures that the settings of their topic caused, as far as Kafka returns those settings."""
        topics = {records[index].topic for index, e in failures.items() if isinstance(e, TOPIC_ERRORS)}
        try:
            self._topics.ensure(topics, deadline_s=deadline_s)
        except (KafkaUnavailable, NotAuthorized) as e:
            logger.info("The settings of %s could not be read: %s", sorted(topics), e)
        except TopicMisconfigured:
            refusals = self._topics.refusals(topics)
            return {index: refusals[t] for index in failures if (t := records[index].topic) in refusals}
        return {}

    def explained(self, record: Record, failure: BaseException) -> BaseException:
        """A failure as an error of this broker."""
        if isinstance(failure, MessageSizeTooLargeError | RecordListTooLargeError):
            reason: BaseException = self._why_too_large(record)
            return reason
        if isinstance(failure, KafkaError) and is_denial(failure):
            doing = f"Nothing could be put into the topic {record.topic!r}"
            return self._clients.translated(failure, doing, Rights((record.topic,), "WRITE"))
        return failure

    def _may_create(self, topic: str) -> bool:
        backoff = self._uncreated.get(topic)
        return backoff is None or backoff.is_over

    def _ensure_each(self, topics: Iterable[str], deadline_s: float) -> dict[str, BrokerConnectionError]:
        """Ensure each topic separately, so that one without the right to write does not block the others."""
        refusals: dict[str, BrokerConnectionError] = {}
        for topic in topics:
            try:
                self._topics.ensure([topic], right="WRITE", deadline_s=deadline_s)
            except (NotAuthorized, TopicMisconfigured) as e:
                refusals[topic] = e
        return refusals

    def _room_of(self, topic: str) -> int:
        """The bytes of a key, a value and headers that the producer and a topic accept for certain."""
        limit = self._topics.limit_of(topic)
        return min(MAX_DEAD_LETTER_BYTES, limit or MAX_DEAD_LETTER_BYTES) - ROOM_BYTES

    def _refusal_by_size(self, record: Record) -> MessageSizeTooLargeError | None:
        limit = self._topics.limit_of(record.topic)
        if not fits(record.key, record.value, record.headers, MAX_DEAD_LETTER_BYTES):
            return _too_large(record, limit)  # the producer refuses it, whatever its topic accepts
        if limit is None or record.fits(limit) or self._clients.compresses:
            return None
        limit = self._topics.max_message_bytes(record.topic)  # an operator may have raised it meanwhile
        return None if limit is None or record.fits(limit) else _too_large(record, limit)

    def _why_too_large(self, record: Record) -> MessageSizeTooLargeError:
        limit = self._topics.limit_of(record.topic)
        if limit is None or record.fits(limit):  # the limit was changed
            limit = self._topics.max_message_bytes(record.topic, max_age_s=0.0)
        return _too_large(record, limit)


def _too_large(record: Record, limit: int | None) -> MessageSizeTooLargeError:
    """Kafka's error with the size and the limit, which Kafka's own text lacks."""
    takes = "its max.message.bytes" if limit is None else f"{limit:,} bytes (its max.message.bytes)"
    if limit is not None and record.fits(limit):
        takes += f", but no client of this broker sends more than {MAX_DEAD_LETTER_BYTES:,} bytes"
    return MessageSizeTooLargeError(
        f"its record has {record.size:,} bytes, and the topic {record.topic!r} takes {takes}"
    )
