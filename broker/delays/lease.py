"""For how long this process may believe that its partitions are still its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from ..kafka.protocol import ConsumerClient
from ..kafka.types import OffsetAndMetadata, TopicPartition

#: The parts of the session timeout after which the lease is renewed, and after which it is over when it was
#: not. What is left is for the forward that has begun by then.
RENEW_AFTER = 0.2
VALID_FOR = 0.7


class Lease:
    """Known membership of the group.

    A process that stood still (a paused container, a virtual machine that was moved, a closed laptop)
    finds out only with its next heartbeats that its partitions went to others meanwhile, and would
    forward until then what they have forwarded already. So it forwards only for a while after Kafka has
    last taken a commit of its own: Kafka takes none from a member that it has given up, and gives none up
    for a session timeout then.

    Parameters:
      session_timeout_ms: The consumer's.
    """

    def __init__(self, kafka: ConsumerClient, session_timeout_ms: float) -> None:
        self._kafka = kafka
        self._session_s = session_timeout_ms / 1000
        self._confirmed_s = -self._session_s
        self._asked_s = -self._session_s
        self._under_way = False

    @property
    def valid(self) -> bool:
        """Whether the partitions are surely still this process's."""
        return time.monotonic() - self._confirmed_s < VALID_FOR * self._session_s

    def confirm(self, at_s: float) -> None:
        """Note that Kafka knew this member at that time, or later."""
        self._confirmed_s = max(self._confirmed_s, at_s)

    def renew(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit ``offsets`` when it is time. The answer comes in a later poll."""
        now_s = time.monotonic()
        unanswered = self._under_way and now_s - self._asked_s < self._session_s
        if unanswered or now_s - self._confirmed_s < RENEW_AFTER * self._session_s or not offsets:
            return
        self._under_way, self._asked_s = True, now_s
        commit = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
        self._kafka.commit_async(commit, callback=partial(self._answer, now_s))

    def _answer(self, asked_s: float, offsets: object, answer: object) -> None:
        self._under_way = False
        if not isinstance(answer, Exception):
            self.confirm(asked_s)
