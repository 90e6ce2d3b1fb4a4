"""One redrive or discard. It can be killed at any point and repeated.

Dead letters are resolved in batches of one partition. A batch of a redrive has three steps; Kafka
acknowledges each before the next:

    1. a resolution "begun", with the dead letters and the end offsets of the queue's partitions
    2. the messages, on the queue
    3. a resolution "done"

A "done" dead letter is not processed again. A "begun" one may have been sent: the next redrive searches the
queue for it, from the offsets in its resolution, and sends it if it is absent. A discard is step 3 alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..deliveries.delivery import Origin
from ..errors import EnqueueFailed
from ..kafka.clients import Clients
from ..kafka.errors import MessageSizeTooLargeError
from ..kafka.topics import Topics
from ..process import clock
from ..process.rate_limit import RateLimit
from ..produce.publisher import Publisher, publish_all
from .dead_letter import DeadLetter, Selection, read_dead_letter
from .generations import Generation, generations_sent, next_generation, redriven
from .resolution import Action, Resolution, ResolutionState, is_resolution, read_resolution
from .topic_log import DeadLetterTopic

#: The size of a batch. It bounds the search after an interruption, and the memory.
MAX_BATCH = 100
MAX_BATCH_BYTES = 4 * 1024 * 1024
#: The size of a resolution with a long reason and the end offsets of a hundred partitions.
RESOLUTION_BYTES = 4_096
#: The bytes of each dead letter in a resolution. Ids are truncated to MAX_ID_CHARS.
RESOLUTION_ENTRY_BYTES = 256
#: Only the queue's topic can refuse a message for its size: a dead letter may be larger.
TOO_LARGE = "its message is larger than its queue takes"


@dataclass(frozen=True, slots=True)
class RedriveRequest:
    """The action, its author and its reason."""

    operation: str
    action: Action
    queue_name: str
    by: str
    reason: str
    dry_run: bool
    rate_per_s: float | None


@dataclass(slots=True)
class Resolved:
    """The result of a redrive or a discard, or of its dry run.

    Attributes:
      operation: Its name in the history.
      selected: The number of selected dead letters.
      error_types: Their number by the type of their error.
      to_send: The number of messages to put on the queue. Without a dry run it equals ``sent``.
      sent: The number of messages that were put on the queue.
      sent_before: The number of messages that an interrupted redrive had put there already.
      refused: The number of dead letters that cannot be redriven, by the reason. They stay unresolved.
      repeated: The number of dead letters of a failure that another selected one has sent, too, as a crash
        leaves two. Their message is sent once.
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
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """The resolutions of the dead letters in one partition.

    Attributes:
      done: The offsets of the resolved dead letters.
      begun: The first redrive that may have sent a dead letter and is not done with it, by offset.
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
    """The selected, unresolved dead letters of one partition."""
    for record in log.records(partition):
        if record.offset in history.done or is_resolution(record.headers):
            continue
        dlq_origin = Origin(record.topic, partition, record.offset)
        dead_letter = read_dead_letter(queue_name, record.value, record.headers, dlq_origin)
        if dead_letter in selection:
            yield dead_letter


class Resolver:
    """Executes one request.

    Parameters:
      on_progress: Called with the number of dead letters that are done after each batch.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        request: RedriveRequest,
        on_progress: Callable[[int], object] | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._done = 0
        self._clients = clients
        self._publisher = publisher
        self._request = request
        self._queue_topic = topics.queue(request.queue_name)
        self._topic = topics.dead_letters(request.queue_name)
        topics.ensure([self._queue_topic, self._topic], for_reading=request.dry_run)
        self._rate_limit = RateLimit(
            request.rate_per_s, max_batch=_max_dead_letters(topics.limit_of(self._topic))
        )
        self._sent: set[Generation] = set()
        self._too_large: set[Generation] = set()
        self._resolved = Resolved(request.operation, request.action, request.dry_run)

    def run(self, selection: Selection) -> Resolved:
        with (
            DeadLetterTopic(self._clients, self._topic) as log,
            DeadLetterTopic(self._clients, self._queue_topic) as queue,
        ):
            for partition in log.ends:
                history = History.of(log, partition)
                dead_letters = open_dead_letters(log, partition, self._request.queue_name, history, selection)
                self._resolve(partition, history, queue, self._counted(dead_letters))
        return self._resolved

    def _counted(self, dead_letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """Count the selected dead letters, and yield those that can be resolved."""
        for dead_letter in dead_letters:
            self._resolved.selected += 1
            self._resolved.error_types[dead_letter.error_type] += 1
            if (
                self._request.action is Action.REDRIVE
                and (reason := dead_letter.why_not_redrivable) is not None
            ):
                self._resolved.refused[reason] += 1
            else:
                yield dead_letter

    def _resolve(
        self, partition: int, history: History, queue: DeadLetterTopic, dead_letters: Iterable[DeadLetter]
    ) -> None:
        found: set[Generation] | None = None
        for batch in _batches(dead_letters, self._rate_limit.max_batch):
            if self._request.action is Action.REDRIVE:
                if found is None:
                    found = generations_sent(queue, history.begun.values())
                unsent = self._unsent(batch, found)
                self._resolved.to_send += len(unsent)
                self._send(unsent, partition, queue)
                # A message that the queue never takes is not done, and does not block the others.
                batch = [
                    dead_letter
                    for dead_letter in batch
                    if next_generation(dead_letter) not in self._too_large
                ]
            if batch:
                self._publish_resolution(ResolutionState.DONE, partition, batch)
                self._note_done(len(batch))

    def _note_done(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None and not self._request.dry_run:
            self._on_progress(self._done)

    def _unsent(self, batch: Iterable[DeadLetter], found: set[Generation]) -> list[DeadLetter]:
        """The dead letters of a batch whose messages must be sent."""
        unsent = []
        for dead_letter in batch:
            generation = next_generation(dead_letter)
            if generation in found:
                self._resolved.sent_before += 1
            elif generation in self._sent:
                # Two dead letters of one generation are one failure, which a crash wrote twice.
                self._resolved.repeated += 1
            else:
                self._sent.add(generation)
                unsent.append(dead_letter)
        return unsent

    def _send(self, dead_letters: list[DeadLetter], partition: int, queue: DeadLetterTopic) -> None:
        if not dead_letters or self._request.dry_run:
            return
        self._publish_resolution(ResolutionState.BEGUN, partition, dead_letters, queue.ends)
        self._rate_limit.wait(len(dead_letters))
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

    def _publish_resolution(
        self,
        state: ResolutionState,
        partition: int,
        dead_letters: Iterable[DeadLetter],
        queue_ends: Mapping[int, int] | None = None,
    ) -> None:
        if self._request.dry_run:
            return
        resolution = Resolution(
            operation=self._request.operation,
            action=self._request.action,
            state=state,
            by=self._request.by,
            reason=self._request.reason,
            timestamp=clock.wall_ms(),
            partition=partition,
            dead_letters={
                _offset(dead_letter): dead_letter.message.message_id if dead_letter.message else ""
                for dead_letter in dead_letters
            },
            queue_ends=queue_ends or {},
        )
        doing = (
            f"The {self._request.action.value} stopped, because its resolution could not be published. "
            "Run it again"
        )
        publish_all(self._publisher, [resolution.record(self._topic)], doing)


def _max_dead_letters(limit: int | None) -> int:
    """The number of dead letters that fit into a resolution of a topic with that limit."""
    if limit is None:
        return MAX_BATCH
    return max(1, min(MAX_BATCH, (limit - RESOLUTION_BYTES) // RESOLUTION_ENTRY_BYTES))


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
    assert dead_letter.dlq_origin is not None
    return dead_letter.dlq_origin.offset
