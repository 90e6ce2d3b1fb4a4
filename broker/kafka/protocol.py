"""The seam: the interface between the broker and a Kafka client, as types.

:class:`~broker.kafka.clients.Clients` constructs kafka-python's clients behind them. An in-memory client, or
another library, implements the same types. Every method that asks Kafka raises an error of
:mod:`broker.kafka.errors` without an answer. Times are in the unit that a name ends with: ``_ms`` or ``_s``,
the latter of ``clock.monotonic_s()``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from .types import (
    ConsumedRecord,
    EpochEndsByPartition,
    GroupMember,
    Headers,
    Heartbeat,
    Membership,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)

Offsets = Mapping[TopicPartition, OffsetAndMetadata]
#: Takes the offsets of a commit and its result: an exception, or any other value after a success.
CommitCallback = Callable[[Any, Any], None]


class RebalanceListener:
    """Receives a consumer's rebalances on the client's I/O thread: no callback may block.

    Parameters:
      on_assigned: Takes the partitions that were added.
      on_revoked: Takes the partitions that another member will get; returns an awaitable that commits them,
        or None.
      on_lost: Takes the partitions that another member may have already.
      is_busy: Whether the handover of any of these partitions should wait. It is called repeatedly before
        ``on_revoked`` while it returns True, for REVOKE_TIMEOUT_S at most.
      on_membership: Takes the consumer's membership when Kafka has given it a new member id: at the first
        join, and at each join after it was removed from its group.
    """

    def __init__(
        self,
        *,
        on_assigned: Callable[[Collection[TopicPartition]], None],
        on_revoked: Callable[[Collection[TopicPartition]], Awaitable[object] | None],
        on_lost: Callable[[Collection[TopicPartition]], None],
        is_busy: Callable[[Collection[TopicPartition]], bool] = lambda partitions: False,
        on_membership: Callable[[Membership], object] = lambda membership: None,
    ) -> None:
        self.on_membership = on_membership
        self.is_busy = is_busy
        self.on_assigned = on_assigned
        self.on_revoked = on_revoked
        self.on_lost = on_lost


class PendingOffsets(Protocol):
    """A pending request about offsets."""

    @property
    def is_done(self) -> bool:
        """Whether the request has ended, with an answer or without."""

    @property
    def value(self) -> Mapping[TopicPartition, OffsetAndTimestamp]:
        """The answer, once the request has succeeded."""

    def succeeded(self) -> bool:
        """Whether ``value`` is set."""


class PendingEpochEnds(Protocol):
    """A pending request about the ends of leader epochs."""

    def wait(self) -> EpochEndsByPartition:
        """Wait for the answers. A server without leader epochs gives none.

        Raises:
          KafkaError: When there is no answer in time.
        """


class ConsumerClient(Protocol):
    """A consumer: of a group after :meth:`subscribe`, or of the partitions of :meth:`assign`.

    One thread at a time uses it, except for :meth:`commit_async`, :meth:`pause` and :meth:`seek` in the
    callbacks of a rebalance, which run while that thread is in :meth:`poll` or :meth:`close`.

    Attributes:
      config: Its settings by kafka-python's names, defaults included.
    """

    config: Mapping[str, Any]

    # Records

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[ConsumedRecord]]:
        """Read the available records of the partitions that are not paused, in the order of offsets.

        It returns as soon as there are records or partitions were assigned, and after ``timeout_ms`` at the
        latest. A rebalance progresses in this call, which returns the records of the partitions that the
        member keeps meanwhile. Records before an error are returned, and the next call raises the error.

        Raises:
          KafkaError: An error of Kafka's; LogTruncationError and OffsetOutOfRangeError when a position is in
            no log.
        """

    def interrupt(self) -> None:
        """Let the current :meth:`poll` of a member of a group, or the next one, return early. Thread-safe."""

    def pause(self, *partitions: TopicPartition) -> None:
        """Stop reading ``partitions``. A rebalance that assigns a partition again resumes it."""

    def resume(self, *partitions: TopicPartition) -> None:
        """Read ``partitions`` again, from their positions."""

    def paused(self) -> set[TopicPartition]: ...

    def held_error(self) -> Exception | None:
        """The error that the next :meth:`poll` would raise; None without one."""

    def forget_held_error(self) -> None: ...

    def drop_unreadable_batch(self) -> TopicPartition | None:
        """Drop the buffered records of the partition whose batch caused the last error, and return the
        partition.

        The next :meth:`poll` fetches it again from the same position. None when no batch caused the error.
        """

    # Positions

    def seek(self, partition: TopicPartition, offset: int, leader_epoch: int = -1) -> None:
        """Set the position of an assigned partition.

        Parameters:
          leader_epoch: Of the record before ``offset``. With it, :meth:`poll` notices a truncation below.

        Raises:
          ValueError: When the partition is not assigned any more.
        """

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Set positions to the first offsets, which the next :meth:`poll` requests."""

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        """The position of a partition; None when it is not known within ``timeout_ms``.

        Raises:
          KeyError, AssertionError, IllegalStateError: When the partition is not assigned.
        """

    def position_epoch(self, partition: TopicPartition) -> int:
        """The leader epoch of the record before the position; -1 when unknown. It makes no request."""

    def highwater(self, partition: TopicPartition) -> int | None:
        """The offset after the partition's last record at the last fetch; None before the first."""

    # Offsets and leader epochs, asked of the leaders

    def beginning_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]: ...

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        """The offsets after the last records; with ``isolation_level="read_committed"``, the last stable
        offsets.
        """

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record of each partition that is not older than a time, in ms; None without one."""

    def ask_beginnings(self, partitions: Collection[TopicPartition], timeout_ms: float) -> PendingOffsets:
        """Make the request of :meth:`beginning_offsets` without a wait."""

    def ask_ends(self, partitions: Collection[TopicPartition], timeout_ms: float) -> PendingOffsets:
        """Make the request of :meth:`end_offsets` without a wait."""

    def ask_epoch_ends(self, epochs: Mapping[TopicPartition, int], timeout_ms: float) -> PendingEpochEnds:
        """Ask the leaders for the ends of leader epochs in their logs (KIP-320), without a wait.

        Parameters:
          epochs: The requested leader epoch, 0 or above, by partition.
        """

    # Groups

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener | None = None) -> None:
        """Join the group with the next :meth:`poll`, and share the partitions of ``topics`` with its members.

        The rebalance is cooperative (KIP-429): a member continues to read the partitions that it keeps.
        """

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions and no others, without being a member of the group."""

    def assignment(self) -> set[TopicPartition]: ...

    def group_id(self) -> str | None:
        """The consumer group; None for a consumer without one."""

    def is_joining(self) -> bool:
        """Whether it is joining its group's next generation."""

    def generation(self) -> int:
        """The number of its group's generation: each rebalance has a higher one. -1 without a membership."""

    def heartbeat(self) -> Heartbeat:
        """The answers to its heartbeats so far."""

    def heartbeat_soon(self) -> None:
        """Send a heartbeat without waiting for its interval, unless the consumer is not a stable member.

        Its answer tells the consumer that its group rebalances. Any thread may call this.
        """

    def commit(self, offsets: Offsets, timeout_ms: float | None = None) -> None:
        """Commit offsets of the group and wait for the answer.

        Raises:
          KafkaError: When Kafka does not accept it: RebalanceInProgressError while the group has no
            generation.
        """

    def commit_async(self, offsets: Offsets, callback: CommitCallback) -> Awaitable[object]:
        """Commit offsets of the group. ``callback`` is called with the result, usually in a later
        :meth:`poll`.

        Returns:
          An awaitable for a listener's ``on_revoked``: the rebalance waits for it.
        """

    def committed_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """The committed offsets of the group, with one request. Partitions without one are left out."""

    # Metadata

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The partitions of a topic, requested unless they are known; empty when there is no such topic.

        Raises:
          TopicAuthorizationFailedError: When this client may not see the topic, whether there is one or not.
        """

    def known_partitions(self, topic: str) -> set[int] | None:
        """The partitions of a topic as far as is known, without asking; None when nothing is."""

    def topic_id(self, topic: str) -> object:
        """The known id of a topic, which changes when the topic is recreated; None without one."""

    def leader_epoch(self, partition: TopicPartition) -> int:
        """The known leader epoch of a partition; -1 without one."""

    def node_ids(self) -> list[int]:
        """The known ids of the cluster's nodes."""

    def request_metadata(self) -> None:
        """Request the metadata of the topics in use, without a wait."""

    def refresh_metadata(self, timeout_ms: float) -> None:
        """Request the metadata of the topics in use: elections, added partitions and recreated topics."""

    def existing_topics(self, topics: Collection[str], timeout_ms: float) -> set[str]:
        """Those of ``topics`` that exist, according to a new request. None of them is in use by this.

        Raises:
          TopicAuthorizationFailedError: When this client may not see one of them.
        """

    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None:
        """Leave the group and close the connections."""


