"""Says when a partition waits for somebody's open transaction.

A queue's consumer is handed nothing of a transaction before it is committed, and nothing of an aborted one.
So an open one holds back everything behind it, whoever sent that: Kafka's last stable offset stands still.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..deliveries.assigned_partition import AssignedPartition
from ..kafka.protocol import ConsumerClient, PendingOffsets
from ..kafka.types import TopicPartition

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
#: How long a partition has to stand still before Kafka is asked why. Most transactions are shorter.
ASK_AFTER_S = 10.0
ASK_TIMEOUT_MS = 5_000


class OpenTransactions:
    """Watches the partitions of a consumer that reads committed records only. Driven by the consumer's
    thread, which waits for no answer.
    """

    def __init__(self, kafka: ConsumerClient) -> None:
        self._kafka = kafka
        self._next_look_s = 0.0
        self._asked: PendingOffsets | None = None
        #: Where a partition stands although its log goes on, and since when.
        self._stands: dict[TopicPartition, tuple[int, float]] = {}
        self._told: dict[TopicPartition, int] = {}

    def look(self, now_s: float, assigned_partitions: Iterable[AssignedPartition]) -> None:
        """Take a step; nearly always there is none to take."""
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + POLL_INTERVAL_S
        self._note_where_they_stand(now_s, assigned_partitions)
        if self._asked is not None and self._asked.is_done:
            answer, self._asked = self._asked, None
            if answer.succeeded():
                for partition, found in answer.value.items():
                    self._compare(partition, found.offset, now_s)
        elif self._asked is None and (held := self._held_for_long(now_s)):
            self._asked = self._ask(held)

    def _note_where_they_stand(self, now_s: float, assigned_partitions: Iterable[AssignedPartition]) -> None:
        before, self._stands = self._stands, {}
        for assigned in assigned_partitions:
            partition, position = assigned.partition, assigned.expected
            if not assigned.buffer and (self._kafka.highwater(partition) or 0) > position:
                stands = before.get(partition)
                same = stands is not None and stands[0] == position
                self._stands[partition] = stands if stands is not None and same else (position, now_s)
        for partition in [
            p for p in self._told if p not in self._stands or self._stands[p][0] != self._told[p]
        ]:
            logger.warning("%s-%d goes on from offset %d, where it waited for the end of a transaction.",
                           partition.topic, partition.partition, self._told.pop(partition))  # fmt: skip

    def _held_for_long(self, now_s: float) -> list[TopicPartition]:
        return [
            partition
            for partition, (position, since_s) in self._stands.items()
            if now_s - since_s >= ASK_AFTER_S and self._told.get(partition) != position
        ]

    def _ask(self, partitions: list[TopicPartition]) -> PendingOffsets:
        # Of a consumer that reads committed records only Kafka answers with the last stable offset.
        return self._kafka.ask_ends(partitions, ASK_TIMEOUT_MS)

    def _compare(self, partition: TopicPartition, last_stable: int, now_s: float) -> None:
        position, since_s = self._stands.get(partition, (last_stable + 1, now_s))
        if last_stable > position or now_s - since_s < ASK_AFTER_S:
            return  # it waits for something else, or not any more
        self._told[partition] = position
        waiting = (self._kafka.highwater(partition) or 0) - position
        logger.warning(
            "%s-%d waits at offset %d: a transaction has been open there for %.0f s or longer, and %d "
            "record(s) wait for its end. Kafka ends it when its producer goes on, or after the producer's "
            "transaction.timeout.ms; kafka-transactions.sh finds (find-hanging) and aborts it sooner.",
            partition.topic, partition.partition, position, now_s - since_s, waiting,
        )  # fmt: skip
