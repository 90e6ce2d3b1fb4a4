"""One step of forwarding: produces due messages, tombstones, and cancel decisions of the owned partitions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dramatiq.errors import BrokerConnectionError

from ..errors import RECORD_ERRORS, KafkaUnavailable, NotAuthorized, TopicMisconfigured
from ..kafka.errors import MessageSizeTooLargeError
from ..kafka.rights import Denials
from ..kafka.topics import Topics
from ..process import clock
from ..produce.delivery_reports import TOPIC_ERRORS
from ..produce.publisher import Publisher
from ..produce.record import Record
from .index import PendingTombstone, Progress
from .index_schema import Row
from .owned_partition import OwnedPartition
from .record_format import CancelDecision, Delay, cancel_decision, cancel_forgotten, tombstone

logger = logging.getLogger(__name__)

#: The size of a page: new records wait for it, and a crash can repeat it.
PAGE_ROWS = 500
PAGE_BYTES = 4 * 1024 * 1024
#: The backoff of a message whose forward failed.
FAILED_BACKOFF_S = 0.5
#: The backoff of a message whose queue this client may not write to.
DENIED_BACKOFF_S = 5.0
#: The backoff of a message that its queue's topic refuses (by a rule of its own, for example): only an
#: operator can change that.
REFUSED_BACKOFF_S = 60.0
#: The time for which the outcome of a cancel can be read.
OUTCOME_RETENTION_MS = 7 * 24 * 3600 * 1000


class DeadLettered(Protocol):
    """A message that is being dead-lettered. It is ``completed`` once Kafka has its dead letter."""

    completed: bool


WriteDeadLetter = Callable[[Delay, BaseException], DeadLettered]
NoteForward = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class _Task:
    """A record to publish, and its subject.

    Attributes:
      subject: The delay to forward, the delay that needs its tombstone, or the decision to publish; None for
        a decision to forget.
    """

    record: Record
    subject: Row | PendingTombstone | CancelDecision | None


class Forwarding:
    """Completes delays and cancel requests, a page at a time.

    The index notes each acknowledged record, and a noted record is not produced again. One step forwards a
    page and writes its tombstones, so a partition that is revoked between two steps leaves no work half done.

    Parameters:
      add_dead_letter, note_forward: See ``Delays``.
      clock: A monotonic clock in seconds, for backoffs.
    """

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        add_dead_letter: WriteDeadLetter | None = None,
        *,
        note_forward: NoteForward = lambda lateness_s: None,
        clock: Callable[[], float] = lambda: clock.monotonic_s(),
    ) -> None:
        self._clock = clock
        self._note_forward = note_forward
        self._topics = topics
        self.publisher = publisher
        self._add_dead_letter = add_dead_letter
        #: The messages that are being dead-lettered, by the id of their delay.
        self._dead_lettered: dict[str, DeadLettered] = {}
        self._denials = Denials()
        #: The topics that could not be created in this step.
        self._missing: dict[str, BrokerConnectionError] = {}

    def step(self, ready: Sequence[OwnedPartition], now_ms: int) -> BaseException | None:
        """Publish a page of messages, tombstones and decisions.

        Returns:
          Why no record was published; None when one was, or there was no work.
        """
        self._missing = {}
        shares = len(ready)
        forwarded, failure = self._publish(
            ready, lambda owned, noted: self._forwards(owned, noted, now_ms, shares)
        )
        own_records, other_failure = self._publish(ready, lambda owned, _: self._own_records(owned, now_ms))
        if forwarded + own_records:
            return None
        return failure or other_failure or next(iter(self._missing.values()), None)

    def _publish(
        self,
        ready: Sequence[OwnedPartition],
        tasks_of: Callable[[OwnedPartition, Progress], Iterator[_Task]],
    ) -> tuple[int, BaseException | None]:
        """Publish the tasks of each partition, and note the results in its index.

        Returns:
          The number of tasks that are done, and why one is not.
        """
        progress = [Progress() for _ in ready]
        tasks = [
            (noted, task)
            for owned, noted in zip(ready, progress, strict=True)
            for task in tasks_of(owned, noted)
        ]
        failures = self.publisher.publish([task.record for _, task in tasks])
        now_ms = clock.wall_ms()
        for number, (noted, task) in enumerate(tasks):
            if isinstance(task.subject, Row) and self._starts_dead_letter(task.subject, failures.get(number)):
                noted.postponed.append((task.subject, self._clock() + FAILED_BACKOFF_S))
                del failures[number]
            else:
                self._note_denial(task, failures.get(number))
                _note(noted, task, failures.get(number), self._clock())
                if isinstance(task.subject, Row) and number not in failures:
                    self._note_forward((now_ms - task.subject.delay.due_ms) / 1000)
        for owned, noted in zip(ready, progress, strict=True):
            owned.index.note(noted)
        return len(tasks) - len(failures), next(iter(failures.values()), None)

    def _forwards(self, owned: OwnedPartition, noted: Progress, now_ms: int, shares: int) -> Iterator[_Task]:
        """The due messages of a partition. All partitions have the same share of a page, whatever their
        backlog.
        """
        tried = []
        limit, limit_bytes, now_s = PAGE_ROWS // shares + 1, PAGE_BYTES // shares, self._clock()
        for row in owned.index.due(now_ms, limit=limit, limit_bytes=limit_bytes, now_s=now_s):
            if (dead_lettered := self._dead_lettered.get(row.delay.id)) is not None:
                if dead_lettered.completed:
                    del self._dead_lettered[row.delay.id]
                    noted.forwarded.append(row)
                else:
                    noted.postponed.append((row, now_s + FAILED_BACKOFF_S))
            elif self._exists(self._topics.queue(row.delay.queue)):
                tried.append(row)
            else:
                noted.postponed.append((row, now_s + FAILED_BACKOFF_S))
        owned.index.note_tried(tried)
        for row in tried:
            delay = row.delay
            record = Record(
                self._topics.queue(delay.queue), delay.value, key=delay.key, headers=list(delay.headers)
            )
            yield _Task(record, row)

    def _note_denial(self, task: _Task, failure: BaseException | None) -> None:
        if isinstance(failure, NotAuthorized):
            self._denials.note(_denied_activity(task.record.topic), failure)
        elif failure is None:
            self._denials.is_over(_denied_activity(task.record.topic))

    def _starts_dead_letter(self, row: Row, failure: BaseException | None) -> bool:
        """Start to dead-letter a message that its queue never takes. It stays here until Kafka has the dead
        letter.
        """
        if self._add_dead_letter is None or not isinstance(failure, MessageSizeTooLargeError):
            return False
        self._dead_lettered[row.delay.id] = self._add_dead_letter(row.delay, failure)
        return True

    def _exists(self, topic: str) -> bool:
        """Whether the topic exists by now. One that cannot be created must not block the rest of the page."""
        if topic not in self._missing:
            try:
                self._topics.ensure([topic], right="WRITE")
            except TopicMisconfigured as e:
                self._topics.log_refusal(e)
                self._missing[topic] = e
            except NotAuthorized as e:
                self._denials.note(_denied_activity(topic), e)
                self._missing[topic] = e
            except KafkaUnavailable as e:
                logger.info("Delayed messages for %r cannot be forwarded yet: %s", topic, e)
                self._missing[topic] = e
        return topic not in self._missing

    def _own_records(self, owned: OwnedPartition, now_ms: int) -> Iterator[_Task]:
        """The records for the partition itself: tombstones and decisions."""
        topic, partition = owned.partition
        for done in owned.index.pending_tombstones(PAGE_ROWS):
            yield _Task(tombstone(topic, done.id, done.outcome, partition=partition), done)
        for decision in owned.index.to_publish(PAGE_ROWS):
            yield _Task(cancel_decision(topic, decision, partition=partition), decision)
        for request_id in owned.index.to_forget(now_ms - OUTCOME_RETENTION_MS, PAGE_ROWS):
            yield _Task(cancel_forgotten(topic, request_id, partition=partition), None)


def _denied_activity(topic: str) -> str:
    return f"Delayed messages cannot be forwarded to {topic!r}"


def _note(progress: Progress, task: _Task, failure: BaseException | None, now_s: float) -> None:
    match task.subject:
        case Row() as row if failure is None:
            progress.forwarded.append(row)
        case Row() as row if isinstance(failure, (*RECORD_ERRORS, *TOPIC_ERRORS)):
            logger.error(
                "Kafka refuses the delayed message %s; it stays in the delayed topic: %r",
                row.delay.message_id,
                failure,
            )
            progress.postponed.append((row, now_s + REFUSED_BACKOFF_S))
        case Row() as row if isinstance(failure, NotAuthorized):
            progress.postponed.append((row, now_s + DENIED_BACKOFF_S))
        case Row() as row:
            progress.postponed.append((row, now_s + FAILED_BACKOFF_S))
        case PendingTombstone() as tombstone if failure is None:
            progress.tombstones.append(tombstone)
        case CancelDecision() as decision if failure is None:
            progress.published.append(decision)
