"""Which part of what was read of a log is still there. Pure: no I/O.

A partition's log can lose its tail: a replica that has not all of it is elected its leader (an unclean
election), or a disk loses the last writes. The log then grows past its old end again with other records, so
offsets alone cannot tell it from the one that was read. Leader epochs can: each election starts a new one,
every record carries the one it was written in, and Kafka says up to which offset a log has records of an
epoch (https://cwiki.apache.org/confluence/display/KAFKA/KIP-320).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .commit_metadata import CommitState

#: Where a log is cut of which nothing can be believed: it is another one.
ALL_OF_IT = 0


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """What the leader of a partition says about a leader epoch.

    Attributes:
      epoch: The latest epoch, not above the one that was asked for, of which its log has records; -1 when its
        log knows of none that is as late as the one asked for.
      end_offset: Where that epoch ends; -1 as above.
      leader_epoch: The leader's own; -1 when that is not known.
    """

    epoch: int
    end_offset: int
    leader_epoch: int = -1


@dataclass(frozen=True, slots=True)
class PartitionLog:
    """A partition's log as it is now.

    Attributes:
      beginning: Its first offset.
      end: The offset after its last.
      leader_epoch: Its leader's; -1 when it is not known.
    """

    beginning: int
    end: int
    leader_epoch: int = -1


def believe(state: CommitState, log: PartitionLog, answer: EpochEnd | None) -> tuple[CommitState, int | None]:
    """What of ``state`` is true of ``log``, and where that was cut, as ``cut_of`` says it.

    Parameters:
      answer: What the partition's leader says about the state's leader epoch, if it was asked.
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
    """From which offset on a log has other records than it had when ``highest`` was read.

    Parameters:
      highest: An offset that was read.
      epoch: The leader epoch of the record there, -1 when that is not known.
      answer: What the partition's leader says about that epoch; None when it was not, or cannot be, asked.
      end: Where the log ends now.
      leader_epoch: The leader's own epoch, for when there is no answer; -1 when that is not known.

    Returns:
      None when it is the same log; ALL_OF_IT when it is another one.
    """
    if epoch < 0 or answer is None:
        if highest < end:
            return None
        # A log loses its tail in an election. Without one the topic was made anew.
        return end if leader_epoch > 0 else ALL_OF_IT
    if answer.epoch < 0 or answer.end_offset < 0:
        return ALL_OF_IT  # a log whose epochs have never come so far
    if answer.end_offset > highest:
        # The offset is there. In an earlier epoch it is another record, and nothing says since when.
        return None if answer.epoch == epoch else ALL_OF_IT
    if 0 <= answer.leader_epoch <= epoch:
        return ALL_OF_IT  # shorter, and without an election
    return answer.end_offset


def is_cut(position: int, epoch: int, answer: EpochEnd) -> bool:
    """Whether a log has other records below ``position`` than it had when it was read up to there.

    Parameters:
      epoch: The leader epoch of what stood last below ``position``.
    """
    return position > 0 and cut_of(position - 1, epoch, answer, end=position) is not None


def forget_from(state: CommitState, cut: int, *, leader_epoch: int = -1) -> CommitState:
    """``state`` without what it says of offsets at or above ``cut``: they are other records now.

    Parameters:
      leader_epoch: Of the record before ``cut``, where that is known.
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
    )


def merge(first: CommitState, second: CommitState) -> CommitState:
    """What is known of a log by who knows both: an offset is complete when either says so.

    What is neither's business, crash counts and the log's start, is the first one's.
    """
    later = first if first.highest >= second.highest else second
    incomplete = tuple(
        sorted(
            {o for o in first.incomplete if not _is_complete(second, o)}
            | {o for o in second.incomplete if not _is_complete(first, o)}
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
    )


def _is_complete(state: CommitState, offset: int) -> bool:
    return offset < state.next_offset or (offset <= state.highest and offset not in state.incomplete)
