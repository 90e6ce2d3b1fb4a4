"""The committed lanes: the part of a commit about the lanes topic, and its use after a truncation of that.

Pure: no I/O.

The offset of a waiting message is complete in its queue, and so is the offset of a message that is done. Only
the lanes topic distinguishes the two. An unclean election can remove a waiting entry or a tombstone from it.
The owner of a partition therefore commits its knowledge: the ends of the lanes topic with their leader
epochs, and the messages that waited, or had waited and ran.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

#: The size of the lanes in a commit, at most, in bytes before their encoding (1,024 characters).
MAX_LANES_BYTES = 768
#: The number of waiting messages in a commit, at most. It bounds the time for a commit.
MAX_LISTED = 2_048
#: Kafka's offsets are signed 64-bit integers.
_MAX_OFFSET = 2**63 - 1
_MAX_EPOCH = 2**31 - 1


class LogEnd(NamedTuple):
    """The end of a log, and the leader epoch of the record before it."""

    end: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class CommittedLanes:
    """The knowledge of a partition's owner about the lanes topic.

    An offset here is that of a message's first record, as in its sequence number.

    Attributes:
      ends: The ends up to which the owner had read or written the partitions of the lanes topic.
      waiting: The offsets of the messages in the lanes topic, ascending: the highest ones, as many as fit.
      omitted: The number of further ones, all of them below those.
      omitted_from: The lowest offset of these.
    """

    ends: Mapping[int, LogEnd] = field(default_factory=dict)
    waiting: tuple[int, ...] = ()
    omitted: int = 0
    omitted_from: int = 0

    def is_unknown(self, offset: int) -> bool:
        """Whether the message with this first offset may be an omitted one."""
        return (
            self.omitted > 0
            and offset >= self.omitted_from
            and (not self.waiting or offset < self.waiting[0])
        )

    def forget_from(self, cut: int) -> CommittedLanes:
        """The same without the messages at or above ``cut``, where the queue has other records now."""
        waiting = tuple(offset for offset in self.waiting if offset < cut)
        if self.omitted and self.omitted_from >= cut:
            return replace(self, waiting=waiting, omitted=0, omitted_from=0)
        return replace(self, waiting=waiting)


def merge(first: CommittedLanes | None, second: CommittedLanes | None) -> CommittedLanes | None:
    """The union of two owners' knowledge, the later one first: a message waits when it waits in either."""
    if first is None or second is None:
        return first
    waiting = sorted({*first.waiting, *second.waiting})
    lists = [lanes for lanes in (first, second) if lanes.omitted]
    if not lists:
        return replace(first, waiting=tuple(waiting))
    # Below the beginning of the shorter list, no message is known for certain.
    begins = [lanes.waiting[0] if lanes.waiting else _MAX_OFFSET for lanes in lists]
    listed = tuple(offset for offset in waiting if offset >= max(begins))
    omitted = max(lanes.omitted for lanes in lists) + len(waiting) - len(listed)
    lowest = min([*(lanes.omitted_from for lanes in lists), *waiting])
    return CommittedLanes(first.ends, listed, omitted, lowest)


def summarize(
    ends: Mapping[int, LogEnd], kept: Sequence[int], *, highest: int, room: int
) -> CommittedLanes | None:
    """The part of an owner's knowledge that fits into ``room`` bytes; None when none fits, or there is none.

    Parameters:
      ends: The ends of the lanes topic's partitions.
      kept: The first offsets of the messages in the lanes topic, ascending.
      highest: The partition's highest delivered offset. Offsets above it belong to another log.
    """
    ends = {partition: end for partition, end in sorted(ends.items()) if end.leader_epoch >= 0 < end.end}
    left = min(room, MAX_LANES_BYTES) - _size_of_ends(ends) - 3 * _MAX_VARINT_BYTES
    if not ends or left < 0:
        return None
    listed: list[int] = []
    below = highest + 1
    index = len(kept)
    while index and len(listed) < MAX_LISTED:
        offset = kept[index - 1]
        if offset <= highest and (not listed or offset < listed[-1]):
            if not listed or offset != listed[-1] - 1:  # another run
                cost = varint_size(below - offset) + _RUN_LENGTH_BYTES
                if cost > left:
                    break
                left -= cost
            listed.append(offset)
            below = offset
        index -= 1
    while index and listed and kept[index - 1] == listed[-1]:
        index -= 1
    waiting = tuple(reversed(listed))
    return CommittedLanes(ends, waiting, index, kept[0]) if index else CommittedLanes(ends, waiting)


