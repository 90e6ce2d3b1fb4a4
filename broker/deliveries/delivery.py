"""A delivery: one record to be run by this process, and the records that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from ..kafka.types import ConsumedRecord, TopicPartition
from ..partition_keys.record_format import without_own
from ..produce.record import Record

if TYPE_CHECKING:
    from ..offsets.crash_counts import CrashCounts
    from ..partition_keys.lane import LaneEntry
    from ..partition_keys.lanes import Lanes
    from ..partition_keys.record_format import Waiting
    from ..partition_keys.unique import Mark


class Origin(NamedTuple):
    """The topic, partition and offset of a record."""

    topic: str
    partition: int
    offset: int


class Owner(Protocol):
    """The assigned partition of a delivery (see ``assigned_partition``)."""

    partition: TopicPartition
    revoked: bool
    leaving: bool
    lane_entries: dict[int, LaneEntry[ConsumedRecord]]
    crash_counts: CrashCounts
    lanes: Lanes[ConsumedRecord]

    @property
    def first_unread(self) -> int: ...

    @property
    def topic_text(self) -> str: ...

    def dispatch(self, delivery: Delivery) -> None: ...

    def take_back(self, delivery: Delivery) -> None: ...

    def park_again(self, delivery: Delivery) -> None: ...

    def complete(self, offset: int) -> None: ...


class Delivery(MessageProxy):
    """A Dramatiq message together with its origin in Kafka and its outbox.

    Attributes:
      origin: The topic, partition and offset of its record.
      raw: The record's value as it was read.
      record: The record; None for a delivery that was not made from one.
      headers: The record's headers (a trace context, for example), which a retry and a dead letter keep.
      outbox: Records that follow from this delivery (a retry, a pipeline's next step, a dead letter). It
        completes only when Kafka has all of them.
      follow_ups: Calls in order, after the outbox is in Kafka and before the delivery completes. An error
        holds the delivery, and the call is repeated, so each must be idempotent.
      assigned_partition: The assigned partition of its record.
      begun: Whether a worker thread has taken it.
      completed: Whether everything that follows from it is durable.
      flushed: Whether it was completed because a flush dropped it.
      withdrawn: Whether its partition was revoked, it was flushed or its queue was paused before a worker
        thread began it. No hook is called for it.
      unrun: Whether no worker thread gets it. Its record is kept as it was read.
      is_move: Whether its record moves to the lanes topic, or was to and becomes a dead letter.
      preparation: Called before its outbox is published, and repeated until it does not raise.
      retry: The record in its outbox that is its own retry.
      retry_sent: Whether Kafka has its retry, or may have it.
      retry_at_ms: The time of its next attempt, in milliseconds since 1970; None without a retry.
      queued_ms: The timestamp of its record, in milliseconds since 1970; -1 when Kafka has none.
      began_s: The beginning of its run (``clock.monotonic_s()``); None while no task runs.
      retries_before: Its option ``retries`` at the beginning of the run. A retry changes the option.
      progress: What its task last reported: fraction, text, and time in milliseconds since 1970.
      announced: Whether the history says that its run has started.
      thread_id: The thread that runs its task; None while no task runs.
      is_interrupted: Whether its running task was told to end, because the message is aborted.
      is_aborted: Whether it ends without an attempt, because the message is aborted.
      is_expired: Whether it ends without a run and without a dead letter, because its time was over.
      limit_number: The number of its run for the reaper; None without a hard time limit.
      dead_letter: The record of its dead letter; None while it has none.
      lane_entry: Its lane entry; None when it has no partition key.
      mark: The point at which its unique key was freed; None before that.
      wait: The lane entry that is written to the lanes topic after the outbox is in Kafka: an ordered retry,
        or a record that moves.
    """

    lane_entry: LaneEntry[ConsumedRecord] | None = None
    mark: Mark | None = None
    wait: Waiting | None = None
    withdrawn = False
    unrun = False
    is_move = False
    preparation: Callable[[], None] | None = None
    retry: Record | None = None
    retry_sent = False
    retry_at_ms: int | None = None
    queued_ms = -1
    began_s: float | None = None
    retries_before: object = None
    progress: tuple[float, str, int] | None = None
    announced = False
    thread_id: int | None = None
    is_interrupted = False
    is_aborted = False
    is_expired = False
    limit_number: int | None = None
    dead_letter: Record | None = None
    record: ConsumedRecord | None = None

    def __init__(
        self,
        message: Message[Any],
        *,
        origin: Origin,
        raw: bytes,
        headers: Sequence[tuple[str, bytes]],
        assigned: Owner,
    ) -> None:
        super().__init__(message)
        # A proxy reads each field from its message at every access, some fifteen times per task.
        self.__dict__.update(message.__dict__)
        self.origin = origin
        self.raw = raw
        self.headers = headers
        self.assigned_partition = assigned
        self.outbox: list[Record] = []
        self.follow_ups: list[Callable[[], None]] = []
        self.begun = False
        self.completed = False
        self.flushed = False

    @property
    def attempt(self) -> int:
        """The number of the attempt that runs, or has run here, from 1."""
        return attempt_of(self.retries_before)

    @property
    def moves(self) -> bool:
        """Whether its record moves to the lanes topic without a run."""
        return self.wait is not None and not self.wait.due_ms

    @property
    def is_retried(self) -> bool:
        """Whether its own retry follows from it."""
        return self.retry is not None or self.wait is not None

    def is_retry(self, message: Message[Any]) -> bool:
        """Whether ``message`` is a retry of this delivery's message."""
        return (message.message_id, message.queue_name, message.actor_name) == (
            self.message_id, self.queue_name, self.actor_name
        )  # fmt: skip

    def drop_retry(self) -> None:
        """Remove its own retry. The caller puts a dead letter or another retry in its place."""
        if self.retry is not None:
            self.outbox.remove(self.retry)
        self.retry = self.wait = None

    def drop_outbox(self) -> None:
        """Remove everything from the outbox. The caller replaces all of it."""
        self.outbox.clear()
        self.retry = self.wait = None

    def become(self, message: Message[Any]) -> None:
        """Take the fields of the message that was decoded from its record."""
        self._message = message
        self.__dict__.update(message.__dict__)


def attempt_of(retries: object) -> int:
    """The number of the attempt of a message with that option, from 1. The option may come from outside."""
    return retries + 1 if isinstance(retries, int) else 1


def make_delivery(message: Message[Any], record: ConsumedRecord, assigned: Owner) -> Delivery:
    """Make a delivery of ``message``, which was decoded from ``record``."""
    delivery = Delivery(
        message,
        origin=Origin(record.topic, record.partition, record.offset),
        raw=record.value or b"",
        headers=record.headers,
        assigned=assigned,
    )
    delivery.queued_ms = record.timestamp
    delivery.record = record
    if record.key is not None:
        delivery.lane_entry = assigned.lane_entries.get(record.offset)
        delivery.headers = without_own(record.headers)
    return delivery
