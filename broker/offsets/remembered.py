"""What a process remembers of a partition that it lost although it lives.

A task that holds Python's lock for longer than the session timeout keeps the heartbeats from being sent, so
its worker is thrown out of the group. What finished since the last commit that Kafka took is nobody's news
then. It is remembered here for when the partition comes back to this process: it is not run again, and having
lost the partition is no crash.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..kafka.types import OffsetAndMetadata
from .commit_metadata import CommitState


@dataclass(frozen=True, slots=True)
class Remembered:
    """A partition as this process knew it last. One is kept for each partition, so it is little.

    Attributes:
      state: All that was complete, committed or not.
      said: This process's last commits, as (offset, metadata), whether or not Kafka took them.
      probation_end: As the assignment's.
      topic_id: Of the topic that it is about.
    """

    state: CommitState
    said: Collection[tuple[int, str]]
    probation_end: int
    topic_id: object

    def is_of(self, topic_id: object) -> bool:
        """Whether it is about the topic that has this id now."""
        return self.topic_id == topic_id

    def is_latest(self, committed: OffsetAndMetadata | None) -> bool:
        """Whether nobody else has owned the partition since, as far as ``committed`` tells.

        Whoever takes a partition over commits that before anything of it runs. When that commit says the very
        same as ours, nothing has run there.
        """
        return committed is None or (committed.offset, committed.metadata or "") in self.said
