"""Restores a partition: reads the committed state of its last owner and compares it with the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from ..kafka.clients import Clients
from ..kafka.leader_epochs import EpochEnds, EpochEndsByPartition
from ..kafka.protocol import ConsumerClient
from ..kafka.types import OffsetAndMetadata, TopicPartition
from ..kafka.watermarks import high_watermarks
from ..reaper.kill_note import KillNote, culprits_of
from .commit_metadata import CommitState, UnreadableMetadata, decode
from .crash_counts import after_a_crash, after_a_kill, without_marks
from .expired_offsets import report_replay
from .remembered import Remembered
from .truncation import ALL_OF_IT, PartitionLog, believe, merge

logger = logging.getLogger(__name__)

#: The timeout of one request of a restore, which is then repeated later. The consumer's thread waits for it.
RESTORE_TIMEOUT_MS = 5_000
#: The log line about a truncated log.
LOST_TAIL = (
    "%s: the log lost its tail, as it does when a replica without it is elected (an unclean election). "
    "It was read up to offset %d, and from offset %d on it has other records, or none yet: %d record(s) that "
    "were read are gone, %d of them not done. Continuing from offset %d. "
    "unclean.leader.election.enable=false and min.insync.replicas=2 prevent it."
)


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored partition.

    Attributes:
      state: The committed state, corrected by the log and by this process's remembered state.
      unclean: Whether the last owner ended without a handover: its process died, or it lost its membership.
      end_offset: The current end of the log.
      probation_end: The end of the partition's probation, if this process was its last owner; otherwise 0.
      topic_id: The id of its topic; None when Kafka does not report one.
    """

    state: CommitState
    unclean: bool
    end_offset: int
    probation_end: int = 0
    topic_id: object = None


def restore(
    clients: Clients,
    kafka: ConsumerClient,
    partitions: Iterable[TopicPartition],
    remembered: Mapping[TopicPartition, Remembered] = MappingProxyType({}),
    *,
    reported_replays: set[TopicPartition],
    kill_notes: Callable[[], Collection[KillNote]] = tuple,
) -> dict[TopicPartition, Restored]:
    """Read the committed state of ``partitions``.

    Parameters:
      remembered: The remembered state of those partitions that this process has owned before.
      reported_replays: See ``report_replay``.
      kill_notes: Reads for which tasks workers were killed lately. It is called when a partition comes from
        an owner that ended without a handover.

    Raises:
      KafkaError: When Kafka does not answer. Nothing has been changed then.
    """
    partitions = list(partitions)
    committed = read_committed(kafka, partitions, timeout_ms=RESTORE_TIMEOUT_MS)
    topic_ids = {p: kafka.topic_id(p.topic) for p in partitions}
    own = {p: known for p, known in remembered.items() if known.is_of(topic_ids.get(p))}
    ours = {p: known for p, known in own.items() if known.is_latest(committed.get(p))}
    left = {p: read_metadata(p, commit) for p, commit in committed.items() if p not in ours}
    left.update((p, without_marks(known.state)) for p, known in ours.items())
    logs, answers = read_logs(clients, kafka, partitions, left)
    report_replay(clients, kafka, {p: log for p, log in logs.items() if p not in left}, reported_replays)
    notes = kill_notes() if any(not s.clean for p, s in left.items() if p not in ours) else ()
    restored = {
        p: _reconcile(p, left.get(p), logs[p], answers, is_ours=p in ours, notes=notes) for p in partitions
    }
    _, answers = read_logs(clients, kafka, [], others := {p: own[p].state for p in own if p not in ours})
    for partition, state in others.items():
        # An owner in between does not know the tasks that have finished here since.
        done_here, _ = believe(state, logs[partition], answers.get(partition))
        found = restored[partition]
        restored[partition] = replace(found, state=merge(found.state, done_here))
    return {
        p: replace(found, topic_id=topic_ids[p], probation_end=ours[p].probation_end if p in ours else 0)
        for p, found in restored.items()
    }


def read_logs(
    clients: Clients,
    kafka: ConsumerClient,
    partitions: list[TopicPartition],
    states: Mapping[TopicPartition, CommitState],
) -> tuple[dict[TopicPartition, PartitionLog], EpochEndsByPartition]:
    """The current logs of ``partitions``, and the ends of the leader epochs in ``states``.

    Raises:
      KafkaError: When Kafka does not answer.
    """
    epochs = {partition: state.leader_epoch for partition, state in states.items()}
    asked = EpochEnds(kafka, epochs, timeout_ms=RESTORE_TIMEOUT_MS)
    beginning: dict[TopicPartition, int] = {}
    end: dict[TopicPartition, int] = {}
    if partitions:
        beginning = kafka.beginning_offsets(partitions, timeout_ms=RESTORE_TIMEOUT_MS)
        end = kafka.end_offsets(partitions, timeout_ms=RESTORE_TIMEOUT_MS)
    answers = asked.answers()
    if beyond := [p for p in partitions if p in states and states[p].highest >= end[p]]:
        # Records count as lost only by the high watermark, which is correct on every broker.
        with closing(clients.consumer(fetch_max_wait_ms=10)) as reader:
            end.update(high_watermarks(reader, beyond))
    return {p: PartitionLog(beginning[p], end[p], kafka.leader_epoch(p)) for p in partitions}, answers