class SentOffset(Protocol):
    """The partition and the offset of an acknowledged record."""

    @property
    def offset(self) -> int: ...


class SendFuture(Protocol):
    """A record in flight to Kafka."""

    @property
    def is_done(self) -> bool:
        """Whether its result is known."""

    @property
    def exception(self) -> BaseException | None:
        """The error with which it failed."""

    @property
    def value(self) -> SentOffset:
        """Its partition and offset, once it has succeeded."""

    def succeeded(self) -> bool: ...

    def get(self, timeout: float | None = None) -> object:
        """Wait for ``timeout`` seconds.

        Raises:
          KafkaError: ``exception``, or a KafkaTimeoutError when there is no answer by then.
        """

    def add_both(self, callback: Callable[[Any], None]) -> object:
        """Call ``callback`` with the result: on the thread that receives it, or at once when it is known."""


class ProducerClient(Protocol):
    """An idempotent producer that waits for all in-sync replicas. Thread-safe."""

    def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> SendFuture:
        """Begin to send a record.

        Raises:
          KafkaError: IllegalStateError when the producer has ended.
          ValueError: When it does not know ``partition`` (see ``errors.is_unknown_partition``).
        """

    def partition_of(self, future: SendFuture) -> TopicPartition:
        """The partition of a record of this producer."""

    def last_error(self, partition: TopicPartition, *, since_s: float) -> BaseException | None:
        """Kafka's last error after ``since_s`` about a partition whose records are still retried."""

    def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic; it waits for them unless they are known."""

    def known_partitions(self, topic: str) -> set[int] | None:
        """The partitions of a topic as far as is known, without asking; None when nothing is."""

    def leader_epoch(self, partition: TopicPartition) -> int | None:
        """The leader epoch of a partition that the producer knows; -1 without one."""

    def wait_for_topic(self, topic: str, timeout_ms: float) -> None:
        """Wait until the partitions of a topic are known.

        Raises:
          KafkaTimeoutError: When they are not known after the timeout.
        """

    def refresh_metadata(self, *, timeout_s: float) -> None:
        """Request the metadata of the producer's topics. Without an answer, the old metadata stays."""

    def close(self, timeout: float | None = None) -> None:
        """Send the remaining records, for ``timeout`` seconds.

        Raises:
          KafkaTimeoutError, IllegalStateError: When a record could not be sent. The producer is still open
            then.
        """

    def force_close(self) -> None:
        """Close it without sending the remaining records."""


