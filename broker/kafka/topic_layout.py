"""The settings with which the broker creates a topic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .topic_policies import CLEANUP_POLICY, MAX_MESSAGE_BYTES, RETENTION_BYTES, RETENTION_MS, Role, limit_for

#: The copies of a partition on a cluster of so many nodes or more. MIN_INSYNC_REPLICAS of them have a record
#: before Kafka acknowledges it: a node may be lost without a failed send or a lost record.
REPLICAS = 3
MIN_INSYNC_REPLICAS = 2
#: The value of Kafka's protocol for the cluster's ``default.replication.factor``.
CLUSTERS_DEFAULT = -1

DEAD_LETTER_RETENTION_MS = 30 * 24 * 3600 * 1000
#: Tombstones in the delayed topic must outlive the longest absence of a forwarder that remembers its offset.
DELAYED_TOMBSTONE_RETENTION_MS = 24 * 3600 * 1000
#: Kafka compacts whole segments, but not the one that it writes to. By default a segment has up to 1 GiB, and
#: is up to a week old.
DELAYED_SEGMENT_BYTES = 64 * 1024 * 1024
DELAYED_SEGMENT_MS = 3600 * 1000
#: Kafka deletes whole segments, once ``retention.ms`` has passed since their last record. With its default of
#: a week for a segment, the records of completed messages would outlive their committed offsets by a week.
QUEUE_SEGMENT_MS = 24 * 3600 * 1000
#: Reports of a day: those of a worker that is gone are of use for the time of an incident. Small segments are
#: compacted soon, so that a reader gets few reports beside the last of each worker.
WORKERS_RETENTION_MS = 24 * 3600 * 1000
WORKERS_SEGMENT_BYTES = 16 * 1024 * 1024
WORKERS_SEGMENT_MS = 10 * 60 * 1000
#: Each occurrence writes a record, and the next owner reads the topic before it enqueues: small segments are
#: compacted soon.
SCHEDULES_SEGMENT_BYTES = 16 * 1024 * 1024
SCHEDULES_SEGMENT_MS = 10 * 60 * 1000
HISTORY_RETENTION_MS = 24 * 3600 * 1000
HISTORY_RETENTION_BYTES = 1024 * 1024 * 1024
#: Kafka deletes whole segments, so a partition has up to one segment more than its retention.
HISTORY_SEGMENT_BYTES = 128 * 1024 * 1024
HISTORY_SEGMENT_MS = 3600 * 1000
MIN_INSYNC = "min.insync.replicas"
#: A cluster may have another default, with which Kafka refuses records without a key.
KEPT_FOR_A_TIME = {CLEANUP_POLICY: "delete"}


@dataclass(frozen=True, slots=True)
class TopicLayout:
    """The properties of the topics that the broker creates.

    Attributes:
      replication_factor: The copies of a partition; None: as the cluster suggests, see :meth:`fitted`.
      retention_ms: The retention of a queue's topic.
    """

    partitions: int
    replication_factor: int | None
    retention_ms: int

    def fitted(self, nodes: int) -> TopicLayout:
        """This layout with the replication of a cluster of so many nodes, unless one was chosen: REPLICAS
        copies for three nodes or more, otherwise the default of the cluster.
        """
        if self.replication_factor is not None or nodes < REPLICAS:
            return self
        return replace(self, replication_factor=REPLICAS)

    @property
    def min_insync_replicas(self) -> int | None:
        """The setting ``min.insync.replicas`` of each topic; None: that of the cluster."""
        return MIN_INSYNC_REPLICAS if (self.replication_factor or 0) >= REPLICAS else None

    def spec(self, role: Role, queue_limit: int | None) -> dict[str, Any]:
        """The entry of a new topic for ``AdminClient.create_topics``.

        Parameters:
          queue_limit: The largest ``max.message.bytes`` of the queues whose messages the topic holds, as far
            as it is known.
        """
        copies = CLUSTERS_DEFAULT if self.replication_factor is None else self.replication_factor
        in_sync = self.min_insync_replicas
        return {
            # Every worker reads them, and those of one partition in their order.
            "num_partitions": 1 if role in (Role.WORKERS, Role.CONTROL, Role.SCHEDULES) else self.partitions,
            "replication_factor": copies,
            # Kafka's clock stamps the records. By the clock of a producer, retention would delete the records
            # of one that is behind, and Kafka would refuse those of one that is an hour ahead.
            "configs": {
                "message.timestamp.type": "LogAppendTime",
                **({} if in_sync is None else {MIN_INSYNC: str(in_sync)}),
                **self._limits(role, queue_limit),
            },
        }

    def retention_of(self, role: Role) -> int:
        """The retention of a queue's topic, or of its dead letters, in ms."""
        return DEAD_LETTER_RETENTION_MS if role is Role.DEAD_LETTERS else self.retention_ms

    def _limits(self, role: Role, queue_limit: int | None) -> dict[str, str]:
        if role is Role.QUEUE:
            segment_ms = self.retention_ms if 0 < self.retention_ms < QUEUE_SEGMENT_MS else QUEUE_SEGMENT_MS
            return {**KEPT_FOR_A_TIME, RETENTION_MS: str(self.retention_ms), "segment.ms": str(segment_ms)}
        if role is Role.WORKERS:
            return {
                CLEANUP_POLICY: "compact,delete",
                RETENTION_MS: str(WORKERS_RETENTION_MS),
                "segment.bytes": str(WORKERS_SEGMENT_BYTES),
                "segment.ms": str(WORKERS_SEGMENT_MS),
                "max.compaction.lag.ms": str(WORKERS_SEGMENT_MS),
            }
        if role is Role.HISTORY:
            return {
                **KEPT_FOR_A_TIME,
                RETENTION_MS: str(HISTORY_RETENTION_MS),
                RETENTION_BYTES: str(HISTORY_RETENTION_BYTES),
                "segment.bytes": str(HISTORY_SEGMENT_BYTES),
                "segment.ms": str(HISTORY_SEGMENT_MS),
            }
        compacted = {
            CLEANUP_POLICY: "compact",
            "delete.retention.ms": str(DELAYED_TOMBSTONE_RETENTION_MS),
            "segment.bytes": str(DELAYED_SEGMENT_BYTES),
            "segment.ms": str(DELAYED_SEGMENT_MS),
            "max.compaction.lag.ms": str(DELAYED_SEGMENT_MS),
        }
        if role is Role.CONTROL:
            return compacted
        if role is Role.SCHEDULES:
            return compacted | {
                "segment.bytes": str(SCHEDULES_SEGMENT_BYTES),
                "segment.ms": str(SCHEDULES_SEGMENT_MS),
                "max.compaction.lag.ms": str(SCHEDULES_SEGMENT_MS),
            }
        limit = str(limit_for(role, queue_limit))
        if role is Role.DEAD_LETTERS:
            return {
                **KEPT_FOR_A_TIME,
                RETENTION_MS: str(self.retention_of(role)),
                MAX_MESSAGE_BYTES: limit,
            }
        return {**compacted, MAX_MESSAGE_BYTES: limit}
