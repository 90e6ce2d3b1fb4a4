"""InFlightDeliveries in any order of dispatch, begin, complete, flush, revoke and adopt, two partitions."""

from dataclasses import dataclass, field

from dramatiq.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kafka.structs import TopicPartition

from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.deliveries.delivery import Delivery, Origin
from broker.deliveries.in_flight import InFlightDeliveries
from broker.offsets.commit_metadata import CommitState
from tests.examples import examples

PREFETCH = 6
PARTITIONS = [TopicPartition("mail", 0), TopicPartition("mail", 1)]


@dataclass
class Partition:
    """What the model knows of one partition: one log, and at most one assignment at a time."""

    assignment: AssignedPartition | None = None
    next_offset: int = 0
    log_start: int = 0
    outstanding: dict[int, Delivery] = field(default_factory=dict)
    orphans: dict[int, Delivery] = field(default_factory=dict)


class InFlightMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.in_flight = InFlightDeliveries()
        self.capacity = Capacity(PREFETCH)
        self.partitions = {name: Partition() for name in PARTITIONS}
        self.deliveries: list[Delivery] = []
        self.finished: set[int] = set()  # ids of deliveries whose end was reported, or that were skipped
        self.completed: dict[TopicPartition, set[int]] = {name: set() for name in PARTITIONS}

    @initialize()
    def assign_both(self) -> None:
        for name in PARTITIONS:
            self._assign(name)

    @rule(name=st.sampled_from(PARTITIONS))
    def dispatch(self, name: TopicPartition) -> None:
        partition = self.partitions[name]
        if partition.assignment is None or self.capacity.free <= 0:
            return
        offset = partition.next_offset
        partition.next_offset += 1
        if not partition.assignment.tracker.deliver(offset):
            assert offset in self.completed[name], "only what is complete is passed over"
            return
        if self.in_flight.adopt(partition.assignment, offset, b"%d" % offset):
            adopted = partition.orphans.pop(offset)
            partition.outstanding[offset] = adopted
            assert adopted.assigned_partition is partition.assignment
            return
        assert offset not in partition.orphans, "what still runs here is adopted and not run twice"
        delivery = Delivery(
            Message("mail", "send", (), {}, {}),
            origin=Origin(name.topic, name.partition, offset),
            raw=b"%d" % offset,
            headers=[],
            assigned=partition.assignment,
        )
        assert self.in_flight.dispatch(delivery, "consumer")
        partition.outstanding[offset] = delivery
        self.deliveries.append(delivery)

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.deliveries))
        if delivery.begun or id(delivery) in self.finished:
            return
        begun = self.in_flight.begin(delivery)
        assert begun == (delivery in self._partition_of(delivery).outstanding.values())

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """Any delivery's ack may come at any time, also a second time and for a partition that was lost."""
        delivery = data.draw(st.sampled_from(self.deliveries))
        self.in_flight.complete(delivery)
        self.finished.add(id(delivery))
        partition = self._partition_of(delivery)
        offset = delivery.origin.offset
        if partition.outstanding.get(offset) is delivery:
            del partition.outstanding[offset]
            self.completed[self._name_of(delivery)].add(offset)
        elif partition.orphans.get(offset) is delivery:
            del partition.orphans[offset]

    @rule(name=st.sampled_from(PARTITIONS), ahead=st.integers(-3, 3))
    def flush(self, name: TopicPartition, ahead: int) -> None:
        """The log loses its beginning: a part of what was read, or what was not read yet, too."""
        partition = self.partitions[name]
        partition.log_start = start = max(partition.log_start, partition.next_offset + ahead)
        if partition.assignment is None:
            return
        waiting = [o for o, d in partition.outstanding.items() if o < start and not d.begun]
        assert self.in_flight.drop_below(partition.assignment, start) == len(waiting)
        for offset in waiting:
            self.finished.add(id(partition.outstanding.pop(offset)))
        self.completed[name] |= set(range(start)) - set(partition.outstanding)
        partition.next_offset = max(partition.next_offset, start)

    @rule(name=st.sampled_from(PARTITIONS))
    def revoke(self, name: TopicPartition) -> None:
        partition = self.partitions[name]
        if partition.assignment is None:
            return
        self.in_flight.revoke(partition.assignment)
        for offset, delivery in partition.outstanding.items():
            if delivery.begun:
                partition.orphans[offset] = delivery
            else:
                self.finished.add(id(delivery))
        partition.outstanding.clear()
        partition.assignment = None

    @rule(name=st.sampled_from(PARTITIONS), lost=st.booleans())
    def assign_again(self, name: TopicPartition, lost: bool) -> None:
        if self.partitions[name].assignment is None:
            if lost:  # another owner's commits were lost with it, and ours before it
                self.completed[name].clear()
            self._assign(name)

    @invariant()
    def every_place_is_free_or_taken_by_an_outstanding_delivery(self) -> None:
        taken = sum(len(partition.outstanding) for partition in self.partitions.values())
        assert self.capacity.free + taken == PREFETCH

    @invariant()
    def exactly_what_was_completed_under_its_own_assignment_is_complete(self) -> None:
        for name, partition in self.partitions.items():
            if partition.assignment is not None:
                read = set(range(partition.next_offset))
                assert set(partition.assignment.in_flight) == set(partition.outstanding)
                assert set(partition.assignment.tracker.incomplete) & read == set(partition.outstanding)
                assert read - set(partition.outstanding) == read & self.completed[name]

    @invariant()
    def a_suspect_waits_for_everything_that_runs_here_and_for_its_commit(self) -> None:
        running = sum(
            len(partition.outstanding) + len(partition.orphans) for partition in self.partitions.values()
        )
        assert self.in_flight.isolate("suspect's consumer") == (
            running == 0 and self.in_flight.is_committed()
        )
        self.in_flight.end_isolation("suspect's consumer")

    def _assign(self, name: TopicPartition) -> None:
        partition = self.partitions[name]
        completed = self.completed[name]
        completed.update(range(partition.log_start))
        highest = max(completed, default=-1)
        incomplete = tuple(offset for offset in range(highest) if offset not in completed)
        state = CommitState(incomplete[0] if incomplete else highest + 1, highest, incomplete)
        partition.assignment = AssignedPartition(
            name, state, epoch=self.in_flight.next_epoch(), capacity=self.capacity
        )
        partition.assignment.dirty = False
        partition.next_offset = state.next_offset
        self.in_flight.add(partition.assignment)

    def _name_of(self, delivery: Delivery) -> TopicPartition:
        return TopicPartition(delivery.origin.topic, delivery.origin.partition)

    def _partition_of(self, delivery: Delivery) -> Partition:
        return self.partitions[self._name_of(delivery)]


TestAnyOrderKeepsTheBooks = InFlightMachine.TestCase
TestAnyOrderKeepsTheBooks.settings = settings(max_examples=examples(300), stateful_step_count=50)