class AdminClient(Protocol):
    """Describes, creates and changes the topics, groups and settings of a cluster. Answers have
    kafka-python's shapes.
    """

    def create_topics(self, new_topics: Mapping[str, Any], *, raise_errors: bool) -> Mapping[str, Any]:
        """Create topics.

        Parameters:
          new_topics: By name, each a mapping of ``num_partitions``, ``replication_factor`` and ``configs``.

        Returns:
          ``{"topics": [{"name": ..., "error_code": ..., "error_message": ...}, ...]}``

        Raises:
          RuntimeError: When the controller has changed twice.
        """

    def wait_for_topics(self, topics: Sequence[str]) -> object:
        """Wait until every node knows ``topics``."""

    def describe_topics(self, topics: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """The ``name`` and ``error_code`` of each, and without an error ``topic_id`` and ``partitions``."""

    def topic_names(self) -> Collection[str]:
        """The names of all topics that this client may see."""

    def topic_settings(self, topics: Iterable[str]) -> dict[str, dict[str, str | None]]:
        """All settings of topics, by topic and name. A setting that may not be read is None."""

    def broker_settings(self, node_id: int, names: Iterable[str]) -> dict[str, str | None]:
        """Settings of a node, by name."""

    def cluster_id(self) -> str: ...

    def node_count(self) -> int:
        """The nodes of the cluster: from Kafka 4.0 on with those that are dead, before without them."""

    def group_members(self, group_id: str) -> Sequence[str]:
        """The ids of the members that a group has now."""

    def described_members(self, group_id: str) -> Sequence[GroupMember]:
        """The members that a group has now."""

    def group_offsets(
        self, groups: Mapping[str, Collection[TopicPartition]]
    ) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        """The committed offsets of several groups, with one request to each coordinator. Partitions without
        one are left out.

        Raises:
          GroupAuthorizationFailedError: When this client may not describe one of the groups.
        """

    def remove_members(self, members: Collection[Membership]) -> set[Membership]:
        """Remove members of groups, and return those that were members until now.

        A static member is removed by both of its ids: not when another process has joined as the same group
        instance. Each group rebalances once. It needs READ on the groups.

        Raises:
          KafkaError: When Kafka refuses the request, or does not answer.
        """

    def delete_records(self, records_to_delete: Mapping[TopicPartition, int]) -> object:
        """Delete the records below an offset of each partition."""

    def close(self) -> None: ...
