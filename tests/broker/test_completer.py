"""The thread that settles deliveries."""

from __future__ import annotations

import threading

from dramatiq.message import Message
from kafka.structs import TopicPartition

from broker import KafkaBroker
from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.deliveries.delivery import Delivery, Origin
from broker.offsets.commit_metadata import CommitState
from tests.waiting import wait_until


def delivery() -> Delivery:
    assignment = AssignedPartition(
        TopicPartition("mail", 0), CommitState(0, -1), epoch=1, capacity=Capacity(1)
    )
    message: Message[None] = Message("mail", "send", (), {}, {})
    return Delivery(message, origin=Origin("mail", 0, 0), raw=b"", headers=[], assigned=assignment)


def test_no_worker_thread_starts_it_and_what_was_handed_over_before_it_ran_is_settled() -> None:
    broker = KafkaBroker()  # nothing is published, so nothing connects
    mine = delivery()
    assert broker.parts.in_flight.dispatch(mine, "a consumer")
    mine.follow_ups.append(lambda: None)
    threads_before = set(threading.enumerate())

    broker.parts.completer.settle(mine)
    assert set(threading.enumerate()) == threads_before, "its start could hang in an interrupted thread"
    assert not mine.completed

    broker.parts.completer.start()
    wait_until(lambda: mine.completed, deadline_s=60, what="it to be settled")
    broker.close()


def test_an_error_nobody_expected_holds_the_delivery_and_does_not_end_the_thread() -> None:
    broker = KafkaBroker()
    mine = delivery()
    assert broker.parts.in_flight.dispatch(mine, "a consumer")
    complete = broker.parts.in_flight.complete
    failures = [ZeroDivisionError("a mistake in here")]

    def complete_at_last(delivery: Delivery) -> None:
        if failures:
            raise failures.pop()
        complete(delivery)

    broker.parts.in_flight.complete = complete_at_last  # type: ignore[method-assign]
    mine.follow_ups.append(lambda: None)
    broker.parts.completer.start()
    broker.parts.completer.settle(mine)
    wait_until(lambda: mine.completed, deadline_s=60, what="it to be settled")
    broker.close()
