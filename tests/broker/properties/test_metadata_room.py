"""What has_room_in_metadata allows never makes a commit that Kafka would refuse."""

from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import TopicPartition

from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.offsets.commit_metadata import MAX_METADATA_CHARS, CommitState, Suspicion, decode, encode
from tests.examples import examples

PARTITION = TopicPartition("mail", 0)


def record(offset: int) -> ConsumerRecord:
    return ConsumerRecord("mail", 0, -1, offset, 0, 0, None, b"", [], None, -1, 0, -1)


@settings(max_examples=examples(12))
@given(
    seed=st.integers(0, 2**32),
    first=st.sampled_from([0, 10**6, 2**62]),
    largest_gap=st.sampled_from([1, 2, 100, 20_000, 2**40]),
    completing=st.sampled_from([0.0, 0.1, 0.45]),
    marking=st.sampled_from([0.0, 0.3, 1.0]),
)
@example(seed=1, first=0, largest_gap=100, completing=0.0, marking=1.0)
def test_a_commit_fits_however_many_records_were_dispatched_while_there_was_room(
    seed: int, first: int, largest_gap: int, completing: float, marking: float
) -> None:
    random = Random(seed)
    assignment = AssignedPartition(PARTITION, CommitState(first, first - 1), epoch=1, capacity=Capacity(0))
    incomplete: list[int] = []
    offset, dispatched = first, 0
    while dispatched < 2_500 and assignment.has_room_in_metadata():
        offset += random.randint(1, largest_gap)
        assignment.take_in([record(offset)])
        assignment.take_out()
        assert assignment.tracker.deliver(offset)
        incomplete.append(offset)
        dispatched += 1
        if random.random() < marking:
            crashes = random.choice([1, 1, 1, 2, 3])
            assignment.crash_counts.suspicions[offset] = Suspicion(crashes, running=True)
        if random.random() < completing:
            done = incomplete.pop(random.randrange(len(incomplete)))
            assignment.tracker.complete(done)
            assignment.crash_counts.drop(done)
        if dispatched % 50 == 0:
            assert len(encode(assignment.snapshot())) <= MAX_METADATA_CHARS

    state = assignment.snapshot()
    text = encode(state)
    assert len(text) <= MAX_METADATA_CHARS
    assert decode(state.next_offset, text) == state
    assert list(state.incomplete) == incomplete
