"""What the owner of a partition knows of unique messages. Pure: no I/O, no clock, no lock.

A unique message has a lane of its own key. The first one of the key that is not a duplicate is its *holder*.
A later one is a duplicate of the holder when it was written before the holder freed the key:

    unique            the holder frees its key
    "until_started"   when its run begins
    "until_done"      when it is done, or a dead letter
    seconds           so many seconds later

"Before" is a position in the log: the end of the partition when the key is freed (a *unique mark*). So a
duplicate that is read long after the holder's end is recognised. A mark is in the lanes topic while an offset
below it may be read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .lane import SequenceNumber

#: The header of a unique message's record.
HEADER = "unique-until"
_RETRY, _AGAIN = "retry", "again"


@dataclass(frozen=True, slots=True)
class Unique:
    """The rules of one unique message.

    Attributes:
      until_started: Whether it frees its key when its run begins.
      span_ms: The time for which the key stays taken after the message is done.
      is_retry: Whether the record is a retry: its message has begun before.
      is_again: Whether an operator has sent the message again: a redrive, or a replay.
    """

    until_started: bool = False
    span_ms: int = 0
    is_retry: bool = False
    is_again: bool = False

    @property
    def is_never_duplicate(self) -> bool:
        return self.is_retry or self.is_again

    @property
    def header(self) -> tuple[str, bytes]:
        words = ["started" if self.until_started else f"done+{self.span_ms}"]
        words += [_RETRY] * self.is_retry + [_AGAIN] * self.is_again
        return HEADER, " ".join(words).encode()


def read_unique(headers: object) -> Unique | None:
    """The rules of a record's message; None when the message is not unique, or another program has written
    the header.
    """
    for name, content in headers or ():  # type: ignore[attr-defined]
        if name == HEADER:
            until, *flags = (content or b"").decode(errors="replace").split(" ")
            is_retry, is_again = _RETRY in flags, _AGAIN in flags
            if until == "started":
                return Unique(until_started=True, is_retry=is_retry, is_again=is_again)
            kind, _, span_ms = until.partition("+")
            if kind == "done" and span_ms.isdecimal():
                return Unique(span_ms=int(span_ms), is_retry=is_retry, is_again=is_again)
            return None
    return None


@dataclass(slots=True, eq=False)
class Mark:
    """The point of the log at which a unique key was freed.

    Attributes:
      since: The message after which duplicates begin: the holder, or an earlier one whose mark this one
        replaces while records below that mark may still be read.
      holder: The message that has freed the key. It is no duplicate of its own.
      until_offset: The end of the partition at that moment. A message of the key below it is a duplicate.
      until_ms: The time, in milliseconds since 1970, before which a message's record makes it a duplicate,
        too; 0 for none.
      topic_id: The id of the queue's topic; empty when Kafka does not report one.
      kept_in: The partition of the lanes topic that has its record; None when there is none.
      span_is_over: Whether ``until_ms`` has passed, and ``drop_from`` is known.
      drop_from: The end of the partition after that. The mark is of no use once all below it was read.
    """

    since: SequenceNumber
    holder: SequenceNumber
    until_offset: int
    until_ms: int = 0
    topic_id: str = ""
    kept_in: int | None = None
    span_is_over: bool = False
    drop_from: int = 0

    def covers(self, sequence: SequenceNumber) -> bool:
        """Whether a message is a duplicate."""
        if sequence <= self.since or sequence == self.holder:
            return False
        return sequence.offset < self.until_offset or sequence.timestamp < self.until_ms

    def encode(self) -> bytes:
        fields = {
            "since": self.since,
            "holder": self.holder,
            "until_offset": self.until_offset,
            "until_ms": self.until_ms,
            "topic_id": self.topic_id,
        }
        return json.dumps(fields).encode()


def decode_mark(value: bytes, kept_in: int | None) -> Mark:
    """The mark of a record of the lanes topic.

    Raises:
      ValueError: When the value is damaged, or of a later version.
    """
    try:
        fields = json.loads(value)
        return Mark(
            SequenceNumber(*map(int, fields["since"])),
            SequenceNumber(*map(int, fields["holder"])),
            int(fields["until_offset"]),
            int(fields["until_ms"]),
            str(fields["topic_id"]),
            kept_in,
        )
    except (KeyError, TypeError) as e:
        raise ValueError(f"not a unique mark: {e!r}") from e
