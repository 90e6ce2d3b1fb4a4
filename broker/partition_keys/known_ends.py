"""The ends of a lanes topic, as far as this process knows them."""

from __future__ import annotations

from collections.abc import Mapping

from ..offsets.committed_lanes import LogEnd
from .acknowledged_ends import AcknowledgedEnds


class KnownEnds:
    """The ends up to which one reader has read a topic, and this process has written it.

    Parameters:
      written: The ends that Kafka has acknowledged to this process.
    """

    def __init__(self, topic: str, written: AcknowledgedEnds) -> None:
        self._topic = topic
        self._written = written
        #: Also of earlier connections.
        self._read: dict[int, LogEnd] = {}
        self._restarts = written.restarts(topic)

    @property
    def was_read(self) -> bool:
        return bool(self._read)

    @property
    def has_unread(self) -> bool:
        """Whether a record of this process is not read yet."""
        read = self._positions()
        return any(end > read.get(number, 0) for number, end in self._written.ends(self._topic).items())

    @property
    def were_replaced(self) -> bool:
        """Whether another reader of this process has noticed a truncation since :meth:`note_replaced`.

        It has replaced the written ends, by which this reader would have noticed the truncation.
        """
        return self._restarts != self._written.restarts(self._topic)

    def note_replaced(self) -> None:
        self._restarts = self._written.restarts(self._topic)

    def lowest(self) -> dict[int, int]:
        """The lowest possible end of each partition of the topic."""
        return highest(self._written.ends(self._topic), self._positions())

    def log_ends(self) -> dict[int, LogEnd]:
        """The ends with their leader epochs, where these are known. Any thread may call it."""
        ends = {number: end for number, end in self._read.copy().items() if end.leader_epoch >= 0}
        for number, end in self._written.log_ends(self._topic).items():
            ends[number] = max(ends.get(number, end), end)
        return ends

    def note_read(self, number: int, end: LogEnd) -> None:
        self._read[number] = end

    def forget_reads(self) -> None:
        """Note that the topic is another one."""
        self._read.clear()

    def restart(self, ends: Mapping[int, int]) -> None:
        """Note the ends of a topic that was recreated, or truncated at an unknown offset."""
        self.forget_reads()
        self._written.restart(self._topic, ends)
        self.note_replaced()

    def cut(self, cuts: Mapping[int, int]) -> None:
        """Note the offsets from which on truncated partitions have other records."""
        self._read.update((number, LogEnd(cut, -1)) for number, cut in cuts.items())
        self._written.restart(self._topic, {**self._written.ends(self._topic), **cuts})
        self.note_replaced()

    def _positions(self) -> dict[int, int]:
        return {number: end.end for number, end in self._read.items()}


def highest(*ends: Mapping[int, int]) -> dict[int, int]:
    """The highest of several offsets, by partition."""
    return {number: max(some.get(number, 0) for some in ends) for number in set().union(*ends)}
