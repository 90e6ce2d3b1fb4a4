"""Produces records to Kafka, and reports for each record whether Kafka has acknowledged it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ..errors import RECORD_ERRORS, KafkaUnavailable, NotAuthorized, TopicMisconfigured
from ..kafka.clients import Clients
from ..kafka.errors import IllegalStateError
from ..kafka.protocol import ProducerClient
from ..kafka.rights import denied_topics, is_denial, not_published
from ..kafka.topics import Topics
from ..process import clock, forks
from .delivery_reports import PartitionGone
from .disposable_producer import DisposableProducer, close_producer
from .record import Record
from .record_sender import RecordSender
from .topic_checks import TopicChecks

logger = logging.getLogger(__name__)

#: Failures of the producer, not of the records: another producer is used at once.
_UNSENT = (IllegalStateError, PartitionGone)


class Publisher:
    """A thread-safe producer that survives forks and outages.

    A call returns within ``timeout_ms`` while Kafka is unreachable, independent of other threads, and within
    twice that time when Kafka becomes unreachable while the records are in flight.

    A producer with a failure is replaced (see ``DisposableProducer``). No call waits for less than the
    delivery timeout: it could not tell whether the record is still in flight.

    Parameters:
      timeout_ms: The timeout of the connection to Kafka, and again of the acknowledgement of a record.
      linger_ms: The time for which the producer waits for more records to share a request; 0 sends at once.
    """

    def __init__(self, clients: Clients, topics: Topics, *, timeout_ms: int, linger_ms: int = 0) -> None:
        self._topics = topics
        self._timeout_s = timeout_ms / 1000
        self._checks = TopicChecks(clients, topics)
        self._producers = DisposableProducer(clients, timeout_ms=timeout_ms, linger_ms=linger_ms)
        self._sender = RecordSender(topics, timeout_ms=timeout_ms)

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        """Produce all ``records`` with one wait and return why some failed, by their index.

        An empty result means that Kafka has acknowledged all of them. A failure raises no error: the caller
        decides which failures matter.
        """
        if not records:
            return {}
        forks.check_for_fork()
        reach_by_s = clock.monotonic_s() + self._timeout_s
        try:
            refusals = self._checks.ensure(records, reach_by_s)
        except (KafkaUnavailable, NotAuthorized) as e:
            return dict.fromkeys(range(len(records)), e)
        refused = self._checks.refused(records, refusals)
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
            self._checks.ensure(records, clock.monotonic_s() + self._timeout_s)
        except NotAuthorized:
            return {}  # publish() returns it for the records concerned
        return self._checks.refused(records, {})

    def seems_to_fit(self, record: Record) -> bool:
        """Whether a record fits the known limits of its topic and its destinations. No request is made."""
        return self._checks.seems_to_fit(record)

    def close(self) -> None:
        """Close the producer. No record is in flight: each call has waited for its records."""
        forks.check_for_fork()
        self._producers.close()

    def replace_producer(self) -> None:
        """Replace the producer.

        A log that lost its tail lost the state of its producers with it. It refuses the next record of each
        producer, and kafka-python retries until its timeout.
        """
        self._producers.retire_current()

    def _publish(self, records: Sequence[Record], reach_by_s: float) -> dict[int, BaseException]:
        if not records:
            return {}
        failures: dict[int, BaseException] = {}
        unclear: Sequence[int] = range(len(records))
        try:
            producer = self._producers.current(reach_by_s)
            failures, unclear = self._sender.send(producer, records, unclear, reach_by_s)
            if not failures:
                return {}
            for select in (_unsent, self._sender.mistimed):
                again = select(failures)
                if not again:
                    continue
                if not all(isinstance(failures[index], IllegalStateError) for index in again):
                    self._producers.retire(producer)  # else another thread has replaced it
                producer = self._producers.current(reach_by_s)
                failed, more = self._sender.send(producer, records, again, reach_by_s)
                unclear = [*(index for index in unclear if index not in again), *more]
                failures = {index: e for index, e in failures.items() if index not in again} | failed
            if failures:
                unclear = self._replace(producer, records, failures, unclear, reach_by_s)
            if unclear:
                self._bisect_failures(records, unclear, failures, reach_by_s + self._timeout_s)
        except KafkaUnavailable as e:
            failures.update(dict.fromkeys(unclear, e))
        return {index: self._checks.explained(records[index], e) for index, e in failures.items()}

    def _replace(
        self,
        producer: ProducerClient,
        records: Sequence[Record],
        failures: dict[int, BaseException],
        unclear: Sequence[int],
        reach_by_s: float,
    ) -> list[int]:
        """Replace a producer that is of no use after ``failures``.

        Returns:
          The unclear failures that are left: neither denied nor refused for their topic's settings.
        """
        denied = {index for index, e in failures.items() if _is_denied(records[index], e)}
        unclear = [index for index in unclear if index not in denied]
        others = [e for index, e in failures.items() if index not in denied]
        if unclear or any(not isinstance(e, RECORD_ERRORS) for e in others):
            logger.warning("Kafka did not acknowledge all records; the producer is replaced.")
            self._producers.retire(producer)
            self._topics.forget({record.topic for record in records})
            failures |= self._checks.misconfigured(records, failures, reach_by_s)
            return [index for index in unclear if not isinstance(failures[index], TopicMisconfigured)]
        if denied:
            self._producers.retire(producer)
        return unclear

    def _bisect_failures(
        self,
        records: Sequence[Record],
        unclear: Sequence[int],
        failures: dict[int, BaseException],
        deadline_s: float,
    ) -> None:
        """Remove the failures from ``failures`` that another record caused.

        A record that Kafka refuses for good ends its producer. All records in flight, of this call or of
        another thread, fail with its error. They are sent again in halves, each by its own producer, until
        only the refused records fail. Some records arrive twice, with the same message id.
        """
        groups = _halves(unclear)
        while groups and clock.monotonic_s() < deadline_s:
            group = groups.pop()
            producer = self._producers.construct(deadline_s)
            failed, unclear = self._sender.send(producer, records, group, deadline_s)
            close_producer(producer)
            for index in group:
                failures.pop(index, None)
            failures.update(failed)
            if len(group) > 1:
                groups += _halves(unclear)


def publish_all(publisher: Publisher, records: Sequence[Record], doing: str) -> None:
    """Produce ``records``, all of which have to be acknowledged.

    Parameters:
      doing: What failed otherwise, for the error's text: ``"The topic 'x' could not be flushed"``.

    Raises:
      KafkaUnavailable, NotAuthorized: When Kafka did not acknowledge one of them.
    """
    for failure in publisher.publish(records).values():
        raise not_published(doing, failure) from failure


def _unsent(failures: Mapping[int, BaseException]) -> list[int]:
    """The failures that another producer may avoid."""
    return [index for index, e in failures.items() if isinstance(e, _UNSENT)]


def _is_denied(record: Record, error: BaseException) -> bool:
    """Whether Kafka denies access to this record's topic, and not to that of another record."""
    return is_denial(error) and (denied_topics(error) or {record.topic}) == {record.topic}


def _halves(indices: Sequence[int]) -> list[Sequence[int]]:
    middle = len(indices) // 2
    return [half for half in (indices[:middle], indices[middle:]) if half]