def read_committed(
    kafka: ConsumerClient, partitions: Iterable[TopicPartition], *, timeout_ms: int | None = None
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The commits of the consumer group for ``partitions``; partitions without a commit are left out.

    kafka.committed() sends one request per partition. This sends one for all of them.
    """
    return kafka.committed_offsets(list(partitions), timeout_ms=timeout_ms)


def _reconcile(
    partition: TopicPartition,
    left: CommitState | None,
    log: PartitionLog,
    answers: EpochEndsByPartition,
    *,
    is_ours: bool,
    notes: Collection[KillNote],
) -> Restored:
    if left is None:
        return Restored(CommitState(log.beginning, log.beginning - 1), unclean=False, end_offset=log.end)
    state, cut = believe(left, log, answers.get(partition))
    if cut is not None:
        _report_cut(partition, left, state.next_offset, cut, log.end)
    unclean = not is_ours and not state.clean
    if unclean:
        culprits = culprits_of(notes, partition, partial(_crashes_of, state))
        if culprits is None:
            state = after_a_crash(state)
        else:
            state, unclean = after_a_kill(state, culprits), False
    if state.next_offset < log.beginning:
        state = _without_removed(partition, state, log.beginning)
    return Restored(state, unclean, log.end)


def _crashes_of(state: CommitState, offset: int) -> int | None:
    """The crash count of an offset; None when it is complete."""
    if state.is_complete(offset):
        return None
    suspicion = state.suspicions.get(offset)
    return 0 if suspicion is None else suspicion.crashes


def _report_cut(partition: TopicPartition, left: CommitState, next_offset: int, cut: int, end: int) -> None:
    if cut == ALL_OF_IT:
        logger.error(
            "%s: a record at offset %d was read before, and the log ends at %d: the topic was recreated "
            "or has lost its tail. Continuing from its beginning, %d; %d record(s) are gone, %d of them not "
            "done.",
            name_of(partition), left.highest, end, next_offset, max(0, left.highest + 1 - end),
            sum(offset >= end for offset in left.incomplete),
        )  # fmt: skip
    else:
        report_lost_tail(
            partition, left.highest + 1, cut, sum(offset >= cut for offset in left.incomplete), next_offset
        )


def report_lost_tail(
    partition: TopicPartition, position: int, cut: int, undone: int, next_offset: int
) -> None:
    """Log that a partition was read up to ``position`` and has other records from ``cut`` on."""
    logger.error(LOST_TAIL, name_of(partition), position, cut, position - cut, undone, next_offset)


def read_metadata(partition: TopicPartition, committed: OffsetAndMetadata) -> CommitState:
    """Decode a commit. Unreadable metadata leads to a replay from its offset, never to a skip."""
    leader_epoch = -1 if committed.leader_epoch is None else committed.leader_epoch
    try:
        state = decode(committed.offset, committed.metadata or "")
        return replace(state, leader_epoch=leader_epoch)
    except UnreadableMetadata as e:
        if committed.metadata:
            logger.warning("%s: %s; replaying from offset %d.", name_of(partition), e, committed.offset)
        return CommitState(
            committed.offset, committed.offset - 1, leader_epoch=leader_epoch, has_metadata=False
        )


def _without_removed(partition: TopicPartition, state: CommitState, beginning: int) -> CommitState:
    incomplete = tuple(offset for offset in state.incomplete if offset >= beginning)
    never_run = len(state.incomplete) - len(incomplete) + max(0, beginning - state.highest - 1)
    if never_run:
        report_removed(partition, never_run, beginning)
    return replace(
        state,
        next_offset=beginning,
        highest=max(state.highest, beginning - 1),
        incomplete=incomplete,
        suspicions={offset: s for offset, s in state.suspicions.items() if offset >= beginning},
        # An election may have taken place among the removed records. With the epoch of an earlier record, the
        # next comparison would take that election for a lost tail.
        leader_epoch=state.leader_epoch if beginning - 1 <= state.highest else -1,
    )


def report_removed(partition: TopicPartition, count: int, beginning: int) -> None:
    """Log that records were deleted before they were run. They are lost."""
    logger.error(
        "%s: %d record(s) were removed from the log before they were run: by retention, by a flush, or "
        "because the topic was recreated. Continuing from offset %d; raise the topic's retention if that was "
        "not intended.",
        name_of(partition), count, beginning,
    )  # fmt: skip


def name_of(partition: TopicPartition) -> str:
    return f"{partition.topic}[{partition.partition}]"
