"""The seam: all that the broker asks of a Kafka client, as types.

:class:`~broker.kafka.clients.Clients` hands out kafka-python's clients behind them. An in-memory client, or
another library, implements the same. Every method that asks Kafka raises an error of
:mod:`broker.kafka.errors` when it does not answer. Times are in the unit that a name ends with: ``_ms`` or
``_s``, the latter of ``clock.monotonic_s()``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from .types import (
    ConsumedRecord,
    EpochEndsByPartition,
    Headers,
    Heartbeat,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)

Offsets = Mapping[TopicPartition, OffsetAndMetadata]
#: Takes the offsets of a commit and its end: an exception, or anything else when Kafka has taken it.
CommitCallback = Callable[[Any, Any], None]


class RebalanceListener:
    """Hears of a consumer's rebalances, on the client's I/O thread: nothing of it may block.

    Parameters:
      on_assigned: Takes the partitions that were added.
      on_revoked: Takes the partitions that another member will get; returns an awaitable that commits them,
        or None.
      on_lost: Takes the partitions that another member may have already.
      is_busy: Asked again and again for REVOKE_PATIENCE_S, before ``on_revoked``, while it says True: whether
        any of these partitions had better be kept a moment longer.
    """

    def __init__(
        self,
        *,
        on_assigned: Callable[[Iterable[TopicPartition]], None],
        on_revoked: Callable[[Iterable[TopicPartition]], Awaitable[object] | None],
        on_lost: Callable[[Iterable[TopicPartition]], None],
        is_busy: Callable[[Iterable[TopicPartition]], bool] = lambda partitions: False,
    ) -> None:
        self.is_busy = is_busy
        self.on_assigned = on_assigned
        self.on_revoked = on_revoked
        self.on_lost = on_lost


class PendingOffsets(Protocol):
    """A question about offsets that is under way."""

    @property
    def is_done(self) -> bool:
        """Whether there is an answer, or will be none."""

    @property
    def value(self) -> Mapping[TopicPartition, OffsetAndTimestamp]:
        """The answer, once the question has succeeded."""

    def succeeded(self) -> bool:
        """Whether ``value`` is there."""


class PendingEpochEnds(Protocol):
    """A question about the ends of leader epochs that is under way."""

    def wait(self) -> EpochEndsByPartition:
        """Wait for the answers. A server that knows nothing of leader epochs gives none.

        Raises:
          KafkaError: When there is no answer in time.
        """


class ConsumerClient(Protocol):
    """A consumer: of a group after :meth:`subscribe`, or of the partitions of :meth:`assign`.

    One thread at a time uses it, but for :meth:`commit_async`, :meth:`pause` and :meth:`seek` in the
    callbacks of a rebalance, which come while that thread is in :meth:`poll` or :meth:`close`.

    Attributes:
      config: Its settings by kafka-python's names, defaults included.
    """

    config: Mapping[str, Any]

    # Records

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[ConsumedRecord]]:
        """Read what there is of the partitions that are not paused, in the order of offsets.

        It returns as soon as there is something, and after ``timeout_ms`` at the latest. A rebalance
        progresses in here. What precedes an error is returned, and the error is raised by the next call.

        Raises:
          KafkaError: As Kafka says; LogTruncationError and OffsetOutOfRangeError when a position is in no
            log.
        """

    def pause(self, *partitions: TopicPartition) -> None:
        """Read nothing more of ``partitions``. A partition is resumed by a rebalance that assigns it anew."""

    def resume(self, *partitions: TopicPartition) -> None:
        """Read ``partitions`` again, from their positions."""

    def paused(self) -> set[TopicPartition]: ...

    def held_error(self) -> Exception | None:
        """The error that the next :meth:`poll` would raise, if there is one by now."""

    def forget_held_error(self) -> None: ...

    def drop_unreadable_batch(self) -> TopicPartition | None:
        """Drop what is buffered of the partition whose batch the last error came from, and return the
        partition.

        The next :meth:`poll` fetches it again from the same position. None when the error was no batch's.
        """

    # Positions

    def seek(self, partition: TopicPartition, offset: int, leader_epoch: int = -1) -> None:
        """Set the position of an assigned partition.

        Parameters:
          leader_epoch: Of the record before ``offset``. With it, :meth:`poll` notices that the log was cut
            below.

        Raises:
          ValueError: When the partition is not assigned any more.
        """

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Set positions to the first offsets, which are asked for with the next :meth:`poll`."""

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        """The offset of the next record to be returned; None when it is not known within ``timeout_ms``.

        Raises:
          KeyError, AssertionError, IllegalStateError: When the partition is not assigned.
        """

    def position_epoch(self, partition: TopicPartition) -> int:
        """The leader epoch of what stands before the position; -1 when it is not known. It asks nobody."""

    def highwater(self, partition: TopicPartition) -> int | None:
        """The offset after the partition's last record, as of the last fetch; None before the first."""

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
        """Ask what :meth:`beginning_offsets` asks, and do not wait."""

    def ask_ends(self, partitions: Collection[TopicPartition], timeout_ms: float) -> PendingOffsets:
        """Ask what :meth:`end_offsets` asks, and do not wait."""

    def ask_epoch_ends(self, epochs: Mapping[TopicPartition, int], timeout_ms: float) -> PendingEpochEnds:
        """Ask the leaders where leader epochs end in their logs (KIP-320), and do not wait.

        Parameters:
          epochs: The leader epoch to ask about, 0 or above, by partition.
        """

    # Groups

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener | None = None) -> None:
        """Join the group with the next :meth:`poll`, and share the partitions of ``topics`` with its members.

        Partitions move one by one (KIP-429): a member keeps what it keeps through a rebalance.
        """

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions and no others, without being a member of the group."""

    def assignment(self) -> set[TopicPartition]: ...

    def group_id(self) -> str | None:
        """The consumer group; None for a consumer without one."""

    def is_joining(self) -> bool:
        """Whether it is on its way into its group's next generation."""

    def heartbeat(self) -> Heartbeat:
        """The answers to its heartbeats so far."""

    def commit(self, offsets: Offsets, timeout_ms: float | None = None) -> None:
        """Commit offsets of the group and wait for the answer.

        Raises:
          KafkaError: When Kafka has not taken it: RebalanceInProgressError while the group has no generation.
        """

    def commit_async(self, offsets: Offsets, callback: CommitCallback) -> Awaitable[object]:
        """Commit offsets of the group. ``callback`` is called when that has ended, in a later :meth:`poll`,
        say.

        Returns:
          What a listener's ``on_revoked`` may return: the rebalance waits for it.
        """

    def committed_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group has committed, with one request, without the partitions it has committed nothing
        for.
        """

    # Metadata

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The partitions of a topic, asked for when none are known; empty when there is no such topic."""

    def known_partitions(self, topic: str) -> set[int] | None:
        """The partitions of a topic as far as is known, without asking; None when nothing is."""

    def topic_id(self, topic: str) -> object:
        """The id of a topic as far as is known, another one once it was recreated; None without one."""

    def leader_epoch(self, partition: TopicPartition) -> int:
        """The leader epoch of a partition as far as is known; -1 when nothing is."""

    def node_ids(self) -> list[int]:
        """The ids of the cluster's nodes, as far as they are known."""

    def request_metadata(self) -> None:
        """Ask about the topics that are used, and do not wait."""

    def refresh_metadata(self, timeout_ms: float) -> None:
        """Ask about the topics that are used: hear of elections, added partitions and recreated topics."""

    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None:
        """Leave the group and close the connections."""


