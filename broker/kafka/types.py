"""The values that pass between Kafka and the rest of the broker. They belong to no client library.

``TopicPartition`` and ``OffsetAndMetadata`` have the fields of kafka-python's named tuples in the same order,
so each equals, and hashes as, kafka-python's with the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

#: The headers of a record, in order: a name and its bytes. A name may occur more than once.
Headers = Sequence[tuple[str, bytes]]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class OffsetAndMetadata(NamedTuple):
    """A committed offset.

    Attributes:
      offset: The offset of the next record.
      metadata: The text beside it.
      leader_epoch: The leader epoch of the record before ``offset``; -1 when it is not known.
    """

    offset: int
    metadata: str = ""
    leader_epoch: int | None = -1


class OffsetAndTimestamp(NamedTuple):
    """An offset that Kafka found for a time.

    Attributes:
      timestamp: Of the record at ``offset``, in ms since 1970; -1 when the question was for an end of the
        log.
      leader_epoch: Of that record; -1 when it is not known.
    """

    offset: int
    timestamp: int
    leader_epoch: int | None


class Membership(NamedTuple):
    """A member of a consumer group.

    Attributes:
      member_id: The id that Kafka gave it.
      group_instance_id: Of a static member; None otherwise.
    """

    group: str
    member_id: str
    group_instance_id: str | None = None


class GroupMember(NamedTuple):
    """A member of a consumer group, as Kafka describes it.

    Attributes:
      member_id: The id that Kafka gave it.
      client_id: The name that its client gave itself.
      host: The address that it connects from.
    """

    member_id: str
    client_id: str
    host: str

    def __str__(self) -> str:
        return f"{self.member_id} (client {self.client_id!r} on {self.host})"


class Heartbeat(NamedTuple):
    """The state of a consumer's heartbeats, in seconds of ``clock.monotonic_s()``.

    Attributes:
      last_answer_s: The time of the last answer; below 0 when there was none.
      last_reset_s: The time at which the session timeout began again without an answer, as after a join.
    """

    last_answer_s: float
    last_reset_s: float


class ConsumedRecord(Protocol):
    """A record as it was read. Read-only."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def leader_epoch(self) -> int:
        """The leader epoch that it was written in; -1 when it is not known."""

    @property
    def timestamp(self) -> int:
        """In ms since 1970; -1 when Kafka has none."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None:
        """The body; None for a tombstone."""

    @property
    def headers(self) -> Headers: ...

    @property
    def serialized_value_size(self) -> int:
        """The bytes of ``value``; -1 for a tombstone."""


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """The answer of a partition's leader about a leader epoch.

    Attributes:
      epoch: The latest epoch, not above the requested one, of which its log has records; -1 when its log has
        no epoch as late as the requested one.
      end_offset: The end of that epoch; -1 as above.
      leader_epoch: The leader's own epoch; -1 when it is not known.
    """

    epoch: int
    end_offset: int
    leader_epoch: int = -1


EpochEndsByPartition = dict[TopicPartition, EpochEnd]
