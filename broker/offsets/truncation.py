"""Corrects a committed state after a truncation of the log. Pure: no I/O.

A partition's log can lose its tail: a replica without all records is elected leader (an unclean election),
or a disk loses the last writes. The log then grows past its old end again with other records, so offsets
alone do not distinguish it from the log that was read. Leader epochs do: each election begins a new one,
every record carries the one in which it was written, and Kafka reports up to which offset a log has records
of an epoch (https://cwiki.apache.org/confluence/display/KAFKA/KIP-320).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..kafka.leader_epochs import EpochEnd
from . import committed_lanes
from .commit_metadata import CommitState

#: The cut of a log that was replaced as a whole: none of its records is one that was read.
ALL_OF_IT = 0


@dataclass(frozen=True, slots=True)
class PartitionLog:
    """The current log of a partition.

    Attributes:
      beginning: The log start.
      end: The offset after the last record.
      leader_epoch: The leader's own epoch; -1 when it is not known.
    """

    beginning: int
    end: int
    leader_epoch: int = -1


def believe(state: CommitState, log: PartitionLog, answer: EpochEnd | None) -> tuple[CommitState, int | None]:
    """The part of ``state`` that is true of ``log``, and the cut (None when the log was not truncated).

    Parameters:
      answer: The leader's answer about the leader epoch of ``state``; None when it was not asked.
    """
    cut = cut_of(state.highest, state.leader_epoch, answer, end=log.end, leader_epoch=log.leader_epoch)
    if cut is None:
        return state, None
    if cut == ALL_OF_IT:
        return CommitState(log.beginning, log.beginning - 1, clean=True), cut
    return forget_from(state, cut, leader_epoch=-1 if answer is None else answer.epoch), cut


def cut_of(
    highest: int, epoch: int, answer: EpochEnd | None, *, end: int, leader_epoch: int = -1
) -> int | None:
    """The offset from which on the log has other records than when ``highest`` was read.

    Parameters:
      highest: An offset that was read.
      epoch: The leader epoch of the record there, -1 when it is not known.
      answer: The leader's answer about that epoch; None when it was not, or cannot be, asked.
      end: The current end of the log.
      leader_epoch: The leader's own epoch, used without an answer; -1 when it is not known.

    Returns:
      The cut; None when the log was not truncated, ALL_OF_IT when it was replaced as a whole.
    """
    if epoch < 0 or answer is None:
        if highest < end:
            return None
        # A log loses its tail in an election. Without an election the topic was recreated.
        return end if leader_epoch > 0 else ALL_OF_IT
    if answer.epoch < 0 or answer.end_offset < 0:
        return ALL_OF_IT  # the epochs of this log have never reached ``epoch``
    if answer.end_offset > highest:
        # The log has the offset. A record of an earlier epoch is another record, from an unknown offset on.
        return None if answer.epoch == epoch else ALL_OF_IT
    if 0 <= answer.leader_epoch <= epoch:
        return ALL_OF_IT  # a shorter log without an election
    return answer.end_offset


def is_cut(position: int, epoch: int, answer: EpochEnd) -> bool:
    """Whether the log was truncated below ``position`` since it was read up to there.

    Parameters:
      epoch: The leader epoch of the last record below ``position`` at that time.
      answer: The leader's answer about that epoch.
    """
    return position > 0 and cut_of(position - 1, epoch, answer, end=position) is not None


def forget_from(state: CommitState, cut: int, *, leader_epoch: int = -1) -> CommitState:
    """``state`` without the offsets at or above ``cut``, which have other records now.

    Parameters:
      leader_epoch: The leader epoch of the record before ``cut``; -1 when it is not known.
    """
    if cut > state.highest:
        return state
    return replace(
        state,
        next_offset=min(state.next_offset, cut),
        highest=cut - 1,
        incomplete=tuple(offset for offset in state.incomplete if offset < cut),
        suspicions={offset: s for offset, s in state.suspicions.items() if offset < cut},
        log_start=state.log_start if state.next_offset < state.log_start <= cut else 0,
        leader_epoch=leader_epoch,
        lanes=None if state.lanes is None else state.lanes.forget_from(cut),
    )


def merge(first: CommitState, second: CommitState) -> CommitState:
    """The union of two states of one log: an offset is complete when it is complete in either.

    Crash counts and the log start are those of ``first``.
    """
    later = first if first.highest >= second.highest else second
    incomplete = tuple(
        sorted(
            {o for o in first.incomplete if not second.is_complete(o)}
            | {o for o in second.incomplete if not first.is_complete(o)}
        )
    )
    next_offset = incomplete[0] if incomplete else later.highest + 1
    return replace(
        first,
        next_offset=next_offset,
        highest=later.highest,
        incomplete=incomplete,
        suspicions={o: s for o, s in first.suspicions.items() if o in incomplete},
        log_start=first.log_start if first.log_start > next_offset else 0,
        leader_epoch=later.leader_epoch,
        lanes=committed_lanes.merge(first.lanes, second.lanes),
    )
