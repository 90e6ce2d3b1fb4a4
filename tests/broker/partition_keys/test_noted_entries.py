"""Messages in a lane whose entry in the lanes topic another worker has written."""

from __future__ import annotations

import pytest

from broker.partition_keys.lane import LaneEntryState, SequenceNumber
from broker.partition_keys.lanes import Lanes
from tests.broker.kafka.fake_consumer import FakeRecord

KEY = b"a key"


@pytest.mark.parametrize("number", [0, 1], ids=["running", "parked"])
def test_the_end_of_a_message_is_written_to_the_topic_that_has_it_by_a_late_entry(number: int) -> None:
    lanes: Lanes[FakeRecord] = Lanes()
    for offset in (0, 1):
        lanes.take_in(KEY, SequenceNumber(offset, 0), FakeRecord("work", 0, offset, b"a message"))
    lanes.ready.popleft()
    entry = lanes.find(KEY, SequenceNumber(number, 0))
    assert entry is not None
    state = entry.state

    lanes.note_kept(entry, 3)
    assert (entry.kept, entry.kept_in, lanes.kept_offsets) == (True, 3, [number])
    assert entry.state is state
    assert lanes.to_release(now_ms=1) == []

    first = lanes.find(KEY, SequenceNumber(0, 0))
    assert first is not None
    lanes.finish(first)
    assert lanes.ready[0].state is LaneEntryState.RUNNING, "the next one did not follow"
    lanes.finish(lanes.ready.popleft())
    assert (lanes.kept_offsets, len(lanes)) == ([], 0)
