"""What is done about the delays of the partitions at hand: forward, settle, tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dramatiq.errors import BrokerConnectionError

from ..errors import RECORD_ERRORS, KafkaUnavailable, NotAuthorized, TopicMisconfigured
from ..kafka.errors import MessageSizeTooLargeError
from ..kafka.rights import Denials
from ..kafka.topics import Topics
from ..produce.delivery_reports import TOPIC_ERRORS
from ..produce.publisher import Publisher, Record
from .index import PendingTombstone, Progress, Row
from .owned_partitions import OwnedPartition
from .record_format import CancelDecision, Delay, cancel_decision, cancel_forgotten, tombstone

logger = logging.getLogger(__name__)

#: What is forwarded at once: the step in which new records wait, and what a crash can repeat.
PAGE_ROWS = 500
PAGE_BYTES = 4 * 1024 * 1024
#: Until the next attempt for a message that could not be forwarded.
FAILED_BACKOFF_S = 0.5
#: The same, for one whose queue this client may not write to: how soon it is noticed that it may.
DENIED_BACKOFF_S = 5.0
#: The same, for one that its queue's topic refuses (by a rule of its own, say): only an operator can help.
REFUSED_BACKOFF_S = 60.0
#: How long the outcome of a cancel can be read.
OUTCOME_RETENTION_MS = 7 * 24 * 3600 * 1000


class DeadLettered(Protocol):
    """A message on its way to the dead letters."""

    completed: bool


WriteDeadLetter = Callable[[Delay, BaseException], DeadLettered]


@dataclass(frozen=True, slots=True)
class _Task:
    """A record to publish, and what it is about: a delay to forward, one to settle, a request to answer, or
    (None) an answer to forget.
    """

    record: Record
    about: Row | PendingTombstone | CancelDecision | None


class Forwarding:
    """Brings delays and cancel requests to their end, a page at a time.

    What Kafka has acknowledged is noted in the index, and what is noted is not done again. A page is
    forwarded and settled in one step: between two steps a partition can be given away, and nothing is done
    twice.

    Parameters:
      bury: See ``Delays``.
      clock: What pauses after failures go by, in seconds: one that nobody sets.
    """

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        add_dead_letter: WriteDeadLetter | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._topics = topics
        self.publisher = publisher
        self._bury = add_dead_letter
        #: What is on its way to the dead letters, by the delay's id.
        self._buried: dict[str, DeadLettered] = {}
        self._denials = Denials()
        #: The topics that could not be created in this step.
        self._missing: dict[str, BrokerConnectionError] = {}

    def step(self, ready: Sequence[OwnedPartition], now_ms: int) -> BaseException | None:
        """Do a page of what there is to do.

        Returns:
          Why nothing of it was done; None when something was, or there was nothing to do.
        """
        self._missing = {}
        shares = len(ready)
        forwarded, why_not = self._do(
            ready, lambda owned, noted: self._forwards(owned, noted, now_ms, shares)
        )
        settled, why_not_either = self._do(ready, lambda owned, _: self._answers(owned, now_ms))
        if forwarded + settled:
            return None
        return why_not or why_not_either or next(iter(self._missing.values()), None)

    def _do(
        self,
        ready: Sequence[OwnedPartition],
        tasks_of: Callable[[OwnedPartition, Progress], Iterator[_Task]],
    ) -> tuple[int, BaseException | None]:
        """Publish what there is to do for each partition, and note what came of it.

        Returns:
          How much was done, and why something was not.
        """
        progress = [Progress() for _ in ready]
        tasks = [
            (noted, task)
            for owned, noted in zip(ready, progress, strict=True)
            for task in tasks_of(owned, noted)
        ]
        failures = self.publisher.publish([task.record for _, task in tasks])
        for number, (noted, task) in enumerate(tasks):
            if isinstance(task.about, Row) and self._begin_to_bury(task.about, failures.get(number)):
                noted.postponed.append((task.about, self._clock() + FAILED_BACKOFF_S))
                del failures[number]
            else:
                self._note_denial(task, failures.get(number))
                _note(noted, task, failures.get(number), self._clock())
        for owned, noted in zip(ready, progress, strict=True):
            owned.index.note(noted)
        return len(tasks) - len(failures), next(iter(failures.values()), None)

    def _forwards(self, owned: OwnedPartition, noted: Progress, now_ms: int, shares: int) -> Iterator[_Task]:
        """What is due. Each partition has the same share of a page, however long its backlog."""
        tried = []
        limit, limit_bytes, now_s = PAGE_ROWS // shares + 1, PAGE_BYTES // shares, self._clock()
        for row in owned.index.due(now_ms, limit=limit, limit_bytes=limit_bytes, now_s=now_s):
            if (buried := self._buried.get(row.delay.id)) is not None:
                if buried.completed:
                    del self._buried[row.delay.id]
                    noted.forwarded.append(row)
                else:
                    noted.postponed.append((row, now_s + FAILED_BACKOFF_S))
            elif self._is_there(self._topics.queue(row.delay.queue)):
                tried.append(row)
            else:
                noted.postponed.append((row, now_s + FAILED_BACKOFF_S))
        owned.index.mark_tried(tried)
        for row in tried:
            delay = row.delay
            record = Record(
                self._topics.queue(delay.queue), delay.value, key=delay.key, headers=list(delay.headers)
            )
            yield _Task(record, row)

    def _note_denial(self, task: _Task, failure: BaseException | None) -> None:
        if isinstance(failure, NotAuthorized):
            self._denials.note(_part(task.record.topic), failure)
        elif failure is None:
            self._denials.is_over(_part(task.record.topic))

    def _begin_to_bury(self, row: Row, failure: BaseException | None) -> bool:
        """Let the dead letters have a message that its queue never takes; it waits here until they do."""
        if self._bury is None or not isinstance(failure, MessageSizeTooLargeError):
            return False
        self._buried[row.delay.id] = self._bury(row.delay, failure)
        return True

    def _is_there(self, topic: str) -> bool:
        """Whether the topic is there by now. One that cannot be created must not hold up the others' page."""
        if topic not in self._missing:
            try:
                self._topics.ensure([topic], right="WRITE")
            except TopicMisconfigured as e:
                self._topics.say(e)
                self._missing[topic] = e
            except NotAuthorized as e:
                self._denials.note(_part(topic), e)
                self._missing[topic] = e
            except KafkaUnavailable as e:
                logger.info("Delayed messages for %r wait on: %s", topic, e)
                self._missing[topic] = e
        return topic not in self._missing

    def _answers(self, owned: OwnedPartition, now_ms: int) -> Iterator[_Task]:
        """What goes back into the partition itself."""
        topic, partition = owned.partition
        for done in owned.index.to_settle(PAGE_ROWS):
            yield _Task(tombstone(topic, done.id, done.outcome, partition=partition), done)
        for decision in owned.index.to_tell(PAGE_ROWS):
            yield _Task(cancel_decision(topic, decision, partition=partition), decision)
        for request_id in owned.index.to_forget(now_ms - OUTCOME_RETENTION_MS, PAGE_ROWS):
            yield _Task(cancel_forgotten(topic, request_id, partition=partition), None)


def _part(topic: str) -> str:
    return f"Delayed messages cannot be put into {topic!r}"


def _note(progress: Progress, task: _Task, failure: BaseException | None, now_s: float) -> None:
    match task.about:
        case Row() as row if failure is None:
            progress.forwarded.append(row)
        case Row() as row if isinstance(failure, (*RECORD_ERRORS, *TOPIC_ERRORS)):
            logger.error(
                "Kafka refuses the delayed message %s; it is kept: %r", row.delay.message_id, failure
            )
            progress.postponed.append((row, now_s + REFUSED_BACKOFF_S))
        case Row() as row if isinstance(failure, NotAuthorized):
            progress.postponed.append((row, now_s + DENIED_BACKOFF_S))
        case Row() as row:
            progress.postponed.append((row, now_s + FAILED_BACKOFF_S))
        case PendingTombstone() as settled if failure is None:
            progress.settled.append(settled)
        case CancelDecision() as told if failure is None:
            progress.told.append(told)
