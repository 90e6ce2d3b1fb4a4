"""What is written again to a lanes topic that has lost its tail, by each source that knows the difference."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from broker.consume.lane_repair import RECORDS_PER_PUBLISH, LaneRepair
from broker.errors import KafkaUnavailable
from broker.kafka.types import TopicPartition
from broker.offsets.commit_metadata import CommitState
from broker.offsets.committed_lanes import CommittedLanes, LogEnd
from broker.partition_keys.acknowledged_ends import AcknowledgedEnds
from broker.partition_keys.lane import SequenceNumber
from broker.partition_keys.lanes import Lanes
from broker.partition_keys.record_format import Place, Waiting, lane_header, read
from broker.produce.record import Record
from tests.broker.kafka.fake_consumer import FakeConsumer, FakeRecord

QUEUE, LANES = TopicPartition("work", 0), "work_lanes"
GROUP = "workers"
KEY = b"a key"


@dataclass
class Store:
    """The lanes topic after it has lost its tail, as ``WaitingStore`` shows it."""

    present: list[int] = field(default_factory=list)
    seen_done: set[Place] = field(default_factory=set)
    is_there = True
    reads: int = 0

    def catch_up(self) -> None:
        self.reads += 1

    def are_cut(self, ends: Sequence[Any]) -> list[bool]:
        return [True for _ in ends]

    def read_all_again(self) -> set[Place]:
        return self.seen_done

    def waiting(self, partition: int) -> list[tuple[bytes, SequenceNumber, int, int]]:
        return [(KEY, SequenceNumber(offset, 0), 0, 3) for offset in self.present]


class Topics:
    """A queue, and the records that a repair writes to its lanes topic."""

    def __init__(self, *, first_offsets: Sequence[int] = ()) -> None:
        log = [
            FakeRecord("work", 0, offset, b"another") for offset in range(max(first_offsets, default=0) + 1)
        ]
        for offset in first_offsets:
            log[offset] = FakeRecord("work", 0, offset, b"m%d" % offset, KEY, [lane_header(KEY)])
        self.written: list[list[Record]] = []
        self.failure: Exception | None = None
        self.producers_replaced = 0
        self.lanes: Lanes[Any] = Lanes()
        self.ends = AcknowledgedEnds()
        parts: Any = SimpleNamespace(
            clients=SimpleNamespace(consumer=lambda **settings: FakeConsumer({QUEUE: log})),
            in_flight=SimpleNamespace(lock=threading.RLock()),
            completion_publisher=SimpleNamespace(publish=self._publish, replace_producer=self._replace),
            lane_writer=SimpleNamespace(note=self._note),
            acknowledged_ends=self.ends,
        )
        config: Any = SimpleNamespace(application_group=GROUP, topic="work", lanes_topic=LANES)
        self.repair = LaneRepair(
            config, parts, lanes_at=lambda place: self.lanes if place.partition == 0 else None
        )

    def _publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        if self.failure is not None:
            return {0: self.failure}
        if records:
            self.written.append(list(records))
        for offset, record in enumerate(records):
            assert record.watch is not None
            record.watch(3 if record.partition is None else record.partition, offset)
        return {}

    def _replace(self) -> None:
        self.producers_replaced += 1

    def _note(self, topic: str, entry: Any, partition: int, offset: int | None, epoch: int = -1) -> None:
        entry.kept_in = partition

    def written_waiting(self) -> list[int]:
        return [place.sequence.offset for place, waiting in self._decoded() if waiting is not None]

    def written_tombstones(self) -> list[int]:
        return [place.sequence.offset for place, waiting in self._decoded() if waiting is None]

    def _decoded(self) -> list[tuple[Place, Waiting | None]]:
        return [read(r.key, r.value, r.headers) for records in self.written for r in records]


def place(offset: int, partition: int = 0) -> Place:
    return Place(GROUP, partition, SequenceNumber(offset, 0))


def test_what_the_last_owner_committed_and_the_topic_has_lost_is_written_from_the_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    topics, store = Topics(first_offsets=[2, 5, 7]), Store(present=[7, 8, 9], seen_done={place(3)})
    lanes = CommittedLanes({0: LogEnd(10, 1)}, waiting=(2, 3, 4, 5, 7))
    state = CommitState(10, 9, lanes=lanes)

    topics.repair.repair_committed(store, {QUEUE: state})  # type: ignore[arg-type]

    assert topics.written_waiting() == [2, 5], "offset 4 has another record, and offset 3 is done"
    assert topics.written_tombstones() == [8, 9]
    assert store.reads == 1
    assert topics.ends.ends(LANES) == {3: 2}
    (line,) = caplog.messages
    assert "since the last owners of work[0] wrote to it" in line
    assert "the records of 2 waiting message(s) were written again from the queue's own records" in line
    assert "the tombstones of 2 completed one(s)" in line
    assert "1 waiting message(s) are lost" in line


def test_what_this_process_wrote_and_had_not_read_is_written_from_the_queue() -> None:
    topics, store = Topics(first_offsets=[1, 2, 3, 4]), Store(present=[2], seen_done={place(3)})
    topics.lanes.restore([(KEY, SequenceNumber(4, 0), 0, 1)])
    topics.repair.repair_owned(store, {0: [1, 2, 3, 4]})  # type: ignore[arg-type]
    assert topics.written_waiting() == [1, 4]
    assert topics.producers_replaced == 1
    entry = topics.lanes.find(KEY, SequenceNumber(4, 0))
    assert entry is not None
    assert entry.kept_in == 3, "its tombstone would not follow it"


def test_nothing_is_written_when_the_topic_has_all_that_this_process_wrote() -> None:
    topics, store = Topics(), Store(present=[1, 2])
    topics.lanes.restore([(KEY, SequenceNumber(offset, 0), 0, 3) for offset in (1, 2)])
    topics.repair.repair_owned(store, {0: [1, 2]})  # type: ignore[arg-type]
    assert not topics.written
    assert topics.producers_replaced == 0


def test_a_waiting_message_that_is_done_in_memory_gets_another_tombstone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    topics, store = Topics(), Store(present=[1, 2, 3])
    topics.lanes.restore([(KEY, SequenceNumber(2, 0), 0, 3)])
    topics.repair.repair_owned(store, {0: [2]})  # type: ignore[arg-type]
    assert topics.written_tombstones() == [1, 3]
    assert not topics.written_waiting()
    assert "the tombstones of 2 completed one(s)" in caplog.text


def test_a_waiting_message_that_this_process_may_not_know_gets_no_tombstone() -> None:
    topics, store = Topics(), Store(present=[1, 2, 3])
    topics.repair.repair_owned(store, {0: [], 1: []}, known_from={0: 3})  # type: ignore[arg-type]
    assert topics.written_tombstones() == [3], "partition 1 is not owned, and 1 and 2 are of an earlier owner"


def test_what_the_store_had_read_is_written_as_it_was_for_owned_partitions_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    topics = Topics()
    topics.lanes.restore([(KEY, SequenceNumber(1, 0), 50, 3), (KEY, SequenceNumber(2, 0), 0, 3)])
    waits, done = Waiting(place(1), KEY, 50, b"retry", (), 3), Waiting(place(5), KEY, 0, b"", (), 3)
    foreign = Waiting(place(1, partition=1), KEY, 0, b"", (), 3)

    topics.repair.repair_read([waits, foreign, done])

    assert topics.written_waiting() == [1]
    assert [record.value for record in topics.written[0]] == [b"retry"]
    assert not topics.written_tombstones()
    assert "the records of 1 waiting message(s) were written again, and the tombstones of 0" in caplog.text


def test_a_repair_that_kafka_does_not_acknowledge_is_an_error_that_names_the_topic() -> None:
    topics = Topics(first_offsets=[1])
    topics.failure = TimeoutError()
    with pytest.raises(KafkaUnavailable, match=f"The lost records of '{LANES}' could not be written again"):
        topics.repair.repair_owned(Store(), {0: [1]})  # type: ignore[arg-type]


def test_many_records_are_written_in_several_publishes() -> None:
    offsets = range(1, RECORDS_PER_PUBLISH + 2)
    topics = Topics(first_offsets=offsets)
    topics.repair.repair_owned(Store(), {0: offsets})  # type: ignore[arg-type]
    assert topics.written_waiting() == list(offsets)
    assert [len(records) for records in topics.written] == [RECORDS_PER_PUBLISH, 1]