class SentOffset(Protocol):
    """Where Kafka has put a record."""

    @property
    def offset(self) -> int: ...


class SendFuture(Protocol):
    """A record on its way to Kafka."""

    @property
    def is_done(self) -> bool:
        """Whether its fate is known."""

    @property
    def exception(self) -> BaseException | None:
        """Why Kafka has not taken it."""

    @property
    def value(self) -> SentOffset:
        """Where Kafka has put it, once it has succeeded."""

    def succeeded(self) -> bool: ...

    def get(self, timeout: float | None = None) -> object:
        """Wait for ``timeout`` seconds.

        Raises:
          KafkaError: ``exception``, or a KafkaTimeoutError when there is no answer by then.
        """

    def add_both(self, callback: Callable[[Any], None]) -> object:
        """Call ``callback`` once its fate is known, on the thread that has heard of it, or at once."""


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
        """Where a record of this producer goes."""

    def last_error(self, partition: TopicPartition, *, since_s: float) -> BaseException | None:
        """What Kafka has answered last, after ``since_s``, about a partition that is still tried."""

    def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic, waited for when none are known."""

    def known_partitions(self, topic: str) -> set[int] | None:
        """The partitions of a topic as far as is known, without asking; None when nothing is."""

    def leader_epoch(self, partition: TopicPartition) -> int | None:
        """The leader epoch of a partition, as far as the producer knows it."""

    def wait_for_topic(self, topic: str, timeout_ms: float) -> None:
        """Wait until the partitions of a topic are known.

        Raises:
          KafkaTimeoutError: When they are not by then.
        """

    def refresh_metadata(self, *, timeout_s: float) -> None:
        """Ask Kafka about the topics of the producer. Without an answer in time it knows what it knew."""

    def close(self, timeout: float | None = None) -> None:
        """Send what is left, for ``timeout`` seconds.

        Raises:
          KafkaTimeoutError, IllegalStateError: When something could not be sent. The producer is still open
            then.
        """

    def force_close(self) -> None:
        """Close it without sending what is left."""


class AdminClient(Protocol):
    """Asks about, creates and changes what a cluster holds. Answers have kafka-python's shapes."""

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

    def topic_settings(self, topics: Iterable[str]) -> dict[str, dict[str, str | None]]:
        """All settings of topics, by topic and name. One that may not be read is None."""

    def broker_settings(self, node_id: int, names: Iterable[str]) -> dict[str, str | None]:
        """Settings of a node, by name."""

    def cluster_id(self) -> str: ...

    def group_members(self, group_id: str) -> Sequence[object]:
        """The members that a group has now."""

    def delete_records(self, records_to_delete: Mapping[TopicPartition, int]) -> object:
        """Delete the records below an offset of each partition."""

    def close(self) -> None: ...
