"""A delivery: one record handed to one worker, and everything that must be durable before it is complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from ..kafka.types import ConsumedRecord, TopicPartition
from ..partition_keys.record_format import without_own
from ..produce.publisher import Record

if TYPE_CHECKING:
    from ..partition_keys.lanes import LaneEntry
    from ..partition_keys.record_format import Waiting


class Origin(NamedTuple):
    """Where a delivery's record stands in Kafka."""

    topic: str
    partition: int
    offset: int


class Owner(Protocol):
    """The assigned partition that answers for a delivery (see ``assigned_partition``)."""

    partition: TopicPartition
    revoked: bool
    lane_entries: dict[int, LaneEntry[ConsumedRecord]]

    def dispatch(self, delivery: Delivery) -> None: ...

    def complete(self, offset: int) -> None: ...


class Delivery(MessageProxy):
    """A Dramatiq message together with its place in Kafka and its outbox.

    Attributes:
      origin: Where the record was read.
      raw: The record's value as it was read.
      headers: The record's headers (a trace context, say), which a retry and a dead letter keep.
      outbox: Records that follow from this delivery (a retry, a pipeline's next step, a dead letter). It
        completes only when Kafka has all of them.
      follow_ups: Called in order after the outbox is in Kafka and before the delivery completes. One that
        raises holds the delivery and is called again, so each must be idempotent.
      assigned_partition: The assigned partition that answers for it.
      begun: Whether a worker thread has started on it.
      completed: Whether everything that follows from it is durable.
      flushed: Whether it was completed because a flush has dropped it.
      withdrawn: Whether its partition was taken away, or it was flushed, before a thread could begin it. No
        hook is called for it.
      unrun: Whether no worker thread gets it at all. Its record is kept as it was read.
      preparation: Called before anything of it is published, and again until it does not raise.
      retry: The record in its outbox that is its own retry.
      dead_letter: Its dead letter, once that was made.
      lane_entry: Its place among the messages of its key, when it has one.
      wait: What the lanes topic is to keep of it, in its place, after the outbox is in Kafka.
    """

    lane_entry: LaneEntry[ConsumedRecord] | None = None
    wait: Waiting | None = None
    withdrawn = False
    unrun = False
    preparation: Callable[[], None] | None = None
    retry: Record | None = None
    dead_letter: Record | None = None

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
        # A proxy looks its message's fields up in the message at every access, some fifteen times a task.
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
    def moves(self) -> bool:
        """Whether it is no run: its record only moves to the lanes topic."""
        return self.wait is not None and not self.wait.due_ms

    @property
    def is_retried(self) -> bool:
        """Whether its own retry is among what follows from it."""
        return self.retry is not None or self.wait is not None

    def is_retry(self, message: Message[Any]) -> bool:
        """Whether ``message`` is this delivery's own message, to be run again."""
        return (message.message_id, message.queue_name, message.actor_name) == (
            self.message_id, self.queue_name, self.actor_name
        )  # fmt: skip

    def drop_retry(self) -> None:
        """Forget its own retry: a dead letter, or another retry, takes its place."""
        if self.retry is not None:
            self.outbox.remove(self.retry)
        self.retry = self.wait = None

    def drop_outbox(self) -> None:
        """Forget what was to follow: something else takes the place of all of it."""
        self.outbox.clear()
        self.retry = self.wait = None

    def become(self, message: Message[Any]) -> None:
        """Take the fields of the message that its record was found to hold."""
        self._message = message
        self.__dict__.update(message.__dict__)


def make_delivery(message: Message[Any], record: ConsumedRecord, assigned: Owner) -> Delivery:
    """Make a delivery of the message that was read from ``record``."""
    delivery = Delivery(
        message,
        origin=Origin(record.topic, record.partition, record.offset),
        raw=record.value or b"",
        headers=record.headers,
        assigned=assigned,
    )
    if record.key is not None:
        delivery.lane_entry = assigned.lane_entries.get(record.offset)
        delivery.headers = without_own(record.headers)
    return delivery
