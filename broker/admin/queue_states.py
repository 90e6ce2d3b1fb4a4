"""The state of queues, read from Kafka alone: from logs, commits and commit metadata. No worker is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from ..dead_letters import DeadLetterQueue
from ..dead_letters.topic_log import LogBounds
from ..delays import Delays
from ..errors import NotAuthorized
from ..kafka.clients import Clients
from ..kafka.operations import Operations
from ..kafka.rights import Rights
from ..kafka.topics import Topics
from ..kafka.types import TopicPartition
from ..offsets.commit_metadata import CommitState
from ..process import clock
from .backlogs import Backlogs, PartitionBacklog
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
      has_metadata: Whether the commit has metadata that this version reads. Without, as on the embedded
        Kafka, ``highest``, ``holes`` and ``suspects`` are not known.
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
    has_metadata: bool = True

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

    def read(
        self, queue_names: Sequence[str], *, is_paused: Callable[[str], bool | None] = lambda _: None
    ) -> list[QueueState]:
        """The states of queues. All of their dead letters are read the first time, and later the new ones.

        One client reads the logs and commits of all queues, with requests that are about all of them.

        Parameters:
          is_paused: Whether an operator has paused a queue; None when that is not known.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
          NotAuthorized: When this client lacks a right.
        """
        names = list(dict.fromkeys(queue_names))
        try:
            found = self._read_together(names, is_paused)
        except NotAuthorized:
            if len(names) == 1:
                raise
            # The error is to name the queue, and all rights that it needs.
            found = {name: self._read_together([name], is_paused)[name] for name in names}
        return [found[name] for name in queue_names]

    def _read_together(
        self, names: Sequence[str], is_paused: Callable[[str], bool | None]
    ) -> dict[str, QueueState]:
        if not names:
            return {}
        groups = {self._topics.queue(name): self._topics.group(self._group_id, name) for name in names}
        operations = Operations(self._topics, names[0], groups[self._topics.queue(names[0])])
        shown = repr(names[0]) if len(names) == 1 else f"{names[0]!r} and {len(names) - 1} more"
        with self._clients.naming_all("the state of a queue", operations.describing_queue()):
            return self._clients.ask(
                partial(self._read, names, groups, is_paused),
                f"The state of the queue {shown} could not be read",
                rights=Rights(tuple(groups), group=next(iter(groups.values())), on_group="DESCRIBE"),
            )

    def _read(
        self, names: Sequence[str], groups: Mapping[str, str], is_paused: Callable[[str], bool | None]
    ) -> dict[str, QueueState]:
        topics = self._topics
        topics.ensure({topic for name in names for topic in topics.of_worker(name)}, for_reading=True)
        with Backlogs(
            self._clients,
            groups,
            beside=[topics.dead_letters(name) for name in names],
            seen=[topics.lanes(name) for name in names],
        ) as backlogs:
            partitions = backlogs.read()
            now_ms = clock.wall_ms()
            waiting_ms = backlogs.timestamps({p: b.next_undelivered for p, b in partitions.items()})
            incomplete_ms = backlogs.timestamps(
                {p: oldest for p, b in partitions.items() if (oldest := b.oldest_incomplete) is not None}
            )
            left_ms = backlogs.timestamps(
                {p: b.beginning for p, b in partitions.items() if b.counts.difference}
            )
            dead_logs = {name: backlogs.log_bounds(topics.dead_letters(name)) for name in names}
            lane_logs = {name: backlogs.log_bounds(topics.lanes(name)) for name in names}
        by_topic: dict[str, dict[TopicPartition, PartitionBacklog]] = {topic: {} for topic in groups}
        for p, found in sorted(partitions.items()):
            by_topic[p.topic][p] = found
        dead_by_error = self._dead_letters.counts_by_error(dead_logs)
        delayed = self._delays.counts(names)
        states = {}
        for name in names:
            topic = topics.queue(name)
            its = by_topic[topic]
            committed = {p: b.state for p, b in its.items() if b.state is not None}
            states[name] = QueueState(
                name,
                topic,
                groups[topic],
                sum((b.counts for b in its.values()), start=PartitionCounts()),
                tuple(
                    _state_of(
                        p.partition,
                        b,
                        _age_s(waiting_ms.get(p), now_ms),
                        _age_s(incomplete_ms.get(p), now_ms),
                        _age_s(left_ms.get(p), now_ms),
                    )
                    for p, b in its.items()
                ),
                delayed=delayed[name].count,
                in_lanes=self._lanes.count(name, committed, bounds=lane_logs[name]),
                dead=sum(dead_by_error[name].values()),
                is_paused=is_paused(name),
                dead_by_error=dead_by_error[name],
                dead_log=dead_logs[name],
                purge=_last_note(b.flushed for b in its.values() if b.counts.purged),
                overdue_s=_overdue_s(delayed[name].next_due),
            )
        return states


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
        has_metadata=state is None or state.has_metadata,
    )


def _suspects(state: CommitState | None) -> tuple[SuspectRecord, ...]:
    suspicions = {} if state is None else state.suspicions
    return tuple(SuspectRecord(offset, s.crashes, s.running) for offset, s in sorted(suspicions.items()))
