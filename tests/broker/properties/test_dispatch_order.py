"""Whose turn it is among the partitions of one consumer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dramatiq.message import Message
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from broker import KafkaBroker
from broker.consume.dispatcher import Dispatcher
from broker.deliveries.assigned_partition import (
    MAX_MOVING,
    MAX_MOVING_BYTES,
    MOVE_TOGETHER,
    AssignedPartition,
    Capacity,
)
from broker.offsets.commit_metadata import CommitState
from broker.partition_keys.lanes import MAX_PARKED_OF_A_KEY

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

    def fill_lane(self, partition: int, count: int, *, size: int = 0) -> None:
        """Add records of one partition key, each of so many bytes at least."""
        first = self._next_offset[partition]
        self._next_offset[partition] += count
        records = [record(partition, first + n, key=b"hot", size=size) for n in range(count)]
        self._assigned_partitions[partition].take_in(records)

    def moving(self, partition: int) -> int:
        """The number of records that move to the lanes topic."""
        in_flight = self._assigned_partitions[partition].in_flight.values()
        return sum(delivery.moves for delivery in in_flight)

    def deliveries(self) -> Iterator[int]:
        """The partitions that the next deliveries come from, until there are none."""
        while (delivery := self._dispatcher.next()) is not None:
            yield delivery.origin.partition
            self.broker.parts.in_flight.complete(delivery)

    def begin(self) -> list[int]:
        """The partitions of the next deliveries, none of which ends, until there are none."""
        origins = []
        while (delivery := self._dispatcher.next()) is not None:
            origins.append(delivery.origin.partition)
        return origins

    def _assign(self, number: int) -> AssignedPartition:
        assignment = AssignedPartition(
            TopicPartition("work", number), CommitState(0, -1), epoch=1, capacity=self._capacity
        )
        self._dispatcher.add(assignment)
        return assignment


def record(partition: int, offset: int, *, key: bytes | None = None, size: int = 0) -> ConsumerRecord:
    value = Message("work", "task", ("x" * size,), {}, {}).encode()
    headers = [] if key is None else [("lane-key", key)]
    return ConsumerRecord(
        "work", partition, -1, offset, 0, 0, key, value, headers, None, -1, len(value), -1
    )  # fmt: skip


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


def test_records_that_move_to_the_lanes_topic_take_no_room_of_the_deliveries() -> None:
    """A key with a long backlog neither holds up the others nor fills the memory while its records move."""
    partitions = Partitions(2)
    partitions.fill_lane(0, 5_000)
    # Of the key one message runs. The completer, which does not run here, has the records that move.
    assert partitions.begin() == [0]
    moving = partitions.moving(0)
    assert MAX_MOVING - MOVE_TOGETHER < moving <= MAX_MOVING
    partitions.fill(1, 10 * PREFETCH)
    assert partitions.begin() == [1] * (PREFETCH - 1)
    assert partitions.moving(0) == moving


def test_the_bytes_of_the_records_that_move_are_limited() -> None:
    partitions = Partitions(1)
    partitions.fill_lane(0, 2 * MAX_PARKED_OF_A_KEY, size=MAX_MOVING_BYTES // 4)
    assert partitions.begin() == [0]
    assert 0 < partitions.moving(0) <= 5
