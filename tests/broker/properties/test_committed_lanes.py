"""What is committed of lanes: it has room, and tells what waits from what is done after a cut."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.structs import TopicPartition

from broker.deliveries.assigned_partition import AssignedPartition, Capacity
from broker.offsets.commit_metadata import MAX_METADATA_CHARS, CommitState, decode, encode
from broker.offsets.committed_lanes import (
    MAX_LANES_BYTES,
    MAX_LISTED,
    CommittedLanes,
    LogEnd,
    compare,
    merge,
    summarize,
)
from broker.partition_keys.lane import SequenceNumber
from broker.partition_keys.lanes import Lanes

ENDS = {0: LogEnd(500, 3)}


@settings(deadline=None, max_examples=60)
@given(
    gap=st.sampled_from([1, 2, 3, 200, 20_000]),
    count=st.integers(0, 3_000),
    partitions=st.integers(1, 200),
    end=st.sampled_from([1, 10**6, 2**62]),
    holes=st.integers(0, 1_300),
)
def test_a_commit_with_lanes_fits_and_says_where_its_list_ends(
    gap: int, count: int, partitions: int, end: int, holes: int
) -> None:
    highest = gap * count + 2 * holes + 10
    lanes: Lanes[Any] = Lanes()
    kept = [gap * number for number in range(count)]
    lanes.restore([(b"key", SequenceNumber(offset, 0), 0, None) for offset in kept])
    incomplete = tuple(range(highest - 2 * holes, highest, 2))
    state = CommitState(incomplete[0] if incomplete else highest + 1, highest, incomplete)
    assigned = AssignedPartition(
        TopicPartition("mail", 0), state, epoch=1, capacity=Capacity(0), lanes=lanes,
        lane_ends=lambda: dict.fromkeys(range(partitions), LogEnd(end, 7)),
    )  # fmt: skip

    said = assigned.snapshot()
    text = encode(said)

    assert len(text) <= MAX_METADATA_CHARS
    assert decode(said.next_offset, text) == said
    if said.lanes is not None:
        assert len(text) - len(encode(state)) <= MAX_LANES_BYTES * 4 // 3 + 8
        assert len(said.lanes.waiting) + said.lanes.omitted == count
        assert list(said.lanes.waiting) == kept[said.lanes.omitted :]
        for offset in kept:
            assert (offset in said.lanes.waiting) != said.lanes.is_unknown(offset)


def test_what_waits_of_one_busy_key_is_listed_in_full() -> None:
    said = summarize(ENDS, range(MAX_LISTED), highest=10**6, room=MAX_LANES_BYTES)
    assert said == CommittedLanes(ENDS, tuple(range(MAX_LISTED)))


def test_nothing_is_said_without_an_end_whose_epoch_is_known() -> None:
    assert summarize({}, [1], highest=9, room=MAX_LANES_BYTES) is None
    assert summarize({0: LogEnd(5, -1)}, [1], highest=9, room=MAX_LANES_BYTES) is None
    assert summarize(ENDS, [1], highest=9, room=10) is None


offsets = st.sets(st.integers(0, 40))


@given(waiting=offsets, done=offsets, lost=offsets, back=offsets, ended=offsets, room=st.integers(40, 60))
def test_after_a_cut_all_that_waited_waits_and_what_was_done_does_not_as_far_as_it_was_listed(
    waiting: set[int], done: set[int], lost: set[int], back: set[int], ended: set[int], room: int
) -> None:
    # Given messages that waited, and others that were done, when their owner committed
    done, ended = done - waiting, ended - waiting
    said = summarize(ENDS, sorted(waiting), highest=40, room=room)
    if said is None:
        return
    # When the topic has lost some of the first, and has some of the others again
    present = (waiting - lost) | (done & back)

    found = compare(said, present, ended, [offset for offset in present if offset <= 40])

    listed = {offset for offset in range(41) if not said.is_unknown(offset)}
    assert set(found.lost) == waiting & lost & listed
    assert set(found.done) == done & back & listed


def test_what_was_flushed_since_the_commit_is_not_lost() -> None:
    assert compare(CommittedLanes(ENDS, (3, 4)), [3], [4], [3]).lost == ()


def test_what_came_to_wait_after_the_commit_is_not_done() -> None:
    assert compare(CommittedLanes(ENDS, (3,)), [3, 9], [], [3]).done == ()


@given(offsets, offsets, st.integers(40, 60), st.integers(40, 60))
def test_of_two_owners_lists_nothing_that_either_calls_waiting_is_taken_for_done(
    first: set[int], second: set[int], room: int, other_room: int
) -> None:
    one = summarize(ENDS, sorted(first), highest=40, room=room)
    other = summarize(ENDS, sorted(second), highest=40, room=other_room)
    both = merge(one, other)
    if both is None:
        return
    kept = first | (second if other is not None else set())
    for offset in kept:
        assert offset in both.waiting or both.is_unknown(offset)
    assert not set(compare(both, kept, [], kept).done)
