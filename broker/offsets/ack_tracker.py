"""Which offsets of one partition are done. Pure: no I/O, no clock, no lock.

Offsets are delivered in ascending order and complete in any order. What Kafka is told is one *next offset*
(everything below it is done) and the offsets above it that are not.
"""

from __future__ import annotations

from collections.abc import Iterable


class AckTracker:
    """The completion state of one partition during one assignment.

    Every offset is in one of three states: *complete*, *incomplete* (a delivery that is outstanding, or one
      that an
    earlier owner left behind), or beyond :attr:`highest` and so not delivered yet. An offset below
    ``highest`` that was never delivered (a control record, one compacted away, an aborted one) is complete:
    nobody will ever run it.

    Parameters:
      next_offset: The committed offset: everything below it is complete.
      highest: The highest offset that was ever delivered, or None when there is none at or above
        ``next_offset``.
      incomplete: The offsets in ``[next_offset, highest]`` that are not complete.
      leader_epoch: Of the record at ``highest``; -1 when it is not known.

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
        # Ascending, which insertion order then keeps: later deliveries are higher. So the first key is the
        # minimum.
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
        """The offset to commit: the lowest incomplete one, or the one after the highest delivered."""
        return next(iter(self._incomplete), self.highest + 1)

    @property
    def incomplete(self) -> list[int]:
        """The incomplete offsets, ascending."""
        return list(self._incomplete)

    def __len__(self) -> int:
        """How many offsets are incomplete."""
        return len(self._incomplete)

    def is_to_run(self, offset: int) -> bool:
        """Whether the record at ``offset`` was neither delivered before nor completed by an earlier owner."""
        return offset > self.highest or offset in self._restored

    def deliver(self, offset: int, leader_epoch: int = -1) -> bool:
        """Note that the record at ``offset``, of that leader epoch, was read, and say whether it is to be
        run.

        False means that an earlier owner has completed it already.
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
        """Mark a delivered offset complete; False when it was complete already or never delivered."""
        if offset in self._restored or offset not in self._incomplete:
            return False
        del self._incomplete[offset]
        return True

    def left_behind(self, start: int, stop: int) -> int:
        """How many offsets in ``[start, stop)`` an earlier owner left incomplete and nobody has read
        since.
        """
        return sum(start <= offset < stop for offset in self._restored)

    def skip_to(self, position: int, leader_epoch: int = -1) -> None:
        """Note that every record below ``position`` that still exists was delivered.

        What an earlier owner left incomplete below it is no longer in the log and cannot be run.

        Parameters:
          leader_epoch: Of what stands last below ``position``; -1 when that is not known. Then the epoch
            of the last record that was delivered stands for it.
        """
        for offset in [offset for offset in self._restored if offset < position]:
            self._restored.discard(offset)
            del self._incomplete[offset]
        if position > self.highest + 1:
            self.highest = position - 1
            if leader_epoch >= 0:
                self.leader_epoch = leader_epoch
