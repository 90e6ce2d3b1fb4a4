"""Counts and drops the records of a queue's topic, read from Kafka alone, in any process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..kafka.clients import Clients
from ..kafka.errors import GroupAuthorizationFailedError
from ..kafka.leader_epochs import EpochEnds
from ..kafka.protocol import AdminClient, ConsumerClient
from ..kafka.types import TopicPartition
from ..kafka.watermarks import high_watermarks
from ..offsets.commit_metadata import CommitState
from ..offsets.committed_state import RESTORE_TIMEOUT_MS, read_committed, read_metadata
from ..offsets.truncation import ALL_OF_IT, PartitionLog, believe
from ..process import clock
from .flush_markers import FlushMarker, FlushMarkers, FlushNote
from .partition_counts import PartitionCounts, count_records

logger = logging.getLogger(__name__)

#: The time for which a flush waits for workers to drop the records that they have read. They check twice a
#: second and commit a moment later. Kafka removes a worker that does not answer for this time from its group.
FLUSH_TIMEOUT_S = 10.0
FLUSH_POLL_S = 0.05
#: The timeout of the search for a group's coordinator. kafka-python has none.
REQUEST_TIMEOUT_MS = 10_000
#: The time for which the records are read whose age is asked for. A partition whose leader does not answer by
#: then has no age.
TIMESTAMPS_TIMEOUT_S = 5.0
POLL_MS = 100


@dataclass(frozen=True, slots=True)
class PartitionBacklog:
    """The log of a partition, and the committed state of its owner.

    Attributes:
      state: The committed state, corrected for truncations; None without a commit.
      beginning, end: The bounds of the log.
      flushed: The records that flushes have deleted; None without a marker, and until it is read.
      lost_tail: The records that workers have had and that the log has lost at its end since, until a worker
        takes the partition over again.
    """

    state: CommitState | None
    beginning: int
    end: int
    flushed: FlushMarker | None = None
    lost_tail: int = 0

    @property
    def counts(self) -> PartitionCounts:
        """Its records."""
        flushed = range(0) if self.flushed is None else range(self.flushed.start, self.flushed.end)
        return count_records(self.state, self.beginning, self.end, flushed)

    @property
    def next_undelivered(self) -> int:
        """The offset of the first record that waits, if one does."""
        delivered_end = 0 if self.state is None else max(self.state.highest + 1, self.state.next_offset)
        return min(self.end, max(self.beginning, delivered_end))

    @property
    def oldest_incomplete(self) -> int | None:
        """The lowest incomplete offset in the log; None without one."""
        incomplete = () if self.state is None else self.state.incomplete
        return next((offset for offset in incomplete if self.beginning <= offset < self.end), None)


class Backlog:
    """Counts and drops the waiting records of a queue's topic.

    Parameters:
      topic: The queue's topic. It must exist.
      group: The queue's consumer group.

    Attributes:
      states: The committed states, corrected for truncations. :meth:`count` reads them.
      is_gone: Whether the topic did not exist at the last look.

    Use it as a context manager: it holds a connection. Every method raises KafkaError when a node does not
    answer; the caller then repeats the call on a new object.
    """

    def __init__(self, clients: Clients, topic: str, group: str) -> None:
        self._clients = clients
        self._topic = topic
        self._kafka: ConsumerClient = clients.consumer(group_id=group, fetch_max_wait_ms=10)
        self._group = group
        self.states: dict[TopicPartition, CommitState] = {}
        self.is_gone = False

    def __enter__(self) -> Backlog:
        return self

    def __exit__(self, *exc: object) -> None:
        self._kafka.close(autocommit=False)

    def count(self) -> int:
        """The number of incomplete records: not read yet, in flight, or held.

        The number comes from the commits and is up to a commit interval old. It is never too low for messages
        that were sent before the call.
        """
        found = [backlog.counts for backlog in self.read().values()]
        left, removed = sum(counts.left for counts in found), sum(counts.removed for counts in found)
        # A worker may still have removed records. Without one, nobody runs them.
        if removed:
            with self._clients.admin() as admin:
                return left + removed if self._has_owners(admin) else left
        return left

    def read(self) -> dict[TopicPartition, PartitionBacklog]:
        """The records and the committed state of each partition."""
        ranges = self._ranges()
        believed = self._believed(ranges)
        self.states = states = {p: state for p, (state, _) in believed.items()}
        return {
            p: PartitionBacklog(states.get(p), *ranges[p], lost_tail=believed[p][1] if p in believed else 0)
            for p in ranges
        }

    def with_flushes(
        self, partitions: Mapping[TopicPartition, PartitionBacklog]
    ) -> dict[TopicPartition, PartitionBacklog]:
        """The same, with the markers of those partitions whose ledgers have a difference without them. A
        client that may not read the markers gets none.
        """
        asked = [partition for partition, found in partitions.items() if found.counts.difference]
        if not asked:
            return dict(partitions)
        try:
            markers = FlushMarkers(self._clients, self._group).read(asked)
        except GroupAuthorizationFailedError:
            markers = {}
        return {p: replace(found, flushed=markers.get(p)) for p, found in partitions.items()}

    def timestamps(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The timestamp of the first record at or above an offset, in milliseconds since 1970.

        Partitions without such a record, and without a timestamp, are left out.
        """
        if not offsets:
            return {}
        kafka, found = self._kafka, {}
        kafka.assign([])  # a partition of an earlier call would stay paused
        kafka.assign(list(offsets))
        for partition, offset in offsets.items():
            kafka.seek(partition, offset)
        ends = kafka.end_offsets(list(offsets), timeout_ms=REQUEST_TIMEOUT_MS)
        missing = {partition for partition, offset in offsets.items() if offset < ends[partition]}
        kafka.pause(*(offsets.keys() - missing))
        deadline_s = clock.monotonic_s() + TIMESTAMPS_TIMEOUT_S
        while missing and clock.monotonic_s() < deadline_s:
            for partition, records in kafka.poll(timeout_ms=POLL_MS).items():
                found[partition] = records[0].timestamp
                missing.discard(partition)
                kafka.pause(partition)
        return {partition: stamp_ms for partition, stamp_ms in found.items() if stamp_ms > 0}

    def ends(self) -> dict[TopicPartition, int]:
        """The ends of the partitions that have records."""
        return {partition: end for partition, (beginning, end) in self._ranges().items() if end > beginning}

    def drop(self, ends: Mapping[TopicPartition, int], note: FlushNote) -> None:
        """Delete every record below ``ends``, and wait until the topic's workers have dropped those that they
        have read and not begun.
        """
        if ends:
            beginnings = self._kafka.beginning_offsets(list(ends))
            FlushMarkers(self._clients, self._group).write(ends, beginnings, note)
            with self._clients.admin() as admin:
                admin.delete_records(ends)
                self._wait_for_owners(admin, ends)

    def _wait_for_owners(self, admin: AdminClient, ends: Mapping[TopicPartition, int]) -> None:
        deadline_s = clock.monotonic_s() + FLUSH_TIMEOUT_S
        while holders := self._holders(ends):
            if not self._has_owners(admin):
                return
            if clock.monotonic_s() > deadline_s:
                logger.warning(
                    "%s: the workers have not confirmed within %g s that they dropped the records that they "
                    "had read; they may still run them.",
                    holders, FLUSH_TIMEOUT_S,
                )  # fmt: skip
                return
            clock.sleep(FLUSH_POLL_S)

    def _holders(self, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
        """The partitions whose owners may hold a record below its end that has not begun."""
        return [
            partition
            for partition, state in self._committed(ends).items()
            if max(state.next_offset, state.log_start) < ends[partition]
        ]

    def _committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, CommitState]:
        committed = read_committed(self._kafka, partitions, timeout_ms=REQUEST_TIMEOUT_MS)
        return {partition: read_metadata(partition, commit) for partition, commit in committed.items()}

    def _believed(
        self, ranges: Mapping[TopicPartition, tuple[int, int]]
    ) -> dict[TopicPartition, tuple[CommitState, int]]:
        """The committed states, corrected for truncations, as a worker would restore them, and the numbers of
        records that the logs have lost at their ends.
        """
        states = self._committed(ranges)
        epochs = {partition: state.leader_epoch for partition, state in states.items()}
        answers = EpochEnds(self._kafka, epochs, timeout_ms=RESTORE_TIMEOUT_MS).answers()
        found = {}
        for p, state in states.items():
            log = PartitionLog(*ranges[p], self._kafka.leader_epoch(p))
            believed, cut = believe(state, log, answers.get(p))
            end = log.end if cut == ALL_OF_IT else cut
            # Without an answer, the log may have grown between the look at its end and the commit.
            if end is None or answers.get(p) is None:
                end = state.highest + 1
            found[p] = believed, max(0, state.highest + 1 - end)
        return found

    def _has_owners(self, admin: AdminClient) -> bool:
        return bool(admin.group_members(self._group))

    def _ranges(self) -> dict[TopicPartition, tuple[int, int]]:
        partitions = [
            TopicPartition(self._topic, p)
            for p in sorted(self._kafka.partitions_for_topic(self._topic) or ())
        ]
        self.is_gone = not partitions
        beginning = self._kafka.beginning_offsets(partitions)
        end = high_watermarks(self._kafka, partitions)
        return {partition: (beginning[partition], end[partition]) for partition in partitions}
