"""The state of queues, read from Kafka alone: from logs, commits and commit metadata. No worker is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from ..dead_letters import DeadLetterQueue
from ..dead_letters.topic_log import LogBounds
from ..delays import Delays
from ..kafka.clients import Clients
from ..kafka.operations import Operations
from ..kafka.rights import Rights
from ..kafka.topics import Topics
from ..offsets.commit_metadata import CommitState
from ..process import clock
from .backlog import Backlog, PartitionBacklog
from .flush_markers import FlushMarker, FlushNote
from .lane_backlog import LaneBacklog
from .partition_counts import PartitionCounts


@dataclass(frozen=True, slots=True)
class SuspectRecord:
    """A record that may have killed a worker.

    Attributes:
      offset: Its offset.
      crashes: The number of workers that died, or lost the partition, while it may have run.
      is_running: Whether it was about to run, or ran, at the time of the commit.
    """

    offset: int
    crashes: int
    is_running: bool


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition of a queue's topic.

    Attributes:
      partition: Its number.
      counts: Its records.
      next_offset: The committed offset; None without a commit.
      highest: The highest delivered offset; None without a commit.
      holes: The complete records above the next offset.
      lag_s: The age of the oldest waiting record, in seconds; None when no record waits.
      oldest_incomplete_s: The age of the oldest incomplete record, in seconds; None without one.
      was_handed_over: Whether its last owner has handed it over, so that nobody owns it or the next owner has
        not committed yet.
      is_on_probation: Whether records have crash counts or running marks since an owner ended without a
        handover.
      suspects: Those records.
      removed_before_s: The age of the oldest record that is left, in seconds, when records were lost:
        those are older. None otherwise, and when no record is left.
      lost_tail: The records that workers have had and that the log has lost at its end since, as in an
        unclean election. 0 again once a worker has taken the partition over.
    """

    partition: int
    counts: PartitionCounts
    next_offset: int | None
    highest: int | None
    holes: int
    lag_s: float | None
    oldest_incomplete_s: float | None
    was_handed_over: bool
    is_on_probation: bool
    suspects: tuple[SuspectRecord, ...]
    removed_before_s: float | None = None
    lost_tail: int = 0

    @property
    def lag(self) -> int:
        """The records that are not complete."""
        return self.counts.left


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue, as it is seen from outside. Commits are up to a commit interval old.

    Attributes:
      name, topic, group: The queue, its topic and its consumer group.
      counts: The records of its topic, of all partitions: the ledger. ``counts.difference`` is 0 unless
        records were removed.
      partitions: Its partitions.
      delayed: The messages in the delayed topic, retries included.
      in_lanes: The messages that wait in the lanes topic for earlier ones of their key, or for their retry.
      overdue_s: The time since the most overdue delayed message was due, in seconds; None without an overdue
        one. A forwarder takes seconds at most: more means that none forwards it.
      dead: The dead letters that were neither redriven nor discarded.
      dead_by_error: The same by the class name of the error; an empty name for those without an error.
      dead_log: The bounds of the dead-letter topic's log. While they are equal, so are the dead letters.
      purge: Who purged it last, while records of a purge are in ``counts.purged``; None without one, and
        when that is not known.
      is_paused: Whether an operator has paused it; None when that is not known.
    """

    name: str
    topic: str
    group: str
    counts: PartitionCounts
    partitions: tuple[PartitionState, ...]
    delayed: int
    in_lanes: int
    dead: int
    is_paused: bool | None = None
    dead_by_error: Mapping[str, int] = field(default_factory=dict)
    purge: FlushNote | None = None
    overdue_s: float | None = None
    dead_log: LogBounds = field(default_factory=LogBounds)

    @property
    def waiting(self) -> int:
        """The records that were not delivered to a worker."""
        return self.counts.waiting

    @property
    def incomplete(self) -> int:
        """The records that run, or whose outbox is held."""
        return self.counts.incomplete

    @property
    def lag(self) -> int:
        """The records that are not complete."""
        return self.counts.left

    @property
    def lag_s(self) -> float | None:
        """The age of the oldest waiting record, in seconds; None when no record waits."""
        return _oldest(partition.lag_s for partition in self.partitions)

    @property
    def removed_before_s(self) -> float | None:
        """The records that were removed before they were known to be complete are older, in seconds; None
        without any, or when no record is left.
        """
        ages_s = [p.removed_before_s for p in self.partitions if p.removed_before_s is not None]
        return min(ages_s, default=None)

    @property
    def oldest_incomplete_s(self) -> float | None:
        """The age of the oldest incomplete record, in seconds; None without one."""
        return _oldest(partition.oldest_incomplete_s for partition in self.partitions)


def _oldest(ages_s: Iterable[float | None]) -> float | None:
    return max((age_s for age_s in ages_s if age_s is not None), default=None)


class QueueStates:
    """Reads the state of queues."""

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        delays: Delays,
        lanes: LaneBacklog,
        dead_letters: DeadLetterQueue,
        *,
        group_id: str,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._delays = delays
        self._lanes = lanes
        self._dead_letters = dead_letters
        self._group_id = group_id

    def read(self, queue_name: str, *, is_paused: bool | None = None) -> QueueState:
        """The state of one queue. All of its dead letters are read the first time, and later the new
        ones.

        Parameters:
          is_paused: Whether an operator has paused it; None when that is not known.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client lacks a right.
        """
        topic, group = self._topics.queue(queue_name), self._topics.group(self._group_id, queue_name)
        operations = Operations(self._topics, queue_name, group)
        with self._clients.naming_all("the state of a queue", operations.counting()):
            return self._clients.ask(
                partial(self._read, queue_name, topic, group, is_paused),
                f"The state of the queue {queue_name!r} could not be read",
                rights=Rights((topic,), group=group, on_group="DESCRIBE"),
            )

    def _read(self, queue_name: str, topic: str, group: str, is_paused: bool | None) -> QueueState:
        self._topics.ensure(self._topics.of_worker(queue_name), for_reading=True)
        with Backlog(self._clients, topic, group) as backlog:
            partitions = backlog.with_flushes(backlog.read())
            now_ms = clock.wall_ms()
            waiting_ms = backlog.timestamps({p: b.next_undelivered for p, b in partitions.items()})
            incomplete_ms = backlog.timestamps(
                {p: oldest for p, b in partitions.items() if (oldest := b.oldest_incomplete) is not None}
            )
            left_ms = backlog.timestamps(
                {p: b.beginning for p, b in partitions.items() if b.counts.difference}
            )
        states = tuple(
            _state_of(
                p.partition,
                b,
                _age_s(waiting_ms.get(p), now_ms),
                _age_s(incomplete_ms.get(p), now_ms),
                _age_s(left_ms.get(p), now_ms),
            )
            for p, b in sorted(partitions.items())
        )
        dead_by_error, dead_log = self._dead_letters.tally(queue_name)
        delayed = self._delays.pending(queue_name, limit=0)
        return QueueState(
            queue_name,
            topic,
            group,
            sum((b.counts for b in partitions.values()), start=PartitionCounts()),
            states,
            delayed=delayed.count,
            in_lanes=self._lanes.count(queue_name, backlog.states),
            dead=sum(dead_by_error.values()),
            is_paused=is_paused,
            dead_by_error=dead_by_error,
            dead_log=dead_log,
            purge=_last_note(b.flushed for b in partitions.values() if b.counts.purged),
            overdue_s=_overdue_s(delayed.next_due),
        )


def _last_note(markers: Iterable[FlushMarker | None]) -> FlushNote | None:
    notes = [marker.note for marker in markers if marker is not None and marker.note is not None]
    return max(notes, key=lambda note: note.at_ms, default=None)


def _overdue_s(next_due: datetime | None) -> float | None:
    overdue_s = 0.0 if next_due is None else clock.wall_ms() / 1000 - next_due.timestamp()
    return overdue_s if overdue_s > 0 else None


def _age_s(written_ms: int | None, now_ms: int) -> float | None:
    return None if written_ms is None else max(0.0, (now_ms - written_ms) / 1000)


def _state_of(
    number: int,
    backlog: PartitionBacklog,
    lag_s: float | None,
    oldest_incomplete_s: float | None,
    removed_before_s: float | None,
) -> PartitionState:
    state = backlog.state
    return PartitionState(
        number,
        backlog.counts,
        next_offset=None if state is None else state.next_offset,
        highest=None if state is None else state.highest,
        holes=0 if state is None else state.highest + 1 - state.next_offset - len(state.incomplete),
        lag_s=lag_s,
        oldest_incomplete_s=oldest_incomplete_s,
        was_handed_over=state is not None and state.clean,
        is_on_probation=state is not None and bool(state.suspicions),
        suspects=_suspects(state),
        removed_before_s=removed_before_s,
        lost_tail=backlog.lost_tail,
    )


def _suspects(state: CommitState | None) -> tuple[SuspectRecord, ...]:
    suspicions = {} if state is None else state.suspicions
    return tuple(SuspectRecord(offset, s.crashes, s.running) for offset, s in sorted(suspicions.items()))
