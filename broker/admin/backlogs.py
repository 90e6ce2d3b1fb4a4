"""Reads the logs and commits of many queues' topics at once, in any process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ..dead_letters.topic_log import LogBounds
from ..kafka.clients import Clients
from ..kafka.errors import GroupAuthorizationFailedError
from ..kafka.leader_epochs import EpochEnds
from ..kafka.protocol import AdminClient, ConsumerClient
from ..kafka.topic_states import existing
from ..kafka.types import OffsetAndMetadata, TopicPartition
from ..kafka.watermarks import high_watermarks
from ..offsets.commit_metadata import CommitState
from ..offsets.committed_state import RESTORE_TIMEOUT_MS, read_metadata
from ..offsets.truncation import ALL_OF_IT, PartitionLog, believe
from ..process import clock
from .flush_markers import FlushMarker, group_of, markers_of
from .partition_counts import PartitionCounts, count_records

#: The timeout of a request for offsets.
REQUEST_TIMEOUT_MS = 10_000
#: The time for which the records are read whose age is asked for. A partition whose leader does not answer by
#: then has no age.
TIMESTAMPS_TIMEOUT_S = 5.0
POLL_MS = 100
#: One record of each partition is wanted, and the answers of all partitions are in memory at once.
FETCH_BYTES = 4 * 1024 * 1024
PARTITION_FETCH_BYTES = 64 * 1024

Bounds = dict[TopicPartition, tuple[int, int]]


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


def partition_backlogs(
    kafka: ConsumerClient,
    commits: Mapping[TopicPartition, OffsetAndMetadata],
    bounds: Mapping[TopicPartition, tuple[int, int]],
) -> dict[TopicPartition, PartitionBacklog]:
    """The partitions with their committed states, corrected for truncations, as a worker would restore them.

    Parameters:
      commits: What the groups have committed, read after the bounds.
      bounds: The bounds of the logs.
    """
    states = {partition: read_metadata(partition, commit) for partition, commit in commits.items()}
    epochs = {partition: state.leader_epoch for partition, state in states.items()}
    answers = EpochEnds(kafka, epochs, timeout_ms=RESTORE_TIMEOUT_MS).answers()
    found = {p: PartitionBacklog(None, *bounds[p]) for p in bounds}
    for p, state in states.items():
        log = PartitionLog(*bounds[p], kafka.leader_epoch(p))
        believed, cut = believe(state, log, answers.get(p))
        end = log.end if cut == ALL_OF_IT else cut
        # Without an answer, the log may have grown between the look at its end and the commit.
        if end is None or answers.get(p) is None:
            end = state.highest + 1
        found[p] = PartitionBacklog(believed, *bounds[p], lost_tail=max(0, state.highest + 1 - end))
    return found


class Backlogs:
    """The logs of many topics, and the committed states of the queues' topics among them. One client of each
    kind reads all of them, and each request is about all.

    Parameters:
      groups: The consumer group of each queue's topic.
      beside: Further topics whose bounds are read.
      seen: Topics whose bounds are read if this client may see them.

    Attributes:
      bounds: The bounds of the logs: the first offset and the end of each partition. Those of ``seen`` may
        have a lower end on the embedded broker, and are right about whether the log is empty.
      states: The committed states, corrected for truncations. :meth:`read` reads them.

    Use it as a context manager: it holds connections. Every method raises KafkaError when a node does not
    answer; the caller then repeats the call on a new object.
    """

    def __init__(
        self,
        clients: Clients,
        groups: Mapping[str, str],
        *,
        beside: Collection[str] = (),
        seen: Collection[str] = (),
    ) -> None:
        self._groups = groups
        self._open = ExitStack()
        self.states: dict[TopicPartition, CommitState] = {}
        with ExitStack() as stack:
            self._admin: AdminClient = stack.enter_context(clients.admin())
            there = existing(self._admin, {*groups, *beside})
            visible = _visible(self._admin, seen)
            self._kafka: ConsumerClient = clients.consumer(
                # Of topics that exist: a client asks again and again for others.
                topics=[*there, *visible],
                auto_offset_reset="earliest",  # retention may remove a record before it is read
                fetch_max_wait_ms=10,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
                max_poll_records=1,
            )
            stack.callback(self._kafka.close, autocommit=False)
            self.bounds = self._bounds(_partitions(there), _partitions(visible))
            self._open = stack.pop_all()

    def __enter__(self) -> Backlogs:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def log_bounds(self, topic: str) -> LogBounds:
        """The bounds of a topic; without the topic there are no partitions."""
        found = {p.partition: bounds for p, bounds in self.bounds.items() if p.topic == topic}
        return LogBounds.of(self._kafka.topic_id(topic), found)

    def read(self) -> dict[TopicPartition, PartitionBacklog]:
        """The records and the committed states of the partitions of all queues, with the flush markers of
        those whose ledgers have a difference without them. A client that may not read the markers gets none.
        """
        asked: dict[str, list[TopicPartition]] = {}
        bounds = {p: found for p, found in self.bounds.items() if p.topic in self._groups}
        for partition in bounds:
            asked.setdefault(self._groups[partition.topic], []).append(partition)
        answers = self._admin.group_offsets(asked)
        commits = {p: commit for found in answers.values() for p, commit in found.items()}
        found = partition_backlogs(self._kafka, commits, bounds)
        self.states = {p: backlog.state for p, backlog in found.items() if backlog.state is not None}
        return self._with_flushes(found)

    def _with_flushes(
        self, partitions: Mapping[TopicPartition, PartitionBacklog]
    ) -> dict[TopicPartition, PartitionBacklog]:
        asked: dict[str, list[TopicPartition]] = {}
        for partition, found in partitions.items():
            if found.counts.difference:
                asked.setdefault(group_of(self._groups[partition.topic]), []).append(partition)
        markers = markers_of(self._kafka, _allowed(self._admin, asked)) if asked else {}
        return {p: replace(found, flushed=markers.get(p)) for p, found in partitions.items()}

    def timestamps(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The timestamp of the first record at or above an offset, in milliseconds since 1970.

        Partitions without such a record, and without a timestamp, are left out.
        """
        kafka, found = self._kafka, dict[TopicPartition, int]()
        missing = {p for p, offset in offsets.items() if offset < self.bounds[p][1]}
        if not missing:
            return {}
        kafka.assign([])  # a partition of an earlier call would stay paused
        kafka.assign(sorted(missing))
        for partition in missing:
            kafka.seek(partition, offsets[partition])
        deadline_s = clock.monotonic_s() + TIMESTAMPS_TIMEOUT_S
        while missing and clock.monotonic_s() < deadline_s:
            for partition, records in kafka.poll(timeout_ms=POLL_MS).items():
                found.setdefault(partition, records[0].timestamp)
            # Without a record: the others are Kafka's control records.
            read = {p for p in missing if p in found or (kafka.position(p) or 0) >= self.bounds[p][1]}
            kafka.pause(*read)
            missing -= read
        return {partition: stamp_ms for partition, stamp_ms in found.items() if stamp_ms > 0}

    def _bounds(self, followed: list[TopicPartition], visible: list[TopicPartition]) -> Bounds:
        kafka = self._kafka
        beginning = kafka.beginning_offsets([*followed, *visible], timeout_ms=REQUEST_TIMEOUT_MS)
        end = kafka.end_offsets(visible, timeout_ms=REQUEST_TIMEOUT_MS) if visible else {}
        end = end | (high_watermarks(kafka, followed) if followed else {})
        return {partition: (beginning[partition], end[partition]) for partition in [*followed, *visible]}


def _visible(admin: AdminClient, topics: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """The descriptions of those topics that exist and that this client may see."""
    described = admin.describe_topics(sorted(topics)) if topics else ()
    return {found["name"]: found for found in described if not found.get("error_code", 0)}


def _partitions(described: Mapping[str, Mapping[str, Any]]) -> list[TopicPartition]:
    return [
        TopicPartition(name, partition["partition_index"])
        for name, found in sorted(described.items())
        for partition in found["partitions"]
    ]


def _allowed(
    admin: AdminClient, groups: Mapping[str, Collection[TopicPartition]]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """The committed offsets of those groups that this client may describe."""
    try:
        answers = admin.group_offsets(groups)
    except GroupAuthorizationFailedError:
        if len(groups) == 1:
            return {}
        # The error is about one of them.
        return {
            p: commit for group in groups for p, commit in _allowed(admin, {group: groups[group]}).items()
        }
    return {p: commit for found in answers.values() for p, commit in found.items()}