@dataclass(frozen=True, slots=True)
class Differences:
    """The differences between a truncated lanes topic and the committed lanes of one partition.

    Attributes:
      lost: The first offsets of waiting messages that the topic has lost.
      done: The first offsets of messages that are done, and wait in the topic again.
    """

    lost: tuple[int, ...] = ()
    done: tuple[int, ...] = ()


def compare(
    lanes: CommittedLanes,
    present: Collection[int],
    ended: Collection[int],
    is_complete: Iterable[int],
) -> Differences:
    """Compare the committed lanes with the current lanes topic. All offsets are first offsets of messages.

    Parameters:
      present: The messages that wait in the topic.
      ended: The messages with a tombstone in the topic: done, or flushed.
      is_complete: Those of ``present`` that are complete in the commit. The others run again anyway.
    """
    there, known = set(present), set(lanes.waiting)
    lost = tuple(offset for offset in lanes.waiting if offset not in there and offset not in ended)
    done = tuple(o for o in sorted(is_complete) if o not in known and not lanes.is_unknown(o))
    return Differences(lost, done)


# The encoding in the commit metadata

_MAX_VARINT_BYTES = 10
#: The size of the length of a run of MAX_LISTED.
_RUN_LENGTH_BYTES = 2


def numbers_of(lanes: CommittedLanes, highest: int) -> Iterator[int]:
    """Encode ``lanes`` as unsigned numbers, which :func:`read` decodes."""
    yield len(lanes.ends)
    previous = -1
    for partition, end in sorted(lanes.ends.items()):
        yield partition - previous - 1
        yield end.end
        yield end.leader_epoch
        previous = partition
    runs = list(_runs(lanes.waiting))
    yield len(runs)
    below = highest + 1
    for start, length in runs:
        yield below - (start + length)
        yield length - 1
        below = start - 1
    yield lanes.omitted
    if lanes.omitted:
        yield _lowest(lanes.waiting, highest) - lanes.omitted_from - 1


def read(numbers: Iterator[int], highest: int) -> CommittedLanes:
    """Decode the numbers of :func:`numbers_of`.

    Raises:
      ValueError, StopIteration: When they are invalid.
    """
    ends: dict[int, LogEnd] = {}
    partition = -1
    for _ in range(next(numbers)):
        partition += next(numbers) + 1
        ends[partition] = end = LogEnd(next(numbers), next(numbers))
        if end.end > _MAX_OFFSET or end.leader_epoch > _MAX_EPOCH:
            raise ValueError("its ends are impossible")
    listed: list[int] = []
    below = highest + 1
    for _ in range(next(numbers)):
        stop = below - next(numbers)
        length = next(numbers) + 1
        if stop - length < 0 or len(listed) + length > MAX_LISTED:
            raise ValueError("its waiting messages are impossible")
        listed += range(stop - 1, stop - length - 1, -1)
        below = stop - length - 1
    waiting = tuple(reversed(listed))
    omitted = next(numbers)
    if not omitted:
        return CommittedLanes(ends, waiting)
    omitted_from = _lowest(waiting, highest) - next(numbers) - 1
    if omitted_from < 0:
        raise ValueError("its waiting messages are impossible")
    return CommittedLanes(ends, waiting, omitted, omitted_from)


def varint_size(number: int) -> int:
    """The size of an unsigned LEB128 varint, in bytes."""
    return max(1, (number.bit_length() + 6) // 7)


def _size_of_ends(ends: Mapping[int, LogEnd]) -> int:
    return sum(
        varint_size(partition) + varint_size(end.end) + varint_size(end.leader_epoch)
        for partition, end in ends.items()
    )


def _lowest(waiting: Sequence[int], highest: int) -> int:
    return waiting[0] if waiting else highest + 1


def _runs(ascending: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The runs of consecutive offsets as (first, length), the highest first."""
    stop = len(ascending)
    while stop:
        start = stop - 1
        while start and ascending[start - 1] == ascending[start] - 1:
            start -= 1
        yield ascending[start], stop - start
        stop = start
