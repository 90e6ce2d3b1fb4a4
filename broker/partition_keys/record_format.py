"""The records of a lanes topic, and the requeue records that return a message to its queue.

Each queue has one compacted topic, ``{queue}_lanes``. The latest record of a key counts:

    key                                        value                  meaning
    {group}:{partition}:{offset}:{timestamp}   the encoded message    it waits in the lane named by
                                                                      ``lane-key``
                                               none (tombstone)       it is done, or was flushed
    {group}:{partition}:{hash of the key}:     a unique mark, in      its messages before the mark are
    unique                                     JSON                   duplicates (see ``unique``)
    {group}:{partition}:{hash of the key}:     a pace, in JSON        its next message has its place
    pace                                                              in the rate then (``limits``)

All records of a key are in the partition of its first one, also when partitions are added later. An *end
mark* is a tombstone that belongs to no message (``{group}:{partition of the lanes topic}:-1:-1``): a reader
that has read it has read every record that was acknowledged before it was sent.

``group`` is the ``group_id`` of the workers: two groups may read one queue, and a message that waits in one
may be done in the other. ``partition`` is the queue's; ``offset`` and ``timestamp`` are the sequence number.

A waiting message returns as a *requeue record* in its partition of the queue. The header ``lane-ticket``
contains its sequence number and the due time of the wait that it ends. A requeue record is dropped when its
message is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..produce.record import Record, Watch
from .lane import SequenceNumber
from .limits import Pace
from .unique import Mark

#: Of a partition key, in UTF-8. Every record of a message contains its key.
MAX_KEY_BYTES = 255
KEY = "lane-key"
DUE = "lane-due-ms"
TICKET_HEADER = "lane-ticket"
#: The size of a requeue record's own headers, at most: three numbers of up to 19 digits.
REQUEUE_HEADERS_BYTES = 80

Headers = Sequence[tuple[str, bytes]]
#: What is kept of a key beside its messages.
KeyState = Mark | Pace

#: The sequence number of end marks, which no message has.
NOWHERE = SequenceNumber(-1, -1)
#: The end of the key of a unique mark. An earlier version leaves such a record alone, with an error line.
_MARK_END = b":unique"
#: The end of the key of the pace of a key with a rate.
_PACE_END = b":pace"


@dataclass(frozen=True, slots=True)
class Place:
    """The identity of a message in the lanes topic: group, partition of the queue, and sequence number."""

    group: str
    partition: int
    sequence: SequenceNumber

    def __str__(self) -> str:
        return f"{self.group}:{self.partition}:{self.sequence.offset}:{self.sequence.timestamp}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits in the lanes topic.

    Attributes:
      key: The key of its lane.
      due_ms: The time from which it may run, in milliseconds since 1970; 0 when it waits only for the entries
        before it.
      value: The encoded message.
      headers: The headers of its record in the queue's topic.
      kept_in: The partition of the lanes topic that its record was read from; None when it was not read.
    """

    place: Place
    key: bytes
    due_ms: int
    value: bytes
    headers: Headers = ()
    kept_in: int | None = None


def lane_header(key: bytes) -> tuple[str, bytes]:
    """The header that puts a record into a lane. A Kafka key alone does not: other producers use keys."""
    return KEY, key


def lane_of(headers: Headers) -> bytes | None:
    """The key of a record's lane; None when the record has no lane."""
    for name, content in headers:
        if name == KEY:
            return content or None
    return None


def waiting_record(
    topic: str,
    waiting: Waiting,
    *,
    destination: str,
    partition: int | None = None,
    watch: Watch | None = None,
) -> Record:
    """The record of a waiting message in the lanes topic ``topic``.

    Parameters:
      destination: The topic of its queue, to which it returns.
      partition: The partition of the lanes topic that has its earlier records; None when there is no earlier
        record.
      watch: See ``Record``.
    """
    own = [lane_header(waiting.key), (DUE, b"%d" % waiting.due_ms)]
    return Record(
        topic,
        waiting.value,
        key=str(waiting.place).encode(),
        headers=own + list(waiting.headers),
        partition=partition,
        destination=requeue_record(destination, waiting),
        watch=watch,
    )


