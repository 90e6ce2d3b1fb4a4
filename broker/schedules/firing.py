"""Enqueues the due occurrences of schedules, each of them once.

A page of occurrences takes three steps, and each of them waits for Kafka:

1. a *firing* names them, and the ends of their queues;
2. their messages are sent, with ids that their names and times determine;
3. the states of their schedules move on, and the firing gets its tombstone.

A firing without a tombstone is of a page that was interrupted. Its occurrences are looked for in the queues,
from those ends on, and only the missing ones are sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dramatiq.message import Message
from dramatiq.middleware import MiddlewareError

from ..errors import RECORD_ERRORS, NotAuthorized, TopicMisconfigured
from ..kafka.topics import Topics
from ..process import clock
from ..process.backoff import Backoff
from ..produce.publisher import Publisher, publish_all
from ..produce.record import Record
from .book import Book, Decision
from .queue_ends import QueueEnds
from .record_format import OCCURRENCE, Definition, Entry, Firing, Gone, ScheduleState, message_id, record

logger = logging.getLogger(__name__)

#: The size of a page. A firing of so many names fits a record.
PAGE_OCCURRENCES = 1_000
#: The messages of a page are made so long before they are due. A thousand of them take some 30 ms of the
#: processor, by which the last of them would be late, and a multiple of that on a busy machine.
AHEAD_MS = 1_000
#: The first and the longest pause before an interrupted firing is tried again.
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0

#: A schedule's name, and the time of the occurrence.
Occurrence = tuple[str, int]
#: A message and its record; None for one that cannot be sent.
Made = tuple[Message[Any], Record] | None
#: Prepares a message to be sent: calls the hooks before an enqueue, and returns its record.
Prepare = Callable[[Message[Any]], Record]


class LeaseOver(Exception):
    """This process may not be the owner of the schedules any more. Nothing was sent."""


class _Page:
    """Occurrences that are enqueued together.

    Parameters:
      states: The states of their schedules once all of them are decided.

    Attributes:
      messages: The messages to send, with their records.
      decided: The occurrences that need no message: whether each is on its queue.
    """

    def __init__(self, states: dict[str, ScheduleState]) -> None:
        self.messages: dict[Occurrence, tuple[Message[Any], Record]] = {}
        self.decided: dict[Occurrence, bool] = {}
        self._states = states

    def add(self, occurrence: Occurrence, made: Made) -> None:
        """Add an occurrence and its message; None for one that cannot be sent."""
        if made is None:
            self.decided[occurrence] = False
        else:
            self.messages[occurrence] = made

    @property
    def topics(self) -> set[str]:
        return {prepared.topic for _, prepared in self.messages.values()}

    def remove(self, topic: str) -> list[Occurrence]:
        """Remove the occurrences of schedules that send to a topic, and return them."""
        names = {name for (name, _), (_, prepared) in self.messages.items() if prepared.topic == topic}
        removed = [o for o in (*self.messages, *self.decided) if o[0] in names]
        for occurrence in removed:
            self.messages.pop(occurrence, None)
            self.decided.pop(occurrence, None)
        for name in names:
            self._states.pop(name, None)
        return sorted(removed, key=lambda occurrence: occurrence[1])

    def states_after(self, book: Book, blocked: set[str]) -> list[ScheduleState]:
        """The states of the schedules whose occurrences are all decided."""
        states = {name: state for name, state in self._states.items() if name not in blocked}
        for (name, occurrence_ms), is_on_queue in sorted(self.decided.items(), key=lambda item: item[0][1]):
            if name in blocked:
                continue
            before = book.states.get(name, ScheduleState(name, occurrence_ms))
            after = states.get(name, before)
            ran_ms = occurrence_ms if is_on_queue else before.ran_ms
            states[name] = ScheduleState(name, max(occurrence_ms, after.last_ms), ran_ms, after.missed)
        return list(states.values())


class Firings:
    """Enqueues occurrences. Use it from one thread.

    Parameters:
      prepare: See ``Prepare``.
      note_sent: Called with each message that Kafka has acknowledged.
    """

    def __init__(
        self,
        topics: Topics,
        publisher: Publisher,
        queue_ends: QueueEnds,
        prepare: Prepare,
        note_sent: Callable[[Message[Any]], object],
    ) -> None:
        self._topics = topics
        self._publisher = publisher
        self._queue_ends = queue_ends
        self._prepare = prepare
        self._note_sent = note_sent
        self._backoffs: dict[str, Backoff] = {}
        self._page = 0
        self._ahead: dict[Occurrence, tuple[Definition, Made]] = {}

    def close(self) -> None:
        self._queue_ends.close()
        self._backoffs.clear()
        self._ahead.clear()

    def step(self, book: Book, owner_id: str, is_owner: Callable[[], bool]) -> BaseException | None:
        """Finish interrupted firings, and enqueue a page of due occurrences.

        Parameters:
          owner_id: The id of the ownership.
          is_owner: Whether this process is certainly the owner still.

        Returns:
          Why an occurrence could not be enqueued; None when all were. It is tried again.

        Raises:
          KafkaUnavailable, KafkaError: When Kafka does not answer.
          LeaseOver: When another process may be the owner.
        """
        failure: BaseException | None = None
        for firing in list(book.firings.values()):
            if self._backoff(firing.id).is_over:
                failure = self._finish(book, firing, is_owner) or failure
        for name in list(book.forgotten):
            self._write([Gone(ScheduleState, name)])
            book.take(Gone(ScheduleState, name))
        return self._fire(book, owner_id, is_owner) or failure

    def next_attempt_s(self, book: Book) -> float | None:
        """The time until an interrupted firing is tried again; None without one."""
        pauses = [self._backoff(firing_id).remaining_s for firing_id in book.firings]
        return min(pauses, default=None)

    # A page

    def make_ahead(self, book: Book) -> None:
        """Make the messages of occurrences that are due soon, until the first of them is due. No request is
        sent.
        """
        upcoming = book.upcoming(clock.wall_ms() + AHEAD_MS, PAGE_OCCURRENCES)
        occurrences = {(definition.name, time_ms): definition for definition, time_ms in upcoming}
        self._ahead = {
            occurrence: found
            for occurrence, found in self._ahead.items()
            if found[0] is occurrences.get(occurrence)
        }
        first_due_ms = book.next_due_ms
        for occurrence, definition in occurrences.items():
            if first_due_ms is not None and clock.wall_ms() >= first_due_ms:
                return
            if occurrence not in self._ahead:
                self._ahead[occurrence] = definition, self._make(definition, occurrence[1])

    def _made(self, definition: Definition, occurrence_ms: int) -> Made:
        """The message of an occurrence, made now unless it was before, by the same definition."""
        found = self._ahead.pop((definition.name, occurrence_ms), None)
        if found is not None and found[0] is definition:
            return found[1]
        return self._make(definition, occurrence_ms)

    def _fire(self, book: Book, owner_id: str, is_owner: Callable[[], bool]) -> BaseException | None:
        decisions = book.due(clock.wall_ms(), PAGE_OCCURRENCES)
        if not decisions:
            return None
        page = _Page({decision.state.name: decision.state for decision in decisions})
        for decision in decisions:
            self._log_missed(decision, book)
            for occurrence_ms in decision.run:
                page.add((decision.state.name, occurrence_ms), self._made(decision.definition, occurrence_ms))
        ends: dict[str, tuple[int, ...]] = {}
        failure: BaseException | None = None
        for topic in page.topics:
            try:
                ends[topic] = self._queue_ends.read(topic)
            except (NotAuthorized, TopicMisconfigured) as e:
                failure = e
                self._postpone(book, self._new_id(owner_id), topic, page.remove(topic))
        firing = Firing(self._new_id(owner_id), tuple(page.messages), ends)
        if firing.occurrences:
            self._write([firing])
            if not is_owner():
                raise LeaseOver("The lease of the schedules' owner has ended.")
            book.take(firing)
        return self._send(book, firing, page) or failure

    def _new_id(self, owner_id: str) -> str:
        self._page += 1
        return f"{owner_id}:{self._page}"

    def _postpone(self, book: Book, firing_id: str, topic: str, occurrences: list[Occurrence]) -> None:
        """Keep the occurrences of a queue that cannot be used. The schedules of other queues go on."""
        firing = Firing(firing_id, tuple(occurrences), {topic: ()})
        self._write([firing])
        book.take(firing)
        self._backoff(firing_id).fail()

    def _backoff(self, firing_id: str) -> Backoff:
        return self._backoffs.setdefault(firing_id, Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S))

    def _send(self, book: Book, firing: Firing, page: _Page) -> BaseException | None:
        """Send the messages of a firing, and note which of its occurrences are done."""
        failures = self._publisher.publish([prepared for _, prepared in page.messages.values()])
        left: list[Occurrence] = []
        for index, (occurrence, (message, _)) in enumerate(page.messages.items()):
            failure = failures.get(index)
            if failure is None:
                page.decided[occurrence] = True
                self._note_sent(message)
            elif isinstance(failure, RECORD_ERRORS):
                logger.error("Kafka refuses an occurrence of the schedule %r, which is left out: %r",
                             occurrence[0], failure)  # fmt: skip
                page.decided[occurrence] = False
            else:
                left.append(occurrence)
        # A state cannot say that a later occurrence is done and an earlier one is not.
        blocked = {name for name, _ in left}
        left += [occurrence for occurrence in page.decided if occurrence[0] in blocked]
        states = page.states_after(book, blocked)
        for state in states:
            book.note_state(state)
        rest: Entry = Firing(firing.id, tuple(left), firing.ends) if left else Gone(Firing, firing.id)
        self._write([*states, rest] if firing.occurrences else list(states))
        book.take(rest)
        if not left:
            self._backoffs.pop(firing.id, None)
            return None
        self._backoff(firing.id).fail()
        return next(iter(failures.values()))

    def _make(self, definition: Definition, occurrence_ms: int) -> Made:
        """The message of an occurrence and its record; None when it cannot be sent."""
        message: Message[Any] = Message(
            queue_name=definition.queue_name,
            actor_name=definition.actor_name,
            args=definition.args,
            kwargs=dict(definition.kwargs),
            options={**definition.options, "schedule": definition.name, "occurrence_ms": occurrence_ms},
            message_id=message_id(definition.name, occurrence_ms),
            message_timestamp=max(occurrence_ms, clock.wall_ms()),  # it may be made ahead
        )
        try:
            made = self._prepare(message)
        except (MiddlewareError, ValueError, TypeError) as e:
            logger.error("An occurrence of the schedule %r cannot be sent and is left out: %s",
                         definition.name, e)  # fmt: skip
            return None
        made.headers.append((OCCURRENCE, message.message_id.encode()))
        return message, made

    def _log_missed(self, decision: Decision, book: Book) -> None:
        before = book.states.get(decision.definition.name)
        if decision.state.missed > (before.missed if before else 0):
            logger.warning(
                "Occurrences of the schedule %r are overdue; by its policy %r, %d of them run(s).",
                decision.definition.name, decision.definition.timing.missed, len(decision.run),
            )  # fmt: skip

    # An interrupted page

    def _finish(self, book: Book, firing: Firing, is_owner: Callable[[], bool]) -> BaseException | None:
        page = _Page({name: book.states[name] for name, _ in firing.occurrences if name in book.states})
        pending = {
            (name, occurrence_ms): message_id(name, occurrence_ms)
            for name, occurrence_ms in firing.occurrences
            if name in book.definitions
            and (name not in book.states or occurrence_ms > book.states[name].last_ms)
        }
        try:
            ends = {topic: known or self._queue_ends.read(topic) for topic, known in firing.ends.items()}
            read = {topic: known for topic, known in firing.ends.items() if known}
            on_queue = self._queue_ends.find(read, pending.values()) if pending else set()
        except (NotAuthorized, TopicMisconfigured) as e:
            self._backoff(firing.id).fail()
            return e
        if ends != firing.ends:  # nothing was sent to some of the queues so far
            firing = replace(firing, ends=ends)
            self._write([firing])
        for (name, occurrence_ms), occurrence_id in pending.items():
            definition = book.definitions[name]
            if occurrence_id in on_queue:
                page.decided[name, occurrence_ms] = True
            elif definition.timing.in_time(name, occurrence_ms, now_ms=clock.wall_ms()):
                page.add((name, occurrence_ms), self._make(definition, occurrence_ms))
            else:
                page.decided[name, occurrence_ms] = False
        if not is_owner():
            raise LeaseOver("The lease of the schedules' owner has ended.")
        book.take(firing)
        logger.info(
            "An interrupted firing of %d occurrence(s) is finished: %d of them are sent now.",
            len(firing.occurrences), len(page.messages),
        )  # fmt: skip
        return self._send(book, firing, page)

    def _write(self, entries: list[Entry]) -> None:
        if entries:
            topic = self._topics.schedules
            publish_all(
                self._publisher,
                [record(topic, entry) for entry in entries],
                f"The progress of the schedules in {topic!r} could not be written",
            )
