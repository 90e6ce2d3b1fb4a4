"""Chooses the records that a replay sends: at most one for each message. Pure: no I/O, no clock."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass

from ..errors import ParameterRefused

#: The messages that one replay selects at most. Each takes some 500 bytes of memory.
MAX_MESSAGES = 1_000_000

#: The reasons for which records and messages are skipped.
EARLIER_RECORD = "an earlier record of a message, whose latest one counts"
UNFINISHED = "it is not complete: it waits or runs"
DEAD = "it is a dead letter: redrive or discard it"
BEYOND_LIMIT = "it is beyond the limit"


class TooManyMessages(ParameterRefused):
    """The range has more messages than one replay takes."""


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """One message's record in the queue's log.

    Attributes:
      identity: The id that all records of one message have in common.
      order: The offset of the message's first record, as far as its headers say so; otherwise ``offset``.
      first_ms: The timestamp of that record, in milliseconds since 1970.
      size: The bytes of its value.
      is_complete: Whether the workers' commits say that it needs no further run.
      replay_id: The replay that sent it; None for any other record.
    """

    identity: str
    actor: str
    partition: int
    offset: int
    timestamp: int
    size: int
    is_complete: bool
    order: int
    first_ms: int
    replay_id: str | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """A message that runs again.

    Attributes:
      record: Its latest record in the range.
      first: Its first record in the range, which determines its place in the order.
      records: The number of its records in the range.
    """

    record: SeenRecord
    first: SeenRecord
    records: int = 1

    @property
    def identity(self) -> str:
        return self.record.identity

    def with_record(self, seen: SeenRecord) -> Selected:
        """This message with one more record in the range."""
        return Selected(
            seen if _is_later(seen, self.record) else self.record,
            self.first if _is_later(seen, self.first, by_order=True) else seen,
            self.records + 1,
        )


def _is_later(record: SeenRecord, other: SeenRecord, *, by_order: bool = False) -> bool:
    """Whether a record is behind another one of its message.

    Parameters:
      by_order: Whether to compare their places in the order, and not the records themselves.
    """
    if record.partition == other.partition:
        return record.order > other.order if by_order else record.offset > other.offset
    # A retry, or a copy that a replay has sent, may be in another partition.
    times_ms = (record.first_ms, other.first_ms) if by_order else (record.timestamp, other.timestamp)
    return (times_ms[0], record.replay_id is not None) > (times_ms[1], other.replay_id is not None)


class ReplaySelection:
    """The messages of a range, as the records of a log are added in any order of partitions.

    Parameters:
      actor: The actor; None for all.
      since_ms, until_ms: The range of the records' timestamps: at or after ``since_ms``, and before
        ``until_ms``. None for an open end.
      limit: The maximum number of messages; None for no limit.
      interrupted: The ids of interrupted replays: the messages that they have sent are not sent again.

    Attributes:
      unfinished: The identities of the messages that wait outside of the log. Add them.
      dead: The identities of the messages that are dead letters. Add them.
      skipped: The number of skipped records and messages, by the reason. :meth:`result` completes it.
      sent_before: The number of selected messages that interrupted replays have sent, after :meth:`result`.
    """

    def __init__(
        self,
        *,
        actor: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int | None = None,
        interrupted: Container[str] = (),
        max_messages: int = MAX_MESSAGES,
    ) -> None:
        self._actor = actor
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._limit = limit
        self._interrupted = interrupted
        self._max_messages = max_messages
        self._found: dict[str, Selected] = {}
        self._sent: dict[str, str] = {}
        self.unfinished: set[str] = set()
        self.dead: set[str] = set()
        self.skipped: Counter[str] = Counter()
        self.sent_before = 0

    def add(self, seen: SeenRecord) -> None:
        """Add a record of the log.

        Raises:
          TooManyMessages: When the range has more than ``max_messages`` of the actor.
        """
        if self._actor is not None and seen.actor != self._actor:
            return
        if not seen.is_complete:
            self.unfinished.add(seen.identity)
        if seen.replay_id is not None and seen.replay_id in self._interrupted:
            self._sent[seen.identity] = seen.replay_id
        if self.is_in_range(seen.timestamp):
            known = self._found.get(seen.identity)
            self._found[seen.identity] = Selected(seen, seen) if known is None else known.with_record(seen)
            if len(self._found) > self._max_messages:
                raise TooManyMessages(
                    f"the range has more than {self._max_messages} messages: replay a shorter one, or that "
                    "of one actor"
                )

    def is_in_range(self, timestamp_ms: int) -> bool:
        """Whether a record with this timestamp is in the range."""
        return (self._since_ms is None or timestamp_ms >= self._since_ms) and (
            self._until_ms is None or timestamp_ms < self._until_ms
        )

    def result(self) -> list[Selected]:
        """The messages to send, in the order of their first records. Call it once."""
        to_send: list[Selected] = []
        for chosen in self._in_order():
            is_sent = chosen.identity in self._sent
            if not is_sent and (reason := self._why_skipped(chosen.identity)) is not None:
                self.skipped[reason] += 1
            elif self._limit is not None and len(to_send) + self.sent_before >= self._limit:
                self.skipped[BEYOND_LIMIT] += 1
            else:
                self.skipped[EARLIER_RECORD] += chosen.records - 1
                if is_sent:
                    self.sent_before += 1
                else:
                    to_send.append(chosen)
        self.skipped = +self.skipped
        return to_send

    def sent_by(self) -> Counter[str]:
        """The number of messages that each interrupted replay has sent, as far as the log shows."""
        return Counter(self._sent.values())

    def _why_skipped(self, identity: str) -> str | None:
        if identity in self.unfinished:
            return UNFINISHED
        return DEAD if identity in self.dead else None

    def _in_order(self) -> Iterator[Selected]:
        """By time, and within a partition by offset, also when its timestamps do not ascend."""
        by_partition: defaultdict[int, list[Selected]] = defaultdict(list)
        for chosen in self._found.values():
            by_partition[chosen.first.partition].append(chosen)
        for chosen_ones in by_partition.values():
            chosen_ones.sort(key=lambda chosen: (chosen.first.order, chosen.first.offset))
        return heapq.merge(
            *(by_partition[partition] for partition in sorted(by_partition)),
            key=lambda chosen: chosen.first.first_ms,
        )
