"""What a process remembers of partitions that it lost while it lived."""

from __future__ import annotations

from dramatiq.message import Message
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata, TopicPartition

from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.deliveries.delivery import Delivery, Origin
from broker.deliveries.in_flight import MAX_FINISHED, InFlightDeliveries
from broker.offsets.commit_metadata import CommitState, encode

PARTITION = TopicPartition("mail", 0)


def take_over(in_flight: InFlightDeliveries, state: CommitState, prefetch: int = 10) -> AssignedPartition:
    assignment = AssignedPartition(
        PARTITION, state, epoch=in_flight.next_epoch(), capacity=Capacity(prefetch)
    )
    in_flight.add(assignment)
    return assignment


def begin(in_flight: InFlightDeliveries, assignment: AssignedPartition, offset: int) -> Delivery:
    delivery = Delivery(
        Message("mail", "send", (), {}, {}),
        origin=Origin(PARTITION.topic, PARTITION.partition, offset),
        raw=b"%d" % offset,
        headers=[],
        assigned=assignment,
    )
    assignment.tracker.deliver(offset)
    assert in_flight.dispatch(delivery, "consumer")
    assert in_flight.begin(delivery)
    return delivery


def test_what_a_lost_assignment_had_completed_is_remembered_until_the_partition_is_back() -> None:
    in_flight = InFlightDeliveries()
    lost = take_over(in_flight, CommitState(0, -1))
    for offset in range(3):
        delivery = begin(in_flight, lost, offset)
        if offset != 1:
            in_flight.complete(delivery)

    in_flight.revoke(lost)

    remembered = in_flight.remembered([PARTITION])[PARTITION]
    assert (remembered.state.next_offset, remembered.state.highest) == (1, 2)
    assert remembered.state.incomplete == (1,)
    take_over(in_flight, remembered.state)
    assert in_flight.remembered([PARTITION]) == {}


def test_a_task_that_ended_after_its_partition_was_lost_is_recalled_once() -> None:
    in_flight = InFlightDeliveries()
    lost = take_over(in_flight, CommitState(0, -1))
    delivery = begin(in_flight, lost, 0)
    in_flight.revoke(lost)
    in_flight.complete(delivery)
    back = take_over(in_flight, CommitState(0, -1))

    assert in_flight.recall(back, 0, b"another record") is None
    back.tracker.deliver(0)
    assert in_flight.recall(back, 0, b"0") is delivery
    in_flight.complete(delivery)

    assert back.tracker.next_offset == 1
    assert in_flight.recall(back, 0, b"0") is None


def test_what_the_partitions_next_owner_did_is_forgotten() -> None:
    in_flight = InFlightDeliveries()
    lost = take_over(in_flight, CommitState(0, -1))
    delivery = begin(in_flight, lost, 0)
    in_flight.revoke(lost)
    in_flight.complete(delivery)

    back = take_over(in_flight, CommitState(5, 4))

    assert in_flight.recall(back, 0, b"0") is None


def test_memory_of_ended_tasks_is_bounded_and_keeps_the_latest() -> None:
    in_flight = InFlightDeliveries()
    lost = take_over(in_flight, CommitState(0, -1), prefetch=MAX_FINISHED + 1)
    deliveries = [begin(in_flight, lost, offset) for offset in range(MAX_FINISHED + 1)]
    in_flight.revoke(lost)
    for delivery in deliveries:
        in_flight.complete(delivery)
    back = take_over(in_flight, CommitState(0, -1), prefetch=MAX_FINISHED + 1)

    recalled = [in_flight.recall(back, offset, b"%d" % offset) for offset in range(MAX_FINISHED + 1)]

    assert recalled == [None, *deliveries[1:]]


def test_a_commit_that_says_what_this_process_said_is_its_own() -> None:
    in_flight = InFlightDeliveries()
    lost = take_over(in_flight, CommitState(0, -1))
    committed = CommitState(0, 3, (0,))
    lost.sent_commits.append((committed.next_offset, encode(committed)))
    in_flight.revoke(lost)

    remembered = in_flight.remembered([PARTITION])[PARTITION]

    anothers = CommitState(0, 4, (0,))
    assert remembered.is_latest(OffsetAndMetadata(0, encode(committed), 0))
    assert not remembered.is_latest(OffsetAndMetadata(0, encode(anothers), 0))
    assert remembered.is_latest(None)


def test_a_record_of_a_later_epoch_below_the_highest_one_is_another_one() -> None:
    """An earlier owner read up to offset 9, and the log was cut at 5 after that."""
    assignment = take_over(InFlightDeliveries(), CommitState(2, 9, (2,), leader_epoch=3))

    assert assignment.first_foreign([record(2, 1), record(3, 3), record(4, 3)]) is None
    assert assignment.first_foreign([record(4, 3), record(5, 4), record(6, 4)]) == record(5, 4)
    assert assignment.first_foreign([record(10, 4)]) is None, "nobody has read it"


def record(offset: int, leader_epoch: int) -> ConsumerRecord:
    return ConsumerRecord("mail", 0, leader_epoch, offset, 0, 0, None, b"", [], None, -1, 0, -1)
