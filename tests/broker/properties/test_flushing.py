"""What a flush drops of one partition, wherever a record has got to in its worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dramatiq.message import Message
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from broker import KafkaBroker
from broker.consume.dispatcher import Dispatcher
from broker.consume.probation import MARK_BACKOFF_S
from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.deliveries.delivery import Delivery
from broker.offsets.commit_metadata import CommitState
from broker.partition_keys.record_format import lane_header
from broker.process import clock
from tests.broker.stopped_clock import StoppedClock

FLUSHED = 10
RECORDS = 14


@pytest.fixture(autouse=True)
def stopped_clock() -> Iterator[None]:
    with clock.use(StoppedClock()):
        yield


class Committer:
    """Takes every commit, or none."""

    def __init__(self) -> None:
        self.taken = True

    def commit_now(self, assignments: object) -> bool:
        return self.taken


class Worker:
    """One partition of a worker that hands out ``prefetch`` deliveries at once."""

    def __init__(self, *, prefetch: int, state: CommitState, probation: bool, key: bytes | None) -> None:
        self.broker = KafkaBroker(middleware=[])
        self.broker.declare_queue("work")
        self.broker.actors["task"] = None  # type: ignore[assignment]  # only looked up by name
        self.commits = Committer()
        capacity = Capacity(prefetch)
        self.dispatcher = Dispatcher(
            self.broker.parts.consumer_config("work"),
            self.broker.parts.for_consumers,
            capacity,
            commit_now=self.commits.commit_now,
        )
        self.assignment = AssignedPartition(
            TopicPartition("work", 0),
            state,
            epoch=1,
            capacity=capacity,
            probation_end=RECORDS if probation else 0,
        )
        self.dispatcher.add(self.assignment)
        self.assignment.take_in([record(offset, key) for offset in range(RECORDS)])

    def deliveries(self) -> list[Delivery]:
        """Those that are handed out now."""
        found = []
        while (delivery := self.dispatcher.next()) is not None:
            found.append(delivery)
        return found

    def run(self, delivery: Delivery) -> int | None:
        """A thread gets a delivery: the offset when it is run, None when it is skipped."""
        runs = self.broker.parts.in_flight.begin(delivery)
        self.broker.parts.in_flight.complete(delivery)
        return delivery.origin.offset if runs else None


def record(offset: int, key: bytes | None) -> ConsumerRecord:
    value = Message("work", "task", (), {}, {}).encode()
    headers = [lane_header(key)] if key else []
    return ConsumerRecord("work", 0, -1, offset, 0, 0, key, value, headers, None, -1, len(value), -1)


@pytest.mark.parametrize("key", [None, b"a key"], ids=["free", "keyed"])
@pytest.mark.parametrize("marks", ["none needed", "refused", "taken"])
@pytest.mark.parametrize("left_behind", [(), (0, 2, 4, 5, 6, 7)], ids=["all new", "some done before"])
@pytest.mark.parametrize("prefetch", [1, 3, 20])
@pytest.mark.parametrize("begun", [0, 1, 2])
def test_what_has_begun_runs_on_and_nothing_else_from_before_a_flush_runs(
    key: bytes | None, marks: str, left_behind: tuple[int, ...], prefetch: int, begun: int
) -> None:
    state = CommitState(0, 7, left_behind) if left_behind else CommitState(0, -1)
    worker = Worker(prefetch=prefetch, state=state, probation=marks != "none needed", key=key)
    worker.commits.taken = marks != "refused"
    handed_out = worker.deliveries()
    running = [delivery for delivery in handed_out[:begun] if worker.broker.parts.in_flight.begin(delivery)]

    dropped = worker.dispatcher.drop_below(worker.assignment, FLUSHED)

    to_run = [o for o in range(FLUSHED) if not left_behind or o in left_behind or o > 7]
    ahead = [d for d in handed_out if d.origin.offset >= FLUSHED]
    # Records that were done before are among the dropped while nobody has looked at them.
    assert len(to_run) - len(running) <= dropped <= FLUSHED - len(running)
    below = [offset for offset in worker.assignment.tracker.incomplete if offset < FLUSHED]
    assert below == [delivery.origin.offset for delivery in running]
    assert [worker.run(d) for d in handed_out if d not in running and d not in ahead] == [None] * (
        len(handed_out) - len(running) - len(ahead)
    )
    worker.commits.taken = True
    ran = [worker.run(delivery) for delivery in running + ahead]
    clock.sleep(MARK_BACKOFF_S)
    for _ in range(RECORDS):
        ran += [worker.run(delivery) for delivery in worker.deliveries()]
    assert ran == [*(d.origin.offset for d in running), *range(FLUSHED, RECORDS)]
    assert worker.assignment.snapshot().next_offset == RECORDS
    worker.assignment.dirty = False  # committed
    assert worker.broker.parts.in_flight.isolate("somebody"), "something still counts as running"


def test_a_commit_says_up_to_where_a_flush_was_heard_of_while_something_from_before_it_runs() -> None:
    worker = Worker(prefetch=1, state=CommitState(0, -1), probation=False, key=None)
    (delivery,) = worker.deliveries()
    worker.broker.parts.in_flight.begin(delivery)
    worker.assignment.log_start = FLUSHED
    worker.dispatcher.drop_below(worker.assignment, FLUSHED)

    while_it_runs = worker.assignment.snapshot()
    worker.run(delivery)

    assert while_it_runs == CommitState(0, FLUSHED - 1, (0,), log_start=FLUSHED)
    assert worker.assignment.snapshot() == CommitState(FLUSHED, FLUSHED - 1)
