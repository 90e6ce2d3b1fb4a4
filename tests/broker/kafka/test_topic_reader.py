"""The reader of a topic's partitions to their ends, on a consumer in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pytest

from broker.kafka.clients import Clients
from broker.kafka.errors import KafkaTimeoutError
from broker.kafka.protocol import ConsumerClient
from broker.kafka.topic_reader import StaleRead, TopicReader
from broker.kafka.types import TopicPartition
from broker.process import clock
from tests.broker.kafka.fake_consumer import FakeConsumer, FakeRecord
from tests.broker.stopped_clock import StoppedClock

FIRST, SECOND = TopicPartition("log", 0), TopicPartition("log", 1)
STALL_TIMEOUT_S = 5.0


class Log(FakeConsumer):
    """A consumer whose polls return one record at most, and otherwise take their time.

    Attributes:
      claimed: The answers to ListOffsets, where they are not the true ends.
      polls_without_record: The number of the next polls that return nothing.
      asked_for_metadata: Whether the metadata were asked for.
    """

    def __init__(self, *lengths: int) -> None:
        super().__init__(
            {
                TopicPartition("log", number): [
                    FakeRecord("log", number, offset, b"") for offset in range(length)
                ]
                for number, length in enumerate(lengths)
            }
        )
        self.claimed: dict[TopicPartition, int] = {}
        self.polls_without_record = 0
        self.asked_for_metadata = False
        self._fetched: dict[TopicPartition, int] = {}

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        self._positions = {p: self._positions.get(p, (0, -1)) for p in partitions}

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[Any]]:
        self._fetched = {partition: len(self.logs[partition]) for partition in self._positions}
        if not self.polls_without_record:
            for partition, (position, _) in self._positions.items():
                if found := [record for record in self.logs[partition] if record.offset >= position][:1]:
                    self._positions[partition] = found[0].offset + 1, 0
                    return {partition: found}
        self.polls_without_record = max(0, self.polls_without_record - 1)
        clock.sleep(timeout_ms / 1000)
        return {}

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        super().seek_to_beginning(*partitions or self._positions)  # kafka-python: without any, all

    def highwater(self, partition: TopicPartition) -> int | None:
        return self._fetched.get(partition)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        return super().end_offsets(partitions) | self.claimed

    def request_metadata(self) -> None:
        self.asked_for_metadata = True


class LogClients(Clients):
    def __init__(self, log: Log) -> None:
        super().__init__("nowhere:9092")
        self._log = log

    def consumer(self, **settings: Any) -> ConsumerClient:
        return self._log


@pytest.fixture(autouse=True)
def stopped_clock() -> Iterator[StoppedClock]:
    stopped = StoppedClock()
    with clock.use(stopped):
        yield stopped


def reader_of(log: Log, *numbers: int) -> TopicReader:
    reader = TopicReader(LogClients(log), "log", stall_timeout_s=STALL_TIMEOUT_S, request_timeout_ms=1_000)
    reader.add(numbers)
    return reader


def offsets(batches: Iterator[dict[TopicPartition, list[Any]]]) -> list[tuple[int, int]]:
    return sorted((r.partition, r.offset) for batch in batches for found in batch.values() for r in found)


def test_a_read_returns_every_record_of_the_added_partitions_once() -> None:
    reader = reader_of(Log(3, 2, 1), 1, 0)

    assert reader.partitions == [FIRST, SECOND]
    assert offsets(reader.read(reader.ends())) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert list(reader.read(reader.ends())) == []


def test_a_read_continues_behind_the_last_one_and_a_rewound_reader_begins_again() -> None:
    log = Log(1, 1)
    reader = reader_of(log, 0)
    assert offsets(reader.read(reader.ends())) == [(0, 0)]
    log.logs[FIRST].append(FakeRecord("log", 0, 1, b""))

    reader.add([1])
    assert offsets(reader.read(reader.ends())) == [(0, 1), (1, 0)]

    reader.rewind()
    assert offsets(reader.read(reader.ends())) == [(0, 0), (0, 1), (1, 0)]


def test_no_partition_to_add_leaves_the_positions_alone() -> None:
    reader = reader_of(Log(1), 0)
    assert offsets(reader.read(reader.ends())) == [(0, 0)]

    reader.add([])

    assert reader.position(FIRST) == 1


def test_a_read_reaches_the_end_that_a_fetch_shows_beyond_the_one_that_listoffsets_shows() -> None:
    log = Log(5)
    log.claimed[FIRST] = 3  # within the last batch
    reader = reader_of(log, 0)

    assert offsets(reader.read(reader.ends())) == [(0, n) for n in range(5)]


def test_a_partition_is_read_to_its_end_where_compaction_has_left_no_record(
    stopped_clock: StoppedClock,
) -> None:
    class Compacted(Log):
        def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[Any]]:
            clock.sleep(0.8 * STALL_TIMEOUT_S)
            self.seek(FIRST, self._positions[FIRST][0] + 1)
            return {}

    reader = reader_of(Compacted(3), 0)

    assert list(reader.read(reader.ends())) == []
    assert reader.position(FIRST) == 3


def test_a_read_without_progress_fails_after_its_timeout_and_says_how_far_it_came(
    stopped_clock: StoppedClock,
) -> None:
    log = Log(3, 1)
    reader = reader_of(log, 0, 1)
    read = reader.read(reader.ends())
    assert next(read)
    log.polls_without_record = 1_000
    silent_s = stopped_clock.now_s

    with pytest.raises(KafkaTimeoutError, match=r"'log' for 5.0 s.* 0: 1 of 3, 1: 0 of 1"):
        next(read)

    assert STALL_TIMEOUT_S < stopped_clock.now_s - silent_s < STALL_TIMEOUT_S + 1.0


def test_the_time_that_the_caller_takes_for_records_is_not_a_lack_of_progress(
    stopped_clock: StoppedClock,
) -> None:
    log = Log(3)
    reader = reader_of(log, 0)

    for batches in reader.read(reader.ends()):
        assert batches
        stopped_clock.sleep(100 * STALL_TIMEOUT_S)
        log.polls_without_record = 1

    assert reader.position(FIRST) == 3


def test_a_leader_that_shows_less_than_was_acknowledged_is_not_believed(
    stopped_clock: StoppedClock,
) -> None:
    log = Log(2)
    reader = reader_of(log, 0)
    read = reader.read(reader.ends(), acknowledged={FIRST: 4})
    assert [next(read), next(read)]

    with pytest.raises(StaleRead, match=r"at least \{0: 4\} record"):
        next(read)

    assert log.asked_for_metadata
    assert stopped_clock.now_s < 1_000.0 + STALL_TIMEOUT_S


def test_acknowledged_records_that_appear_in_time_are_read() -> None:
    log = Log(2)
    reader = reader_of(log, 0)
    read = reader.read(reader.ends(), acknowledged={FIRST: 3})
    assert [next(read), next(read)]

    log.logs[FIRST].append(FakeRecord("log", 0, 2, b""))

    assert offsets(read) == [(0, 2)]


def test_a_closed_reader_has_closed_its_consumer() -> None:
    log = Log(1)

    reader_of(log, 0).close()

    assert log.closed
