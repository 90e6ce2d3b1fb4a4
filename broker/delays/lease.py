"""The time for which this process may assume that it still owns its partitions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..kafka.protocol import ConsumerClient
from ..kafka.types import OffsetAndMetadata, TopicPartition
from ..offsets.committed_lanes import LogEnd
from ..process import clock

#: The fractions of the session timeout after which the lease is renewed, and after which it expires. The rest
#: of the session timeout is for a forward that has begun by then.
RENEW_AFTER = 0.2
VALID_FOR = 0.7


class Lease:
    """A time-limited proof of membership in the group.

    A process that was frozen (a paused container, a migrated virtual machine, a closed laptop) learns only
    from its next heartbeats that its partitions have other owners. Until then it would forward messages that
    they have forwarded. So it forwards only while its last commit is recent: Kafka accepts no commit of a
    removed member, and removes no member within a session timeout of its commit.

    Parameters:
      session_timeout_ms: The session timeout of the consumer.
    """

    def __init__(self, kafka: ConsumerClient, session_timeout_ms: float) -> None:
        self._kafka = kafka
        self._session_s = session_timeout_ms / 1000
        self._confirmed_s = -self._session_s
        self._asked_s = -self._session_s
        self._under_way = False

    @property
    def valid(self) -> bool:
        """Whether this process certainly still owns its partitions."""
        return clock.monotonic_s() - self._confirmed_s < VALID_FOR * self._session_s

    def confirm(self, at_s: float) -> None:
        """Note that this process was a member of the group at a time, or later."""
        self._confirmed_s = max(self._confirmed_s, at_s)

    def renew(self, ends: Mapping[TopicPartition, LogEnd]) -> None:
        """Commit the ends of the read when a renewal is due. A later poll receives the response."""
        now_s = clock.monotonic_s()
        unanswered = self._under_way and now_s - self._asked_s < self._session_s
        if unanswered or now_s - self._confirmed_s < RENEW_AFTER * self._session_s or not ends:
            return
        self._under_way, self._asked_s = True, now_s
        commit = {p: OffsetAndMetadata(read.end, "", read.leader_epoch) for p, read in ends.items()}
        self._kafka.commit_async(commit, callback=partial(self._answer, now_s))

    def _answer(self, asked_s: float, offsets: object, answer: object) -> None:
        self._under_way = False
        if not isinstance(answer, Exception):
            self.confirm(asked_s)