def tombstone(
    topic: str,
    place: Place,
    *,
    partition: int | None,
    watch: Watch | None = None,
) -> Record:
    """The tombstone of the waiting message at ``place``.

    Parameters:
      partition: The partition of the lanes topic that has it; None when that is not known.
      watch: See ``Record``.
    """
    return Record(topic, None, key=str(place).encode(), partition=partition, watch=watch)


def end_mark(topic: str, group: str, partition: int, *, watch: Watch) -> Record:
    """An end mark: its offset is above every record that was acknowledged before."""
    return tombstone(topic, Place(group, partition, NOWHERE), partition=partition, watch=watch)


def requeue_record(queue_topic: str, waiting: Waiting) -> Record:
    sequence = waiting.place.sequence
    own = (TICKET_HEADER, b"%d:%d:%d" % (sequence.offset, sequence.timestamp, waiting.due_ms))
    return Record(
        queue_topic,
        waiting.value,
        key=waiting.key,
        headers=[*waiting.headers, lane_header(waiting.key), own],
        partition=waiting.place.partition,
    )


def read(key: bytes | None, value: bytes | None, headers: Headers) -> tuple[Place, Waiting | None]:
    """Decode a record of a lanes topic: its place, and the waiting message (None for a tombstone).

    Raises:
      ValueError, KeyError: When this broker did not write it.
    """
    group, *numbers = (key or b"").decode().rsplit(":", 3)
    partition, offset, timestamp = map(int, numbers)
    place = Place(group, partition, SequenceNumber(offset, timestamp))
    if value is None:
        return place, None
    own = dict(headers)
    return place, Waiting(place, own[KEY], int(own[DUE]), value, without_own(headers))


def is_mark(key: bytes | None) -> bool:
    """Whether a record of a lanes topic is a unique mark, or the tombstone of one."""
    return key is not None and key.endswith(_MARK_END)


def is_pace(key: bytes | None) -> bool:
    """Whether a record of a lanes topic is the pace of a key, or its tombstone."""
    return key is not None and key.endswith(_PACE_END)


def key_state_record(
    topic: str, group: str, partition: int, key: bytes, state: KeyState, *, watch: Watch | None = None
) -> Record:
    """The record of a unique mark or of a pace.

    Parameters:
      partition: That of the queue.
      key: The lane.
    """
    return Record(
        topic,
        state.encode(),
        key=_state_key(group, partition, key, state),
        headers=[lane_header(key)],
        partition=state.kept_in,
        watch=watch,
    )


def key_state_tombstone(
    topic: str, group: str, partition: int, key: bytes, state: KeyState, *, watch: Watch | None = None
) -> Record:
    """The tombstone of such a record."""
    record_key = _state_key(group, partition, key, state)
    return Record(topic, None, key=record_key, partition=state.kept_in, watch=watch)


def _state_key(group: str, partition: int, key: bytes, state: KeyState) -> bytes:
    end = _MARK_END if isinstance(state, Mark) else _PACE_END
    return f"{group}:{partition}:{hashlib.sha256(key).hexdigest()}".encode() + end


def read_key_state(record_key: bytes, headers: Headers) -> tuple[str, int, bytes | None]:
    """The group of a unique mark or a pace, its partition of the queue, and its lane; None for a tombstone's
    lane.

    Raises:
      ValueError, KeyError: When this broker did not write it.
    """
    group, partition, _, _ = record_key.decode().rsplit(":", 3)
    return group, int(partition), dict(headers).get(KEY)


def read_requeue_headers(headers: Headers) -> tuple[SequenceNumber, int] | None:
    """The sequence number and due time of a requeue record; None for another record."""
    for name, content in headers:
        if name == TICKET_HEADER:
            try:
                offset, timestamp, due_ms = map(int, content.split(b":"))
            except (AttributeError, ValueError):
                return None  # another producer's header: the record is a first record
            return SequenceNumber(offset, timestamp), due_ms
    return None


def without_own(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The headers without those that the lanes topic and requeue records add."""
    return [header for header in headers if not header[0].startswith("lane-")]
