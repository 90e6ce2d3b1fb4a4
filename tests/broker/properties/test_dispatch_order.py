"""Whose turn it is among the partitions of one consumer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dramatiq.message import Message
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from broker import KafkaBroker
from broker.consume.dispatcher import Dispatcher
from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.offsets.commit_metadata import CommitState

PREFETCH = 4


class Partitions:
    """The partitions of a consumer whose deliveries are done as soon as they are handed out."""

    def __init__(self, count: int) -> None:
        self.broker = KafkaBroker(middleware=[])
        self.broker.declare_queue("work")
        self.broker.actors["task"] = None  # type: ignore[assignment]  # only looked up by name
        self._capacity = Capacity(PREFETCH)
        self._dispatcher = Dispatcher(
            self.broker.parts.consumer_config("work"),
            self.broker.parts.for_consumers,
            self._capacity,
            commit_now=lambda assigned_partitions: pytest.fail("nothing is on probation"),
        )
        self._assigned_partitions = [self._assign(number) for number in range(count)]
        self._next_offset = dict.fromkeys(range(count), 0)

    def fill(self, partition: int, count: int) -> None:
        first = self._next_offset[partition]
        self._next_offset[partition] += count
        self._assigned_partitions[partition].take_in([record(partition, first + n) for n in range(count)])

    def deliveries(self) -> Iterator[int]:
        """The partitions that the next deliveries come from, until there are none."""
        while (delivery := self._dispatcher.next()) is not None:
            yield delivery.origin.partition
            self.broker.parts.in_flight.complete(delivery)

    def _assign(self, number: int) -> AssignedPartition:
        assignment = AssignedPartition(
            TopicPartition("work", number), CommitState(0, -1), epoch=1, capacity=self._capacity
        )
        self._dispatcher.add(assignment)
        return assignment


def record(partition: int, offset: int) -> ConsumerRecord:
    value = Message("work", "task", (), {}, {}).encode()
    return ConsumerRecord("work", partition, -1, offset, 0, 0, None, value, [], None, -1, len(value), -1)


def test_partitions_with_something_to_do_take_turns() -> None:
    partitions = Partitions(3)
    for number in range(3):
        partitions.fill(number, 4)
    assert list(partitions.deliveries()) == [0, 1, 2] * 4


@pytest.mark.parametrize("hot", [0, 1, 2])
def test_what_comes_to_a_quiet_partition_is_next_or_next_but_one_however_long_the_others_are(
    hot: int,
) -> None:
    partitions = Partitions(3)
    partitions.fill(hot, 2_000)
    partitions_served = partitions.deliveries()
    for quiet in [number for number in range(3) if number != hot] * 10:
        assert next(partitions_served) == hot
        partitions.fill(quiet, 1)
        assert quiet in (next(partitions_served), next(partitions_served))
