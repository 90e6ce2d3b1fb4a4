"""Where to go on with a partition: reads what its last owner committed and compares it with what the log
still has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace

from kafka import KafkaConsumer
from kafka.structs import OffsetAndMetadata, TopicPartition

from .clients import Clients
from .commit_metadata import CommitState, Suspicion, UnreadableMetadata, decode
from .watermarks import high_watermarks

logger = logging.getLogger(__name__)

#: How long one question may take before the whole is asked again later; the consumer's thread waits for it.
RESTORE_TIMEOUT_MS = 5_000


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition as its last owner left it.

    Attributes:
      state: What to go on from.
      unclean: Whether the last owner ended without handing over: its process died, or it lost its membership.
      end_offset: Where the partition ends now.
    """

    state: CommitState
    unclean: bool
    end_offset: int


def restore(
    clients: Clients, kafka: KafkaConsumer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, Restored]:
    """Read the committed state of ``partitions``.

    Raises:
      KafkaError: When Kafka does not answer; nothing has been changed then.
    """
    partitions = list(partitions)
    committed = read_committed(kafka, partitions, timeout_ms=RESTORE_TIMEOUT_MS)
    left = {partition: read_metadata(partition, commit) for partition, commit in committed.items()}
    beginning = kafka.beginning_offsets(partitions, timeout_ms=RESTORE_TIMEOUT_MS)
    end = kafka.end_offsets(partitions, timeout_ms=RESTORE_TIMEOUT_MS)
    if beyond := [p for p, state in left.items() if state.highest >= end[p]]:
        # Before anything is called gone, the end is read in the way that every broker answers truly.
        with closing(clients.consumer(fetch_max_wait_ms=10)) as reader:
            end.update(high_watermarks(reader, beyond))
    return {p: _reconcile(p, left.get(p), beginning=beginning[p], end=end[p]) for p in partitions}


def read_committed(
    kafka: KafkaConsumer, partitions: Iterable[TopicPartition], *, timeout_ms: int | None = None
) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group has committed for ``partitions``, without those it has committed nothing for.

    It is what kafka.committed() asks for one partition; a round trip for each would add up where they are
    many.
    """
    committed: dict[TopicPartition, OffsetAndMetadata] = kafka._coordinator.fetch_committed_offsets(
        list(partitions), timeout_ms=timeout_ms
    )
    return committed


def _reconcile(partition: TopicPartition, state: CommitState | None, *, beginning: int, end: int) -> Restored:
    if state is None:
        return Restored(CommitState(beginning, beginning - 1), unclean=False, end_offset=end)
    unclean = not state.clean
    if unclean:
        state = after_a_crash(state)
    if state.highest >= end:
        # What is said of offsets that are not there yet would be said of other records, so none is believed.
        logger.error(
            "%s: a record at offset %d was read before, and the log ends at %d: the topic was made anew or "
            "has lost its tail. Going on from its beginning, %d; %d record(s) are gone, %d of them not done.",
            _name(partition), state.highest, end, beginning, state.highest + 1 - end,
            sum(offset >= end for offset in state.incomplete),
        )  # fmt: skip
        return Restored(CommitState(beginning, beginning - 1), unclean=False, end_offset=end)
    if state.next_offset < beginning:
        state = _without_removed(partition, state, beginning)
    return Restored(state, unclean, end)


def read_metadata(partition: TopicPartition, committed: OffsetAndMetadata) -> CommitState:
    """Decode a commit. One that cannot be read means replay from its offset, never a skip."""
    try:
        return decode(committed.offset, committed.metadata or "")
    except UnreadableMetadata as e:
        if committed.metadata:
            logger.warning("%s: %s; replaying from offset %d.", _name(partition), e, committed.offset)
        return CommitState(committed.offset, committed.offset - 1)


def after_a_crash(state: CommitState) -> CommitState:
    """Count the crash of the owner who left ``state`` behind against everything that was running then."""
    return replace(
        state,
        suspicions={
            offset: Suspicion(suspicion.crashes + suspicion.running, running=False)
            for offset, suspicion in state.suspicions.items()
        },
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
    )


def report_removed(partition: TopicPartition, count: int, beginning: int) -> None:
    """Say that records were deleted before they were run: nobody can bring them back."""
    logger.error(
        "%s: %d record(s) were removed from the log before they were run: by retention, by a flush, or "
        "because the topic was made anew. Going on from offset %d; raise the topic's retention if that was "
        "not intended.",
        _name(partition), count, beginning,
    )  # fmt: skip


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}[{partition.partition}]"
