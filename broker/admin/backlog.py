"""Counts and drops the records of a queue's topic, read from Kafka alone, in any process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from ..kafka.clients import Clients
from ..kafka.protocol import AdminClient, ConsumerClient
from ..kafka.types import OffsetAndMetadata, TopicPartition
from ..kafka.watermarks import high_watermarks
from ..offsets.commit_metadata import CommitState
from ..offsets.committed_state import read_committed, read_metadata
from ..process import clock
from .backlogs import PartitionBacklog, partition_backlogs
from .flush_markers import FlushMarkers, FlushNote

logger = logging.getLogger(__name__)

#: The time for which a flush waits for workers to drop the records that they have read. They check twice a
#: second and commit a moment later. Kafka removes a worker that does not answer for this time from its group.
FLUSH_TIMEOUT_S = 10.0
FLUSH_POLL_S = 0.05
#: The timeout of the search for a group's coordinator. kafka-python has none.
REQUEST_TIMEOUT_MS = 10_000


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
        found = partition_backlogs(self._kafka, self._commits(ranges), ranges)
        self.states = {p: backlog.state for p, backlog in found.items() if backlog.state is not None}
        return found

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
        states = {p: read_metadata(p, commit) for p, commit in self._commits(ends).items()}
        return [p for p, state in states.items() if max(state.next_offset, state.log_start) < ends[p]]

    def _commits(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        return read_committed(self._kafka, partitions, timeout_ms=REQUEST_TIMEOUT_MS)

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
