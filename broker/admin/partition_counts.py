"""Counts the records of one partition by its log and by the last commit of its owner. Pure.

Every record that was ever written to a partition is in one of four sets::

    0 .......... next offset .......... highest ........ end of the log
    completed    | completed, or incomplete    | waiting

and a waiting or incomplete record below the beginning of the log was *removed*: retention or a flush deleted
it before it was known to be complete. One of a flush is *purged*, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..offsets.commit_metadata import CommitState

NOTHING = range(0)


@dataclass(frozen=True, slots=True)
class PartitionCounts:
    """The records of one partition, or the sums of several.

    Attributes:
      written: The records ever written: the end of the log. Kafka's control records are in it.
      completed: The records that need no further run, and the control records below the highest.
      incomplete: The records in the log that were delivered and are not complete: they run, or are held.
      waiting: The records in the log that were not delivered.
      removed: The records that were deleted before they were known to be complete. A worker that has read
        them still runs them.
      purged: The records that flushes have deleted before they were known to be complete.
      kept: The records that the log has.
    """

    written: int = 0
    completed: int = 0
    incomplete: int = 0
    waiting: int = 0
    removed: int = 0
    purged: int = 0
    kept: int = field(default=0, compare=False)

    @property
    def kept_completed(self) -> int:
        """The completed records that the log still has, with the control records among them."""
        return max(0, self.kept - self.left)

    @property
    def left(self) -> int:
        """The records in the log that are not complete."""
        return self.waiting + self.incomplete

    @property
    def difference(self) -> int:
        """The records of which no commit and no log knows anything: written, and neither completed nor
        incomplete nor waiting nor purged. Without lost records it is 0.
        """
        return self.written - self.completed - self.incomplete - self.waiting - self.purged

    def __add__(self, other: PartitionCounts) -> PartitionCounts:
        return PartitionCounts(
            self.written + other.written,
            self.completed + other.completed,
            self.incomplete + other.incomplete,
            self.waiting + other.waiting,
            self.removed + other.removed,
            self.purged + other.purged,
            self.kept + other.kept,
        )


def count_records(
    state: CommitState | None, beginning: int, end: int, flushed: range = NOTHING
) -> PartitionCounts:
    """Count the records of a partition.

    Parameters:
      state: The committed state, corrected for truncations; None without a commit. Without one, all records
        of the log wait, and those below it are unknown.
      beginning, end: The bounds of its log.
      flushed: The offsets of the records that flushes have deleted.
    """
    gone = range(flushed.start, min(flushed.stop, beginning))
    if state is None:
        return PartitionCounts(written=end, waiting=end - beginning, purged=len(gone), kept=end - beginning)
    delivered_end = min(max(state.highest + 1, state.next_offset), end)
    incomplete = sum(beginning <= offset < end for offset in state.incomplete)
    below = sum(offset < beginning for offset in state.incomplete)
    return PartitionCounts(
        written=end,
        completed=delivered_end - incomplete - below,
        incomplete=incomplete,
        waiting=max(0, end - max(delivered_end, beginning)),
        removed=below + max(0, beginning - delivered_end),
        purged=sum(offset in gone for offset in state.incomplete)
        + len(range(max(gone.start, delivered_end), gone.stop)),
        kept=end - beginning,
    )
