"""The completed offsets of one partition. Pure: no I/O, no clock, no lock.

Offsets are delivered in ascending order and complete in any order. A commit contains the *next offset* (every
offset below it is complete) and the incomplete offsets above it.
"""

from __future__ import annotations

from collections.abc import Iterable


class AckTracker:
    """The completion state of one partition during one assignment.

    Every offset is in one of three states: *complete*, *incomplete* (in flight, parked, or left incomplete by
    an earlier owner), or above :attr:`highest` and not delivered yet. An offset below ``highest`` that was
    never delivered (a control record, a compacted record, an aborted one) is complete: it can never run.

    Parameters:
      next_offset: The committed offset. Every offset below it is complete.
      highest: The highest delivered offset, or None without a delivered offset at or above ``next_offset``.
      incomplete: The offsets in ``[next_offset, highest]`` that are not complete.
      leader_epoch: The leader epoch of the record at ``highest``; -1 when it is not known.

    Raises:
      ValueError: When an incomplete offset is outside ``[next_offset, highest]``.
    """

    def __init__(
        self,
        next_offset: int,
        *,
        highest: int | None = None,
        incomplete: Iterable[int] = (),
        leader_epoch: int = -1,
    ) -> None:
        self.leader_epoch = leader_epoch
        self.highest = next_offset - 1 if highest is None else highest
        # Ascending. Later deliveries have higher offsets, so insertion keeps the order and the first key is
        # the minimum.
        self._incomplete: dict[int, None] = dict.fromkeys(sorted(incomplete))
        self._restored: set[int] = set(self._incomplete)
        if self.highest < next_offset - 1 or any(
            not next_offset <= o <= self.highest for o in self._incomplete
        ):
            raise ValueError(
                f"incomplete offsets {list(self._incomplete)} are not in [{next_offset}, {self.highest}]"
            )

    @property
    def next_offset(self) -> int:
        """The offset to commit: the lowest incomplete offset, or the one after :attr:`highest`."""
        return next(iter(self._incomplete), self.highest + 1)

    @property
    def incomplete(self) -> list[int]:
        """The incomplete offsets, ascending."""
        return list(self._incomplete)

    def __len__(self) -> int:
        """The number of incomplete offsets."""
        return len(self._incomplete)

    def is_to_run(self, offset: int) -> bool:
        """Whether the record at ``offset`` was neither delivered here nor completed by an earlier owner."""
        return offset > self.highest or offset in self._restored

    def is_complete(self, offset: int) -> bool:
        """Whether the record at ``offset`` never runs here again."""
        return offset <= self.highest and offset not in self._incomplete

    def deliver(self, offset: int, leader_epoch: int = -1) -> bool:
        """Note the delivery of the record at ``offset``, and return whether it is to be run.

        False means that an earlier owner has completed it, or that it was delivered before.
        """
        if offset > self.highest:
            self.highest = offset
            self.leader_epoch = leader_epoch
            self._incomplete[offset] = None
            return True
        if offset in self._restored:
            self._restored.discard(offset)
            return True
        return False

    def complete(self, offset: int) -> bool:
        """Complete a delivered offset; False when it was complete before or was never delivered."""
        if offset in self._restored or offset not in self._incomplete:
            return False
        del self._incomplete[offset]
        return True

    def left_behind(self, start: int, stop: int) -> int:
        """The number of offsets in ``[start, stop)`` that an earlier owner left incomplete and that were not
        delivered since.
        """
        return sum(start <= offset < stop for offset in self._restored)

    def skip_to(self, position: int, leader_epoch: int = -1) -> None:
        """Note that every record below ``position`` that still exists was delivered.

        Offsets below it that an earlier owner left incomplete are no longer in the log: they complete.

        Parameters:
          leader_epoch: The leader epoch of the last record below ``position``; -1 when it is not known: an
            election may have taken place since the last delivered record.
        """
        for offset in [offset for offset in self._restored if offset < position]:
            self._restored.discard(offset)
            del self._incomplete[offset]
        if position > self.highest + 1:
            self.highest = position - 1
            self.leader_epoch = leader_epoch
