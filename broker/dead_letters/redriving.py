"""One redrive or discard, safe to be killed anywhere and run again.

Dead letters are resolved in batches of one partition. For a redrive, a batch is three steps, each
acknowledged by Kafka before the next:

    1. a resolution "begun", naming its letters and where the queue's partitions end
    2. the messages, on the queue
    3. a resolution "done"

What is done is not looked at again. What is only begun may have been sent: the next redrive looks for it on
the queue, from the offsets that its resolution names, and sends what is not there. A discard is step 3
alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..deliveries.delivery import Origin
from ..errors import EnqueueFailed
from ..kafka.clients import Clients
from ..kafka.errors import MessageSizeTooLargeError
from ..kafka.rights import not_published
from ..kafka.topics import Topics
from ..produce.publisher import Publisher
from .dead_letter import DeadLetter, Selection, read_dead_letter
from .generations import Generation, generations_sent, next_generation, redriven
from .resolution import Action, Resolution, ResolutionState, is_resolution, now_ms, read_resolution
from .topic_log import DeadLetterTopic

#: A batch is what an interruption leaves to be looked for, and what is held in memory.
MAX_BATCH = 100
MAX_BATCH_BYTES = 4 * 1024 * 1024
#: What a resolution takes with a reason of some length, and with the ends of a hundred partitions.
RESOLUTION_BYTES = 4_096
#: What it takes for each of its letters, whose ids are cut at MAX_ID_CHARS.
BYTES_OF_A_LETTER = 256
#: Only the queue can say so: a dead letter may be larger than what its queue takes.
TOO_LARGE = "its message is larger than its queue takes"


@dataclass(frozen=True, slots=True)
class RedriveRequest:
    """What is to be done, by whom and why."""

    operation: str
    action: Action
    queue_name: str
    by: str
    reason: str
    dry_run: bool
    rate_per_s: float | None


@dataclass(slots=True)
class Resolved:
    """What a redrive or a discard did, or, as a dry run, would do.

    Attributes:
      operation: Its name in the history.
      selected: How many dead letters it concerned.
      error_types: How many of them of each error.
      to_send: How many messages are to be put on the queue: what a dry run says, and otherwise ``sent``.
      sent: How many messages it put on the queue.
      sent_before: How many an interrupted redrive had put there already.
      refused: How many cannot be put back, by the reason. They stay as they are.
    """

    operation: str
    action: Action
    dry_run: bool
    selected: int = 0
    to_send: int = 0
    sent: int = 0
    sent_before: int = 0
    error_types: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class History:
    """What the resolutions in one partition say about its dead letters.

    Attributes:
      done: The offsets of those that are resolved.
      begun: The first redrive that may have sent a letter and did not say that it has, by offset.
    """

    done: set[int]
    begun: dict[int, Resolution]

    @classmethod
    def of(cls, log: DeadLetterTopic, partition: int) -> History:
        history = cls(set(), {})
        for record in log.records(partition):
            if is_resolution(record.headers):
                history._add(read_resolution(record.value, partition))
        return history

    def _add(self, resolution: Resolution) -> None:
        if resolution.state is ResolutionState.DONE:
            self.done.update(resolution.dead_letters)
        for offset in resolution.dead_letters:
            if offset in self.done:
                self.begun.pop(offset, None)
            else:
                self.begun.setdefault(offset, resolution)


def open_dead_letters(
    log: DeadLetterTopic, partition: int, queue_name: str, history: History, selection: Selection
) -> Iterator[DeadLetter]:
    """The selected dead letters of one partition that are not resolved."""
    for record in log.records(partition):
        if record.offset in history.done or is_resolution(record.headers):
            continue
        position = Origin(record.topic, partition, record.offset)
        dead_letter = read_dead_letter(queue_name, record.value, record.headers, position)
        if dead_letter in selection:
            yield dead_letter


class Resolver:
    """Carries out one order."""

    def __init__(self, clients: Clients, topics: Topics, publisher: Publisher, order: RedriveRequest) -> None:
        self._clients = clients
        self._publisher = publisher
        self._order = order
        self._queue_topic = topics.queue(order.queue_name)
        self._topic = topics.dead_letters(order.queue_name)
        topics.ensure([self._queue_topic, self._topic], for_reading=order.dry_run)
        self._pace = _Pace(order.rate_per_s, at_most=_dead_letters_in(topics.limit_of(self._topic)))
        self._sent: set[Generation] = set()
        self._too_large: set[Generation] = set()
        self._resolved = Resolved(order.operation, order.action, order.dry_run)

    def run(self, selection: Selection) -> Resolved:
        with (
            DeadLetterTopic(self._clients, self._topic) as log,
            DeadLetterTopic(self._clients, self._queue_topic) as queue,
        ):
            for partition in log.ends:
                history = History.of(log, partition)
                dead_letters = open_dead_letters(log, partition, self._order.queue_name, history, selection)
                self._resolve(partition, history, queue, self._counted(dead_letters))
        return self._resolved

    def _counted(self, dead_letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """Count what is selected and let through what can be resolved."""
        for dead_letter in dead_letters:
            self._resolved.selected += 1
            self._resolved.error_types[dead_letter.error_type] += 1
            if (
                self._order.action is Action.REDRIVE
                and (reason := dead_letter.why_not_redrivable) is not None
            ):
                self._resolved.refused[reason] += 1
            else:
                yield dead_letter

    def _resolve(
        self, partition: int, history: History, queue: DeadLetterTopic, dead_letters: Iterable[DeadLetter]
    ) -> None:
        found: set[Generation] | None = None
        for batch in _batches(dead_letters, self._pace.max_concurrency):
            if self._order.action is Action.REDRIVE:
                if found is None:
                    found = generations_sent(queue, history.begun.values())
                unsent = self._unsent(batch, found)
                self._resolved.to_send += len(unsent)
                self._send(unsent, partition, queue)
                # One that the queue never takes is not done, and does not hold up those that it takes.
                batch = [
                    dead_letter
                    for dead_letter in batch
                    if next_generation(dead_letter) not in self._too_large
                ]
            if batch:
                self._say(ResolutionState.DONE, partition, batch)

    def _unsent(self, batch: Iterable[DeadLetter], found: set[Generation]) -> list[DeadLetter]:
        """Those of a batch whose message is to be sent."""
        unsent = []
        for dead_letter in batch:
            life = next_generation(dead_letter)
            if life in found:
                self._resolved.sent_before += 1
            elif life not in self._sent:
                # Two letters of one life are one failure, written down twice by a crash.
                self._sent.add(life)
                unsent.append(dead_letter)
        return unsent

    def _send(self, dead_letters: list[DeadLetter], partition: int, queue: DeadLetterTopic) -> None:
        if not dead_letters or self._order.dry_run:
            return
        self._say(ResolutionState.BEGUN, partition, dead_letters, queue.ends)
        self._pace.wait(len(dead_letters))
        failures = self._publisher.publish(
            [redriven(dead_letter, self._queue_topic) for dead_letter in dead_letters]
        )
        if any(not isinstance(error, MessageSizeTooLargeError) for error in failures.values()):
            raise EnqueueFailed(
                {next_generation(dead_letters[index])[0]: error for index, error in failures.items()}
            )
        self._too_large.update(next_generation(dead_letters[index]) for index in failures)
        if failures:
            self._resolved.refused[TOO_LARGE] += len(failures)
            self._resolved.to_send -= len(failures)
        self._resolved.sent += len(dead_letters) - len(failures)

    def _say(
        self,
        state: ResolutionState,
        partition: int,
        dead_letters: Iterable[DeadLetter],
        queue_ends: Mapping[int, int] | None = None,
    ) -> None:
        if self._order.dry_run:
            return
        resolution = Resolution(
            operation=self._order.operation,
            action=self._order.action,
            state=state,
            by=self._order.by,
            reason=self._order.reason,
            timestamp=now_ms(),
            partition=partition,
            dead_letters={
                _offset(dead_letter): dead_letter.message.message_id if dead_letter.message else ""
                for dead_letter in dead_letters
            },
            queue_ends=queue_ends or {},
        )
        for error in self._publisher.publish([resolution.record(self._topic)]).values():
            raise not_published(
                f"The {self._order.action.value} stopped, because what it did could not be written down. "
                "Run it again",
                error,
            ) from error


class _Pace:
    """Lets through so many a second, a batch at a time."""

    def __init__(self, rate_per_s: float | None, *, at_most: int) -> None:
        self._rate_per_s = rate_per_s
        self.max_concurrency = at_most if rate_per_s is None else max(1, min(at_most, int(rate_per_s)))
        self._free_at_s = 0.0

    def wait(self, count: int) -> None:
        if self._rate_per_s is None:
            return
        now_s = time.monotonic()
        time.sleep(max(0.0, self._free_at_s - now_s))
        self._free_at_s = max(now_s, self._free_at_s) + count / self._rate_per_s


def _dead_letters_in(limit: int | None) -> int:
    """How many dead letters fit into a resolution, when its topic has that limit."""
    if limit is None:
        return MAX_BATCH
    return max(1, min(MAX_BATCH, (limit - RESOLUTION_BYTES) // BYTES_OF_A_LETTER))


def _batches(dead_letters: Iterable[DeadLetter], at_most: int) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    size = 0
    for dead_letter in dead_letters:
        batch.append(dead_letter)
        size += len(dead_letter.raw)
        if len(batch) >= at_most or size >= MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _offset(dead_letter: DeadLetter) -> int:
    assert dead_letter.position is not None
    return dead_letter.position.offset
