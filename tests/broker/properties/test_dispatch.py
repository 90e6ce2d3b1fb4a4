"""Worker processes that dispatch, crash, whose commits fail, and that hand over, simulated step by step.

Kafka is a list of records and the last commit of each partition. A worker process has the real deliveries in
flight, and a real dispatcher for each queue. The simulation knows which records a process was about to run
when it died; the broker has only the commits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import pytest
from dramatiq.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from broker import KafkaBroker
from broker.consume.dispatcher import Dispatcher
from broker.consume.probation import MARK_BACKOFF_S
from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.deliveries.delivery import Delivery
from broker.offsets.commit_metadata import MAX_METADATA_CHARS, CommitState, decode, encode
from broker.offsets.crash_counts import after_a_crash
from broker.partition_keys.record_format import lane_header
from broker.process import clock
from tests.broker.stopped_clock import StoppedClock
from tests.examples import examples

QUEUES = ["mail", "work"]
PARTITIONS = [TopicPartition(queue, number) for queue in QUEUES for number in range(2)]
RECORDS = 14
MAX_STEPS = 20_000


@dataclass
class Cluster:
    """The logs, what was committed of each, and the paused queues. With ``keys``, three of four records have
    one of so many.
    """

    killers: set[tuple[TopicPartition, int]]
    keys: int = 0
    commits: dict[TopicPartition, CommitState] = field(default_factory=dict)
    done: set[tuple[TopicPartition, int]] = field(default_factory=set)
    dead: dict[tuple[TopicPartition, int], int] = field(default_factory=dict)
    crashes: dict[tuple[TopicPartition, int], int] = field(default_factory=dict)
    paused: frozenset[str] = frozenset()

    def commit(self, partition: TopicPartition, state: CommitState) -> None:
        text = encode(state)
        assert len(text) <= MAX_METADATA_CHARS
        known = set(range(state.next_offset)) | (
            set(range(state.next_offset, state.highest + 1)) - set(state.incomplete)
        )
        finished = {offset for place, offset in (*self.done, *self.dead) if place == partition}
        assert known <= finished, f"{partition}: {sorted(known - finished)} would be skipped"
        self.commits[partition] = decode(state.next_offset, text)

    def key_of(self, offset: int) -> bytes | None:
        return b"%d" % (offset % self.keys) if self.keys and offset % 4 else None

    def check_order(self, place: tuple[TopicPartition, int]) -> None:
        """A record runs when all of its key before it have ended."""
        partition, offset = place
        key = self.key_of(offset)
        before = [o for o in range(offset) if key is not None and self.key_of(o) == key]
        missing = [o for o in before if (partition, o) not in self.done and (partition, o) not in self.dead]
        assert not missing, f"{partition}: {offset} runs before {missing}"

    def everything_is_accounted_for(self) -> bool:
        return len(self.done | self.dead.keys()) == len(PARTITIONS) * RECORDS


class FlakyCommits:
    """Stands for `Commits`: some commits are refused, as during a rebalance."""

    def __init__(self, cluster: Cluster, dice: Random, failing: float) -> None:
        self._cluster, self._dice, self._failing = cluster, dice, failing

    def commit_now(self, assignments: Iterable[AssignedPartition]) -> bool:
        (assignment,) = assignments
        assignment.dirty = True
        if self._dice.random() < self._failing:
            return False
        self._cluster.commit(assignment.partition, assignment.snapshot())
        assignment.dirty = False
        assignment.uncommitted = 0
        return True


class Process:
    """One worker process: a consumer for each queue, and threads that run what they are handed."""

    def __init__(self, cluster: Cluster, dice: Random, *, threads: int, failing: float) -> None:
        self.cluster = cluster
        self.dice = dice
        self.threads = threads
        self.broker = KafkaBroker(middleware=[])
        self.broker.actors = dict.fromkeys(["task"])  # type: ignore[assignment]  # only looked up by name
        self.broker.parts.completer.settle = self._dead_letter  # type: ignore[method-assign]
        self.commits = FlakyCommits(cluster, dice, failing)
        self.consumers: dict[str, Dispatcher] = {}
        for queue in QUEUES:
            self.broker.declare_queue(queue)
            capacity = Capacity(2 * threads)
            self.consumers[queue] = Dispatcher(
                self.broker.parts.consumer_config(queue),
                self.broker.parts.for_consumers,
                capacity,
                commit_now=self.commits.commit_now,
            )
            for partition in PARTITIONS:
                if partition.topic == queue:
                    self._take_over(partition, capacity)
        self.read_commands()
        self.waiting: list[Delivery] = []
        self.running: list[Delivery] = []

    def step(self) -> bool:
        """Do one thing at random; False when the process has died of it."""
        choice = self.dice.random()
        if choice < 0.35:
            clock.sleep(MARK_BACKOFF_S)
            dispatcher = self.consumers[self.dice.choice(QUEUES)]
            if (delivery := dispatcher.next()) is not None:
                self.waiting.append(delivery)
        elif choice < 0.6 and self.waiting and len(self.running) < self.threads:
            delivery = self.waiting.pop(0)
            if self.broker.parts.in_flight.begin(delivery):
                assert delivery.queue_name not in self.cluster.paused
                self.cluster.check_order(place_of(delivery))
                self.running.append(delivery)
                return not self._kills(delivery)
        elif choice < 0.85 and self.running:
            delivery = self.running.pop(self.dice.randrange(len(self.running)))
            self.cluster.done.add(place_of(delivery))
            self.broker.parts.in_flight.complete(delivery)
        else:
            assignment = self.dice.choice(self._assignments())
            if assignment.dirty:
                self.commits.commit_now([assignment])
        return True

    def read_commands(self) -> None:
        self.broker.parts.in_flight.gate.paused = self.cluster.paused

    def hand_over(self) -> None:
        """End in good order: what runs is given up, as after a second SIGTERM."""
        for dispatcher in self.consumers.values():
            for partition in list(dispatcher.assigned_partitions):
                assignment = dispatcher.remove(partition)
                assert assignment is not None
                self.cluster.commit(partition, assignment.snapshot(clean=True))
            dispatcher.close()

    def _assignments(self) -> list[AssignedPartition]:
        return [a for dispatcher in self.consumers.values() for a in dispatcher.assigned_partitions.values()]

    def _kills(self, delivery: Delivery) -> bool:
        place = place_of(delivery)
        if place not in self.cluster.killers:
            return False
        self.cluster.crashes[place] = self.cluster.crashes.get(place, 0) + 1
        return True

    def _dead_letter(self, delivery: Delivery) -> None:
        place = place_of(delivery)
        self.cluster.dead[place] = self.cluster.dead.get(place, 0) + 1
        self.broker.parts.in_flight.complete(delivery)

    def _take_over(self, partition: TopicPartition, capacity: Capacity) -> None:
        state, probation_end = self.cluster.commits.get(partition, CommitState(0, -1)), 0
        if partition in self.cluster.commits and not state.clean:
            state, probation_end = after_a_crash(state), RECORDS
        assignment = AssignedPartition(
            partition,
            state,
            epoch=self.broker.parts.in_flight.next_epoch(),
            capacity=capacity,
            probation_end=probation_end,
        )
        # The real consumer repeats this until it succeeds.
        self.cluster.commit(partition, assignment.snapshot())
        assignment.dirty = False
        self.consumers[partition.topic].add(assignment)
        if left := [
            record(partition, offset, self.cluster.key_of(offset))
            for offset in range(state.next_offset, RECORDS)
        ]:
            assignment.take_in(left)


def record(partition: TopicPartition, offset: int, key: bytes | None) -> ConsumerRecord:
    name = f"{partition.topic}-{offset}"
    message: Message[None] = Message(partition.topic, "task", (offset,), {}, {}, name, 0)
    value = message.encode()
    headers = [] if key is None else [lane_header(key)]
    return ConsumerRecord(
        partition.topic, partition.partition, -1, offset, 0, 0, key, value, headers, None, -1, len(value), -1
    )


def place_of(delivery: Delivery) -> tuple[TopicPartition, int]:
    origin = delivery.origin
    return TopicPartition(origin.topic, origin.partition), origin.offset


@settings(max_examples=examples(150))
@given(
    seed=st.integers(0, 2**32),
    threads=st.integers(1, 8),
    killers=st.sets(st.tuples(st.sampled_from(PARTITIONS), st.integers(0, RECORDS - 1)), max_size=4),
    failing=st.sampled_from([0.0, 0.1, 0.5]),
    restarting=st.sampled_from([0.0, 0.003, 0.02]),
    keys=st.sampled_from([0, 1, 3]),
    pausing=st.sampled_from([0.0, 0.05]),
)
def test_every_record_is_done_or_dead_and_only_killers_are_dead(
    seed: int,
    threads: int,
    killers: set[tuple[TopicPartition, int]],
    failing: float,
    restarting: float,
    keys: int,
    pausing: float,
) -> None:
    dice = Random(seed)
    cluster = Cluster(killers, keys)
    with clock.use(StoppedClock()):
        process = Process(cluster, dice, threads=threads, failing=failing)
        for _ in range(MAX_STEPS):
            if cluster.everything_is_accounted_for():
                break
            if dice.random() < pausing:
                cluster.paused ^= {dice.choice(QUEUES)}
                process.read_commands()
            if not process.step():
                process = Process(cluster, dice, threads=threads, failing=failing)
            elif dice.random() < restarting:
                process.hand_over()
                process = Process(cluster, dice, threads=threads, failing=failing)
        else:
            pytest.fail("nothing goes on any more")

    assert cluster.done.isdisjoint(killers)
    assert cluster.dead.keys() == killers, "an innocent record was taken for a killer"
    # Killers that are handed out together share their first two crashes.
    assert sum(cluster.crashes.values()) <= 3 * len(killers)
    if len(killers) == 1:
        assert sum(cluster.crashes.values()) == 3
