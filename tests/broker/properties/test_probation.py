"""Records that may have crashed a worker: marks, suspects and crash counts, without a broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from dramatiq.message import Message
from hypothesis import given
from hypothesis import strategies as st

from broker.consume.probation import MARK_BACKOFF_S, MAX_MARKED, Probation
from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.deliveries.delivery import Delivery, make_delivery
from broker.deliveries.in_flight import InFlightDeliveries
from broker.errors import PoisonMessage
from broker.kafka.types import ConsumedRecord, TopicPartition
from broker.offsets.commit_metadata import CommitState, Suspicion, decode, encode
from broker.offsets.crash_counts import CrashCounts, after_a_crash, without_marks
from broker.process import clock
from tests.broker.kafka.fake_consumer import FakeRecord
from tests.broker.stopped_clock import StoppedClock

MAIL = TopicPartition("mail", 0)
MAX_CRASHES = 3


class Consumer:
    """A consumer of some partitions that were handed over uncleanly. It plays the dispatcher."""

    def __init__(self, in_flight: InFlightDeliveries | None = None, *, prefetch: int = 100) -> None:
        self.in_flight = in_flight or InFlightDeliveries()
        self.capacity = Capacity(prefetch)
        self.accepts_commits = True
        self.commits: list[CommitState] = []
        self.attempts = 0
        self.rejected: list[tuple[int, Exception]] = []
        self.probation = Probation(
            self, self.in_flight, self.capacity, commit_now=self.commit_now, max_crashes=MAX_CRASHES
        )

    def assign(
        self,
        records: int,
        *,
        crashes: dict[int, int] | None = None,
        probation_end: int = 0,
        partition: TopicPartition = MAIL,
    ) -> AssignedPartition:
        """Assign a partition of which no record is complete; ``crashes`` are crash counts by offset."""
        suspicions = {offset: Suspicion(count, running=False) for offset, count in (crashes or {}).items()}
        assigned = AssignedPartition(
            partition,
            CommitState(0, records - 1, tuple(range(records)), suspicions=suspicions),
            epoch=self.in_flight.next_epoch(),
            capacity=self.capacity,
            probation_end=probation_end,
        )
        self.in_flight.add(assigned)
        assigned.take_in([FakeRecord(*partition, offset, b"a message") for offset in range(records)])
        assigned.dirty = False
        return assigned

    def commit_now(self, assigned_partitions: Sequence[AssignedPartition]) -> bool:
        self.attempts += 1
        (assigned,) = assigned_partitions
        if self.accepts_commits:
            self.commits.append(assigned.snapshot())
            assigned.dirty = False
        return self.accepts_commits

    def has_next(self, assigned: AssignedPartition) -> bool:
        return bool(assigned.buffer)

    def has_room(self, assigned: AssignedPartition) -> bool:
        return True

    def pop(self, assigned: AssignedPartition) -> ConsumedRecord:
        record = assigned.take_out()
        assigned.tracker.deliver(record.offset)
        return record

    def reject(self, assigned: AssignedPartition, record: ConsumedRecord, error: Exception) -> None:
        self.rejected.append((record.offset, error))
        assigned.complete_unrun(record.offset)

    def run(self, assigned: AssignedPartition) -> Delivery:
        """Dispatch the next cleared record."""
        owner, record = self.probation.cleared.popleft()
        assert owner is assigned
        message: Message[Any] = Message("mail", "send", (), {}, {})
        delivery = make_delivery(message, record, assigned)
        assert self.in_flight.dispatch(delivery, self.probation)
        return delivery

    def marked_offsets(self) -> list[int]:
        return [] if self.probation.marked is None else offsets_of(self.probation.marked[1])

    def cleared_offsets(self) -> list[int]:
        return offsets_of([record for _, record in self.probation.cleared])


def offsets_of(records: Sequence[ConsumedRecord]) -> list[int]:
    return [record.offset for record in records]


@pytest.fixture(autouse=True)
def stopped_clock() -> Iterator[None]:
    with clock.use(StoppedClock()):
        yield


def test_records_are_cleared_with_their_running_marks_in_a_commit() -> None:
    consumer = Consumer()
    assigned = consumer.assign(5, probation_end=3)

    consumer.probation.take_next(assigned)

    assert consumer.cleared_offsets() == [0, 1, 2]
    assert consumer.commits[-1].suspicions == dict.fromkeys([0, 1, 2], Suspicion(1, running=True))
    assert not assigned.on_probation()


def test_records_wait_while_kafka_does_not_accept_their_marks() -> None:
    consumer = Consumer()
    assigned = consumer.assign(2, probation_end=2)
    consumer.accepts_commits = False

    consumer.probation.take_next(assigned)
    consumer.probation.commit_marks()

    assert (consumer.marked_offsets(), consumer.cleared_offsets()) == ([0, 1], [])
    assert consumer.attempts == 1, "the pause between attempts was not kept"
    clock.sleep(MARK_BACKOFF_S)
    consumer.accepts_commits = True
    consumer.probation.commit_marks()
    assert (consumer.marked_offsets(), consumer.cleared_offsets()) == ([], [0, 1])


@pytest.mark.parametrize(("prefetch", "taken"), [(3, 3), (1_000, MAX_MARKED)])
def test_one_commit_marks_as_many_records_as_may_run_and_fit(prefetch: int, taken: int) -> None:
    consumer = Consumer(prefetch=prefetch)
    consumer.probation.take_next(consumer.assign(200, probation_end=200))
    assert consumer.cleared_offsets() == list(range(taken))


def test_marks_of_a_revoked_partition_are_dropped() -> None:
    consumer = Consumer()
    assigned = consumer.assign(2, probation_end=2)
    consumer.accepts_commits = False
    consumer.probation.take_next(assigned)

    consumer.in_flight.revoke(assigned)
    consumer.probation.commit_marks()

    assert consumer.probation.marked is None
    assert not consumer.probation.cleared


def test_a_suspect_is_taken_once_nothing_else_is_in_flight_in_the_process() -> None:
    in_flight = InFlightDeliveries()
    other, consumer = Consumer(in_flight), Consumer(in_flight)
    unrelated = other.assign(1, probation_end=1, partition=TopicPartition("mail", 1))
    other.probation.take_next(unrelated)
    running = other.run(unrelated)
    assigned = consumer.assign(2, crashes={0: 2})

    consumer.probation.take_next(assigned)

    assert not consumer.probation.cleared
    assert in_flight.excludes(other.probation), "another consumer may dispatch beside a suspect"
    in_flight.complete(running)
    consumer.probation.decide_on_suspect()
    assert not consumer.probation.cleared, "the end of the last delivery is not committed yet"
    other.commit_now([unrelated])
    consumer.probation.decide_on_suspect()
    assert consumer.cleared_offsets() == [0], "a suspect does not run alone"
    assert consumer.commits[-1].suspicions == {0: Suspicion(2, running=True)}


def test_the_isolation_ends_with_the_last_suspect() -> None:
    consumer = Consumer()
    assigned = consumer.assign(3, crashes={0: 2, 1: 2})
    for offset in (0, 1):
        consumer.probation.take_next(assigned)
        assert consumer.cleared_offsets() == [offset]
        consumer.in_flight.complete(consumer.run(assigned))
        consumer.commit_now([assigned])
        assert consumer.in_flight.isolates(consumer.probation)

    consumer.probation.decide_on_suspect()

    assert not consumer.in_flight.isolates(consumer.probation)
    assert not assigned.on_probation()


def test_a_closed_consumer_gives_the_process_back() -> None:
    consumer = Consumer()
    consumer.probation.take_next(consumer.assign(1, crashes={0: 2}))
    assert consumer.in_flight.excludes("another consumer")
    consumer.probation.close()
    assert not consumer.in_flight.excludes("another consumer")


def test_a_suspect_is_rejected_at_the_maximum_of_crashes_and_not_run() -> None:
    consumer = Consumer()
    assigned = consumer.assign(1, crashes={0: MAX_CRASHES})

    consumer.probation.take_next(assigned)

    ((offset, error),) = consumer.rejected
    assert offset == 0
    assert isinstance(error, PoisonMessage)
    assert not consumer.probation.cleared
    assert not consumer.commits


def test_a_record_without_a_crash_count_is_not_marked_together_with_a_suspect() -> None:
    consumer = Consumer()
    assigned = consumer.assign(4, crashes={2: 2}, probation_end=4)
    consumer.probation.take_next(assigned)
    assert consumer.cleared_offsets() == [0, 1]


@pytest.mark.parametrize("accepts_commits", [True, False])
def test_a_flush_drops_the_taken_records_below_it(*, accepts_commits: bool) -> None:
    consumer = Consumer()
    assigned = consumer.assign(4, probation_end=4)
    consumer.accepts_commits = accepts_commits
    consumer.probation.take_next(assigned)

    assert offsets_of(consumer.probation.drop_below(assigned, 2)) == [0, 1]

    assert consumer.marked_offsets() + consumer.cleared_offsets() == [2, 3]
    assert offsets_of(consumer.probation.drop_below(assigned, 9)) == [2, 3]
    assert consumer.probation.marked is None


steps = st.one_of(
    st.tuples(st.sampled_from(["mark", "complete"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["crash", "hand over", "lose and regain"]), st.just(0)),
)


@given(st.lists(steps, max_size=40))
def test_a_crash_count_is_the_number_of_crashes_since_the_probation_began(
    history: list[tuple[str, int]],
) -> None:
    """The crash that began the probation counts for each record that is marked in it."""
    counts, incomplete = CrashCounts(probation_end=6), list(range(6))
    crashes: dict[int, int] = {}
    running: set[int] = set()
    for step, offset in history:
        if step == "mark" and offset in incomplete:
            counts.mark_running(offset)
            running.add(offset)
            crashes.setdefault(offset, 1)
        elif step == "complete" and offset in incomplete:
            counts.drop(offset)
            incomplete.remove(offset)
            running.discard(offset)
            crashes.pop(offset, None)
        elif step in ("crash", "hand over", "lose and regain"):
            suspicions = counts.of_commit(incomplete, clean=step == "hand over")
            state = committed(CommitState(0, 9, tuple(incomplete), suspicions=suspicions))
            if step == "crash":
                state = after_a_crash(state)
                crashes.update((offset, crashes[offset] + 1) for offset in running)
            elif step == "lose and regain":
                state = without_marks(state)
            counts = CrashCounts(state.suspicions, probation_end=6)
            running.clear()
    assert {offset: counts.crashes(offset) for offset in counts.suspicions} == crashes
    assert {offset for offset, suspicion in counts.suspicions.items() if suspicion.running} == running
    for offset in incomplete:
        assert counts.is_on_probation(offset)
        assert counts.is_suspect(offset) == (crashes.get(offset, 0) > 1)


def committed(state: CommitState) -> CommitState:
    """The state as the next owner reads it."""
    return decode(state.next_offset, encode(state))
