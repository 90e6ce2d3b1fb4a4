"""Reports a partition that waits for an open transaction of another program.

A queue's consumer gets the records of a transaction only after its commit. So an open transaction blocks all
records after it, whichever program sent them: Kafka's last stable offset does not advance.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..deliveries.assigned_partition import AssignedPartition
from ..kafka.protocol import ConsumerClient, PendingOffsets
from ..kafka.types import TopicPartition

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
#: The time without progress after which Kafka is asked for the cause. Most transactions are shorter.
ASK_AFTER_S = 10.0
ASK_TIMEOUT_MS = 5_000


class OpenTransactions:
    """Watches the partitions of a consumer that reads committed records only. The consumer's thread calls all
    methods, and waits for no response.
    """

    def __init__(self, kafka: ConsumerClient) -> None:
        self._kafka = kafka
        self._next_check_s = 0.0
        self._asked: PendingOffsets | None = None
        #: The position of a partition that does not advance although its log has more, and since when.
        self._blocked: dict[TopicPartition, tuple[int, float]] = {}
        self._reported: dict[TopicPartition, int] = {}

    def step(self, now_s: float, assigned_partitions: Iterable[AssignedPartition]) -> None:
        """Take a step, if one is due."""
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + POLL_INTERVAL_S
        self._note_positions(now_s, assigned_partitions)
        if self._asked is not None and self._asked.is_done:
            answer, self._asked = self._asked, None
            if answer.succeeded():
                for partition, found in answer.value.items():
                    self._compare(partition, found.offset, now_s)
        elif self._asked is None and (held := self._held_for_long(now_s)):
            self._asked = self._ask(held)

    def _note_positions(self, now_s: float, assigned_partitions: Iterable[AssignedPartition]) -> None:
        before, self._blocked = self._blocked, {}
        for assigned in assigned_partitions:
            partition, position = assigned.partition, assigned.expected
            if not assigned.buffer and (self._kafka.highwater(partition) or 0) > position:
                stands = before.get(partition)
                same = stands is not None and stands[0] == position
                self._blocked[partition] = stands if stands is not None and same else (position, now_s)
        for partition in [
            p for p in self._reported if p not in self._blocked or self._blocked[p][0] != self._reported[p]
        ]:
            logger.warning("%s-%d continues at offset %d, where it waited for the end of a transaction.",
                           partition.topic, partition.partition, self._reported.pop(partition))  # fmt: skip

    def _held_for_long(self, now_s: float) -> list[TopicPartition]:
        return [
            partition
            for partition, (position, since_s) in self._blocked.items()
            if now_s - since_s >= ASK_AFTER_S and self._reported.get(partition) != position
        ]

    def _ask(self, partitions: list[TopicPartition]) -> PendingOffsets:
        # Kafka returns the last stable offset to a consumer that reads committed records only.
        return self._kafka.ask_ends(partitions, ASK_TIMEOUT_MS)

    def _compare(self, partition: TopicPartition, last_stable: int, now_s: float) -> None:
        position, since_s = self._blocked.get(partition, (last_stable + 1, now_s))
        if last_stable > position or now_s - since_s < ASK_AFTER_S:
            return  # the partition waits for another reason, or not any more
        self._reported[partition] = position
        waiting = (self._kafka.highwater(partition) or 0) - position
        logger.warning(
            "%s-%d waits at offset %d: a transaction has been open there for %.0f s or longer, and %d "
            "record(s) wait for its end. It ends when its producer commits or aborts it, or after the "
            "producer's transaction.timeout.ms; kafka-transactions.sh finds (find-hanging) and aborts it "
            "sooner.",
            partition.topic, partition.partition, position, now_s - since_s, waiting,
        )  # fmt: skip
