"""The state that a living process remembers of a partition which it lost.

A task that holds the interpreter's lock for longer than the session timeout prevents heartbeats, so Kafka
removes its worker from the group. The tasks that finished since the last accepted commit are then in no
commit. Their completion is remembered here. When the partition returns to this process, they do not run
again, and the loss does not count as a crash.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..kafka.types import OffsetAndMetadata
from .commit_metadata import CommitState


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last state of a partition in this process. A process has one for each partition that it owned.

    Attributes:
      state: The completion state, committed or not.
      sent_commits: This process's last commits, as (offset, metadata), whether or not Kafka accepted them.
      probation_end: The end of the probation, as in ``CrashCounts``.
      topic_id: The id of the partition's topic.
    """

    state: CommitState
    sent_commits: Collection[tuple[int, str]]
    probation_end: int
    topic_id: object

    def is_of(self, topic_id: object) -> bool:
        """Whether it belongs to the topic with this id: a recreated topic has another one."""
        return self.topic_id == topic_id

    def is_latest(self, committed: OffsetAndMetadata | None) -> bool:
        """Whether no other process has run a record of the partition since, as far as ``committed`` shows.

        A new owner commits before it dispatches its first record. When its commit equals one of ours, it has
        dispatched none.
        """
        return committed is None or (committed.offset, committed.metadata or "") in self.sent_commits
