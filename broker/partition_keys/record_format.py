"""What a lanes topic holds, and how a message comes back from it.

One compacted topic a queue, ``{queue}_lanes``. The latest record of a key counts:

    key                                        value                  meaning
    {group}:{partition}:{offset}:{timestamp}   the encoded message    it waits in the lane named by
                                                                      ``lane-key``
                                               none (tombstone)       it is done, or was flushed

All records of a key are in the partition that its first one went to, also when partitions are added later.
A *mark* is a tombstone of no message (``{group}:{partition of the lanes topic}:-1:-1``): whoever has read it
has read everything that was acknowledged before it was sent.

``group`` is the workers' ``group_id``: two groups may read one queue, and what waits in one may be done in
the other. ``partition`` is the queue's, ``offset`` and ``timestamp`` are the message's order number.

What waits comes back as a *ticket*: a record in its partition of the queue, with the order number and the due
time of the wait that it ends in the header ``lane-ticket``. A ticket is worth nothing once its message has
been done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..produce.publisher import Record
from .lanes import SequenceNumber

KEY = "lane-key"
DUE = "lane-due-ms"
TICKET = "lane-ticket"
#: What a ticket's header adds to its message, at most: three numbers of up to 19 digits.
REQUEUE_HEADERS_BYTES = 80

Headers = Sequence[tuple[str, bytes]]

#: The order number of no message.
NOWHERE = SequenceNumber(-1, -1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message first stood for a group: a partition of its queue, and its order number there."""

    group: str
    partition: int
    sequence: SequenceNumber

    def __str__(self) -> str:
        return f"{self.group}:{self.partition}:{self.sequence.offset}:{self.sequence.timestamp}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits in its lane.

    Attributes:
      key: The lane's.
      due_ms: When it may run; 0 for one that only waits for those before it.
      value: The encoded message.
      headers: What its record in the queue's topic had and will have.
      kept_in: The partition of the lanes topic that its record was read from. None when it was not read.
    """

    place: Place
    key: bytes
    due_ms: int
    value: bytes
    headers: Headers = ()
    kept_in: int | None = None


def lane_header(key: bytes) -> tuple[str, bytes]:
    """What says that a record belongs into a lane. A key alone does not: others key their records, too."""
    return KEY, key


def lane_of(headers: Headers) -> bytes | None:
    """The key of the lane that a record belongs into; None for none."""
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
    watch: Callable[[int, int | None], None] | None = None,
) -> Record:
    """What the lanes topic ``topic`` keeps of a message until it goes back to ``destination``, its queue's.

    Parameters:
      partition: The partition that keeps it already; None when none does.
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
    watch: Callable[[int, int | None], None] | None = None,
) -> Record:
    """What ends the wait at ``place``, which ``partition`` keeps; None when that is not known."""
    return Record(topic, None, key=str(place).encode(), partition=partition, watch=watch)


def mark(topic: str, group: str, partition: int, *, watch: Callable[[int, int | None], None]) -> Record:
    """A record that means nothing, and whose offset is above everything that was acknowledged before."""
    return tombstone(topic, Place(group, partition, NOWHERE), partition=partition, watch=watch)


def requeue_record(queue_topic: str, waiting: Waiting) -> Record:
    sequence = waiting.place.sequence
    own = (TICKET, b"%d:%d:%d" % (sequence.offset, sequence.timestamp, waiting.due_ms))
    return Record(
        queue_topic,
        waiting.value,
        key=waiting.key,
        headers=[*waiting.headers, lane_header(waiting.key), own],
        partition=waiting.place.partition,
    )


def read(key: bytes | None, value: bytes | None, headers: Headers) -> tuple[Place, Waiting | None]:
    """Understand a record of a lanes topic: whose it is, and None when that is done.

    Raises:
      ValueError, KeyError: When it is none of this broker's.
    """
    group, *numbers = (key or b"").decode().rsplit(":", 3)
    partition, offset, timestamp = map(int, numbers)
    place = Place(group, partition, SequenceNumber(offset, timestamp))
    if value is None:
        return place, None
    own = dict(headers)
    return place, Waiting(place, own[KEY], int(own[DUE]), value, without_own(headers))


def read_requeue_headers(headers: Headers) -> tuple[SequenceNumber, int] | None:
    """The order number and the due time on a ticket; None when the record is none."""
    for name, content in headers:
        if name == TICKET:
            try:
                offset, timestamp, due_ms = map(int, content.split(b":"))
            except (AttributeError, ValueError):
                return None  # nobody's: the message is one of its own
            return SequenceNumber(offset, timestamp), due_ms
    return None


def without_own(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """What belongs to the message and not to its way through the lanes topic."""
    return [header for header in headers if not header[0].startswith("lane-")]
