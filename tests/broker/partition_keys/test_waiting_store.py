"""The store of waiting entries, on a lanes topic in memory that is truncated or recreated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from broker.errors import KafkaUnavailable
from broker.kafka.clients import Clients
from broker.kafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError
from broker.kafka.protocol import ConsumerClient
from broker.kafka.types import EpochEnd, TopicPartition
from broker.partition_keys.acknowledged_ends import AcknowledgedEnds
from broker.partition_keys.lane import SequenceNumber
from broker.partition_keys.record_format import Place, Waiting, tombstone, waiting_record
from broker.partition_keys.waiting_store import WaitingStore
from broker.process.sqlite_cache import CacheUnusable
from broker.produce.record import Record
from tests.broker.kafka.fake_consumer import Answer, FakeConsumer, FakeRecord

GROUP, TOPIC = "workers", "mail_lanes"
LOG = TopicPartition(TOPIC, 0)


class LanesTopic(FakeConsumer):
    """A lanes topic of one partition.

    Attributes:
      id: The topic's id.
      cut: Where the records of the first leader epoch end, after a truncation.
      failing: The names of methods that fail, once each.
    """

    def __init__(self) -> None:
        super().__init__({LOG: []})
        self.id = "first"
        self.cut: int | None = None
        self.failing: set[str] = set()

    def _fail_once(self, name: str) -> None:
        if name in self.failing:
            self.failing.remove(name)
            raise KafkaTimeoutError(f"{name} takes too long")

    def poll(self, timeout_ms: float = 0) -> dict[TopicPartition, list[Any]]:
        self._fail_once("poll")
        return super().poll(timeout_ms)

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        self._fail_once("end_offsets")
        return super().end_offsets(partitions, timeout_ms)

    def append(self, *records: Record, leader_epoch: int = 0) -> None:
        log = self.logs[LOG]
        for sent in records:
            record = FakeRecord(
                TOPIC, 0, len(log), sent.value, sent.key, sent.headers, leader_epoch=leader_epoch
            )
            log.append(record)

    def topic_id(self, topic: str) -> object:
        return self.id

    def ask_epoch_ends(self, epochs: Mapping[TopicPartition, int], timeout_ms: float) -> Answer:
        end = len(self.logs[LOG]) if self.cut is None or epochs[LOG] > 0 else self.cut
        return Answer({LOG: EpochEnd(epochs[LOG], end, 0 if self.cut is None else 1)})


class LanesClients(Clients):
    def __init__(self, topic: LanesTopic) -> None:
        super().__init__("nowhere:9092")
        self._topic = topic

    def consumer(self, **settings: Any) -> ConsumerClient:
        return self._topic


class Owner:
    """The owner of the queue's partitions, who repairs what it is told of.

    Attributes:
      told: The offsets of lost messages, of each call.
      failures: The number of calls that fail.
    """

    def __init__(self) -> None:
        self.told: list[list[int]] = []
        self.failures = 0

    def repair(self, lost: Sequence[Waiting]) -> None:
        self.told.append([w.place.sequence.offset for w in lost])
        if self.failures:
            self.failures -= 1
            raise KafkaUnavailable("not now")


def place(number: int) -> Place:
    return Place(GROUP, 0, SequenceNumber(number, 0))


def waits(number: int) -> Record:
    headers = [("content-type", b"text")]
    return waiting_record(TOPIC, Waiting(place(number), b"key", 7, b"value", headers), destination="mail")


def ends(number: int) -> Record:
    return tombstone(TOPIC, place(number), partition=0)


def store_of(topic: LanesTopic, owner: Owner) -> WaitingStore:
    return WaitingStore(
        LanesClients(topic),
        TOPIC,
        GROUP,
        publisher=None,  # type: ignore[arg-type]  # nothing is marked here
        written=AcknowledgedEnds(),
        repair=owner.repair,
    )


def waiting_in(store: WaitingStore) -> list[int]:
    return [sequence.offset for _, sequence, _, _ in store.waiting(0)]


@pytest.fixture
def topic() -> LanesTopic:
    return LanesTopic()


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_a_store_holds_the_entries_that_wait_and_names_those_that_ended(
    topic: LanesTopic, owner: Owner
) -> None:
    topic.append(waits(1), waits(2), waits(3), ends(2))
    store = store_of(topic, owner)

    store.catch_up()

    assert waiting_in(store) == [1, 3]
    assert store.ended == {place(2): b"key"}
    found = store.get(place(1))
    assert found == Waiting(place(1), b"key", 7, b"value", (("content-type", b"text"),), kept_in=0)
    assert store.get(place(2)) is None
    assert store.places() == [(place(1), 0), (place(3), 0)]
    assert (store.count(), owner.told) == (2, [])
    store.close()


def test_a_truncated_topic_is_read_again_and_its_owner_told_of_what_it_has_lost(
    topic: LanesTopic, owner: Owner
) -> None:
    topic.append(waits(1), waits(2), ends(1), waits(3))
    store = store_of(topic, owner)
    store.catch_up()

    del topic.logs[LOG][2:]  # the end of 1 and the wait of 3
    topic.cut = 2
    topic.append(waits(4), ends(2), waits(5), leader_epoch=1)
    store.catch_up()

    assert owner.told == [[3]]
    assert waiting_in(store) == [1, 4, 5]
    assert store.read_again
    assert store.seen_done == {place(2)}
    store.close()


@pytest.mark.parametrize("failing", [["end_offsets"], ["poll"], ["end_offsets", "poll"]], ids=" and ".join)
def test_a_truncation_is_repaired_although_requests_fail_before_and_after_it_is_noticed(
    topic: LanesTopic, owner: Owner, failing: list[str]
) -> None:
    topic.append(waits(1), waits(2), ends(1), waits(3))
    store = store_of(topic, owner)
    store.catch_up()
    del topic.logs[LOG][2:]
    topic.cut = 2
    topic.failing = set(failing)

    for _ in failing:
        with pytest.raises(KafkaTimeoutError):
            store.catch_up()
        assert owner.told == []
        assert store.may_have_changed()
    store.catch_up()

    assert owner.told == [[3]]
    assert waiting_in(store) == [1, 2]
    store.close()


def test_a_repair_that_fails_is_repeated_with_the_same_difference(topic: LanesTopic, owner: Owner) -> None:
    topic.append(waits(1), waits(2))
    store = store_of(topic, owner)
    store.catch_up()
    del topic.logs[LOG][1:]
    topic.cut = 1
    owner.failures = 1

    with pytest.raises(KafkaUnavailable):
        store.catch_up()
    store.catch_up()
    store.catch_up()

    assert owner.told == [[2], [2]]
    store.close()


def test_a_recreated_topic_is_compared_with_the_entries_of_the_one_before(
    topic: LanesTopic, owner: Owner
) -> None:
    topic.append(waits(1), waits(2))
    store = store_of(topic, owner)
    store.catch_up()
    topic.id = "second"
    topic.logs[LOG].clear()
    topic.append(waits(2), waits(3))

    with pytest.raises(UnknownTopicOrPartitionError, match="recreated"):
        store.catch_up()
    store.catch_up()

    assert owner.told == [[1]]
    assert waiting_in(store) == [2, 3]
    store.close()


def test_entries_that_could_not_be_kept_are_read_again_when_there_is_room(
    topic: LanesTopic, owner: Owner
) -> None:
    topic.append(*(waits(number) for number in range(1_000)))
    store = store_of(topic, owner)
    table = store._table
    table._query("PRAGMA max_page_count = 6")

    with pytest.raises(CacheUnusable, match=r"wait for their partition keys.*TMPDIR"):
        store.catch_up()
    assert store.count() == 0

    table._query("PRAGMA max_page_count = 1000")
    store.catch_up()
    assert waiting_in(store) == list(range(1_000))
    store.close()
