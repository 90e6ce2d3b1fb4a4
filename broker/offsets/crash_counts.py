"""The crash counts of one partition: which of its records may have killed a worker. Pure: no I/O, no lock.

    a record on probation is about to run      it gets a running mark          CrashCounts.mark_running
    its owner ends without a handover          each marked offset: one crash   after_a_crash
    its owner was killed for a known record    that one: its count; the marks: none   after_a_kill
    its owner hands over, or returns alive     the marks count for nothing     without_marks
    its queue is paused before it has begun    the mark is removed             CrashCounts.unmark
    the record is complete                     its crash count is dropped      CrashCounts.drop

The commit metadata carries crash counts and marks from one owner to the next (see ``commit_metadata``).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from types import MappingProxyType

from .commit_metadata import CommitState, Suspicion


class CrashCounts:
    """The crash counts and running marks of a partition's incomplete offsets during one assignment.

    Attributes:
      suspicions: The crash count and the running mark of each offset that has one.
      probation_end: Records below it get a running mark in a commit before they are dispatched.
    """

    __slots__ = ("probation_end", "suspicions")

    def __init__(
        self, suspicions: Mapping[int, Suspicion] = MappingProxyType({}), probation_end: int = 0
    ) -> None:
        self.suspicions: dict[int, Suspicion] = dict(suspicions)
        self.probation_end = probation_end

    def crashes(self, offset: int) -> int:
        suspicion = self.suspicions.get(offset)
        return suspicion.crashes if suspicion else 0

    def is_on_probation(self, offset: int) -> bool:
        """Whether the record at ``offset`` may have crashed an owner."""
        return offset < self.probation_end or self.crashes(offset) > 0

    def is_suspect(self, offset: int) -> bool:
        """Whether the record at ``offset`` had a running mark at a crash during the probation."""
        return self.crashes(offset) > 1

    def mark_running(self, offset: int) -> None:
        """Give the record at ``offset`` a running mark: it is about to run. The crash that began the
        probation counts.
        """
        self.suspicions[offset] = Suspicion(max(1, self.crashes(offset)), running=True)

    def unmark(self, offset: int) -> None:
        """Remove the running mark of a record that does not run after all. Its crash count stays."""
        if (suspicion := self.suspicions.get(offset)) is not None and suspicion.running:
            self.suspicions[offset] = Suspicion(suspicion.crashes, running=False)

    def drop(self, offset: int) -> None:
        """Drop the crash count of a record that is complete."""
        self.suspicions.pop(offset, None)

    def of_commit(self, incomplete: Container[int], *, clean: bool) -> dict[int, Suspicion]:
        """The suspicions that a commit contains.

        Parameters:
          clean: Whether the commit is a handover. That is no crash: a delivery that still runs counts none.
        """
        return {
            offset: Suspicion(suspicion.crashes, suspicion.running and not clean)
            for offset, suspicion in self.suspicions.items()
            if offset in incomplete
        }


def after_a_crash(state: CommitState) -> CommitState:
    """Add one crash to each offset that had a running mark in the commit of the crashed owner."""
    return replace(
        state,
        suspicions={
            offset: Suspicion(suspicion.crashes + suspicion.running, running=False)
            for offset, suspicion in state.suspicions.items()
        },
    )


def after_a_kill(state: CommitState, culprits: Mapping[int, int]) -> CommitState:
    """The state of a partition whose owner was killed for records that are known. The others are no suspects.

    Parameters:
      culprits: The crash counts of those records. One above ``state.highest`` was delivered after the commit.
    """
    state = without_marks(state)
    counted = {offset: Suspicion(crashes, running=False) for offset, crashes in culprits.items()}
    return replace(state, suspicions={**state.suspicions, **counted})


def without_marks(state: CommitState) -> CommitState:
    """The state of a partition whose owner lives: its running records have not crashed."""
    return replace(
        state,
        suspicions={
            offset: Suspicion(suspicion.crashes, running=False)
            for offset, suspicion in state.suspicions.items()
        },
    )
