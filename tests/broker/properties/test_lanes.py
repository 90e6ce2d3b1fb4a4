"""The lanes of one partition against a plain account of what ran, through any order of events.

Kafka is simulated: a log of records, the offsets that are complete, and the lanes topic. An owner of the
partition can go at any moment, and the next one starts from those three. For a while, the lanes topic may be
read from a leader that shows it as it was before.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kafka.structs import TopicPartition

from broker.consume.lane_releaser import LaneReleaser
from broker.consume.owned_lanes import OwnedLanes
from broker.kafka import topic_reader
from broker.kafka.clients import Clients
from broker.kafka.rights import Denials
from broker.kafka.topic_layout import TopicLayout
from broker.kafka.topic_reader import StaleRead
from broker.kafka.topics import Topics
from broker.partition_keys import lanes as lanes_module
from broker.partition_keys.acknowledged_ends import AcknowledgedEnds
from broker.partition_keys.lane import LaneEntry, LaneEntryState, SequenceNumber
from broker.partition_keys.lanes import Lanes
from broker.partition_keys.record_format import (
    Place,
    Waiting,
    read_requeue_headers,
    tombstone,
    waiting_record,
)
from broker.produce.record import Record as Sent
from tests.examples import examples

KEYS = [b"a", b"b", b"c"]
MAX_STEPS = 20_000
GROUP = "workers"
CLIENTS = Clients("nowhere:9092", None)
TOPICS = Topics(CLIENTS, TopicLayout(1, 1, 1))
PARTITION = TopicPartition(TOPICS.queue("work"), 0)
LANES = TopicPartition(TOPICS.lanes("work"), 0)


@dataclass(frozen=True)
class Record:
    offset: int
    key: bytes
    sequence: SequenceNumber
    requeued_due_ms: int | None = None


@dataclass
class Kafka:
    """What outlives an owner. ``waiting`` is what ``lanes_topic`` says in the end."""

    log: list[Record] = field(default_factory=list)
    complete: set[int] = field(default_factory=set)
    lanes_topic: list[Sent] = field(default_factory=list)
    waiting: dict[SequenceNumber, tuple[bytes, int]] = field(default_factory=dict)
    log_start: int = 0
    #: Where the lanes topic ends for its readers while a leader that stood still answers them.
    shown_end: int | None = None
    stalls: int = 0

    def stall(self) -> None:
        """From now on, and until another leader answers, readers see no more of the lanes topic."""
        self.stalls -= 1
        self.shown_end = self.lanes_end

    @property
    def lanes_end(self) -> int:
        return len(self.lanes_topic) if self.shown_end is None else self.shown_end

    def tell(self, sequence: SequenceNumber, key: bytes, due_ms: int | None) -> int:
        """Write into the lanes topic that a message waits, or with None that it is done or flushed."""
        place = Place(GROUP, PARTITION.partition, sequence)
        self.waiting.pop(sequence, None)
        if due_ms is None:
            return self.append(tombstone(LANES.topic, place, partition=None))
        self.waiting[sequence] = (key, due_ms)
        return self.append(waiting_record(LANES.topic, Waiting(place, key, due_ms, b""), destination="work"))

    def append(self, record: Sent) -> int:
        self.lanes_topic.append(record)
        return len(self.lanes_topic) - 1

    def send(
        self, key: bytes, sequence: SequenceNumber | None = None, requeued_due_ms: int | None = None
    ) -> None:
        offset = len(self.log)
        self.log.append(Record(offset, key, sequence or SequenceNumber(offset, 0), requeued_due_ms))


@dataclass
class Books:
    """What was sent and done, by key."""

    sent: dict[bytes, list[int]] = field(default_factory=dict)
    done: dict[bytes, list[int]] = field(default_factory=dict)

    @property
    def are_complete(self) -> bool:
        return all(sorted(self.done.get(key, [])) == sent for key, sent in self.sent.items())

    def forget_all_but(self, kept: Callable[[int], bool]) -> None:
        for key, sent in self.sent.items():
            self.done[key] = [number for number in self.done.get(key, []) if kept(number)]
            self.sent[key] = [number for number in sent if kept(number)]

    def begin(self, key: bytes, number: int) -> None:
        assert number not in self.done.get(key, []), f"{key!r}: {number} runs again after it was done"
        missing = [n for n in self.sent[key] if n < number and n not in self.done.get(key, [])]
        assert not missing, f"{key!r}: {number} runs before {missing}"


class LanesTopic:
    """The consumer with which WaitingStore reads the simulated lanes topic. Other threads run meanwhile."""

    def __init__(self, kafka: Kafka, meanwhile: Callable[[], object]) -> None:
        self._kafka, self._meanwhile = kafka, meanwhile
        self._position = 0

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {LANES.partition}

    def leader_epoch(self, partition: TopicPartition) -> int:
        return -1

    def topic_id(self, topic: str) -> None:
        return None

    def known_partitions(self, topic: str) -> set[int]:
        return {LANES.partition}

    def refresh_metadata(self, timeout_ms: float) -> None:
        pass

    def request_metadata(self) -> None:
        pass

    def position_epoch(self, partition: TopicPartition) -> int:
        return -1

    def assign(self, partitions: list[TopicPartition]) -> None:
        pass

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        self._position = 0

    def position(self, partition: TopicPartition, *, timeout_ms: int) -> int:
        return self._position

    def highwater(self, partition: TopicPartition) -> int:
        return self._kafka.lanes_end

    def end_offsets(self, partitions: list[TopicPartition], *, timeout_ms: int) -> dict[object, int]:
        ends = dict.fromkeys(partitions, self._kafka.lanes_end)
        self._meanwhile()
        return dict(ends)

    def poll(self, *, timeout_ms: int) -> dict[object, list[object]]:
        start, self._position = self._position, max(self._position, self._kafka.lanes_end)
        records: list[object] = [
            SimpleNamespace(topic=LANES.topic, partition=LANES.partition, offset=start + number,
                            key=sent.key, value=sent.value, headers=sent.headers)
            for number, sent in enumerate(self._kafka.lanes_topic[start : self._position])
        ]  # fmt: skip
        return {LANES: records} if records else {}

    def close(self, *, autocommit: bool) -> None:
        pass


class Owner:
    """One owner of the partition: acts as the dispatcher and the completer, and drives the releaser.

    Every write to Kafka is a step of its own, between which the owner can die.
    """

    def __init__(
        self, kafka: Kafka, books: Books, dice: Random, written: AcknowledgedEnds | None = None
    ) -> None:
        self.kafka, self.books, self.dice = kafka, books, dice
        self.written = written or AcknowledgedEnds()
        self.lanes: Lanes[Record] = Lanes()
        self.revoked = self.lanes_are_closed = False
        self.partition = PARTITION
        self.owned_lanes, self.releaser = self._lanes_of_a_consumer()
        self.position = kafka.log_start
        self.running: dict[bytes, tuple[Record, LaneEntry[Record]]] = {}
        self.moving: list[tuple[Record, LaneEntry[Record]]] = []
        #: Follow-ups under way: (turn, record, due time or None when done), and whether Kafka has been told.
        self.ending: list[tuple[Record, LaneEntry[Record], int | None, bool]] = []
        self.complete = set(kafka.complete)
        self.tracker = SimpleNamespace(is_complete=lambda offset: offset in self.complete)
        #: What an earlier assignment of this process still runs, by offset.
        self.orphans: dict[int, Record] = {}
        self.lanes = self._take_over()

    def _take_over(self) -> Lanes[Any]:
        try:
            return self.owned_lanes.restore([PARTITION])[PARTITION]
        except StaleRead:
            assert self.kafka.shown_end is not None
            self.kafka.shown_end = None  # it is tried until the true leader answers
            return self.owned_lanes.restore([PARTITION])[PARTITION]

    def _lanes_of_a_consumer(self) -> tuple[OwnedLanes, LaneReleaser]:
        config = SimpleNamespace(
            queue_name="work",
            topic=TOPICS.queue("work"),
            lanes_topic=TOPICS.lanes("work"),
            application_group=GROUP,
        )
        parts = SimpleNamespace(
            denials=Denials(),
            clients=SimpleNamespace(consumer=lambda **options: LanesTopic(self.kafka, self.work_elsewhere)),
            in_flight=SimpleNamespace(lock=threading.RLock()),
            completion_publisher=SimpleNamespace(publish=self.publish),
            acknowledged_ends=self.written,
        )
        kafka = SimpleNamespace(
            existing_topics=lambda topics, timeout_ms: set(topics), topic_id=lambda topic: None
        )
        stubs: dict[str, Any] = {
            "config": config, "parts": parts, "kafka": kafka, "assigned_partitions": {PARTITION: self}
        }  # fmt: skip
        owned_lanes = OwnedLanes(**stubs)
        return owned_lanes, LaneReleaser(**stubs, owned_lanes=owned_lanes)

    @property
    def is_idle(self) -> bool:
        return (
            not self.ending
            and self.position == len(self.kafka.log)
            and not self.lanes.leaving
            and not any(lane_entry.state is LaneEntryState.WAITING for lane_entry in self.lane_entries)
        )

    @property
    def lane_entries(self) -> list[LaneEntry[Record]]:
        return [lane_entry for lane in self.lanes._lanes.values() for lane_entry in lane.lane_entries]

    def given_back(self) -> Owner:
        """The partition is revoked in good order and comes back while tasks of it run."""
        self.commit()
        owner = Owner(self.kafka, self.books, self.dice, self.written)
        owner.orphans = {record.offset: record for record, _ in self.running.values()}
        return owner

    def flush(self) -> None:
        """Everything that waits is dropped, retries among it that are in Kafka and not noted here yet. What
        runs goes on, and so does what has failed and is still to be put to wait.
        """
        self.kafka.log_start = len(self.kafka.log)
        for sequence, (key, _) in list(self.kafka.waiting.items()):
            self.kafka.tell(sequence, key, None)
        moving = [
            *self.moving,
            *((record, lane_entry) for record, lane_entry, due_ms, _ in self.ending if due_ms == 0),
        ]
        self.moving, self.ending = [], [ending for ending in self.ending if ending[2] != 0]
        for record, lane_entry in moving:
            self.lanes.finish(lane_entry)
            self.complete.add(record.offset)
        for record in self.lanes.drop_below(self.kafka.log_start):
            self.complete.add(record.offset)
        self.position = self.kafka.log_start
        going_on = [lane_entry for _, lane_entry in self.running.values()]
        going_on += [lane_entry for _, lane_entry, due_ms, told in self.ending if due_ms is None or not told]
        numbers = {lane_entry.sequence.offset for lane_entry in going_on}
        self.books.forget_all_but(lambda number: number in numbers)
        assert self.lanes.parked == 0
        assert not self.lanes.ready
        assert not self.lanes.leaving

    def do_something(self, now_ms: int, *, failing: float) -> None:
        step = self.dice.choice(
            [
                self.read, self.begin, self.leave, self.move, self.settle, self.look,
                lambda: self.end(now_ms, failing=failing), lambda: self.release(now_ms),
            ]
        )  # fmt: skip
        step()

    def commit(self) -> None:
        self.kafka.complete |= self.complete

    def read(self) -> bool:
        if self.position == len(self.kafka.log) or self.lanes.leaving:
            return False
        record = self.kafka.log[self.position]
        self.position += 1
        if record.offset in self.orphans:
            del self.orphans[record.offset]
            self.running[record.key] = (record, self.lanes.adopt(record.key, record.sequence))
        elif record.offset not in self.complete:
            self.lanes.take_in(
                record.key, record.sequence, record, size=1, requeued_due_ms=record.requeued_due_ms
            )
        return True

    def begin(self) -> bool:
        if not self.lanes.ready:
            return False
        lane_entry = self.lanes.ready.popleft()
        record = lane_entry.record
        assert record is not None
        assert record.key not in self.running, f"two of {record.key!r} at once"
        self.running[record.key] = (record, lane_entry)
        waiting = self.kafka.waiting.get(lane_entry.sequence)
        assert waiting is None or waiting[1] == record.requeued_due_ms, "an attempt before the last one"
        self.books.begin(record.key, lane_entry.sequence.offset)
        return True

    def leave(self) -> bool:
        if not self.lanes.leaving:
            return False
        record, lane_entry = self.lanes.leaving.popleft()
        if lane_entry is None:
            self.complete.add(record.offset)
        else:
            self.moving.append((record, lane_entry))
        return True

    def move(self) -> bool:
        """Kafka takes one of what moves, in any order."""
        if not self.moving:
            return False
        record, lane_entry = self.moving.pop(self.dice.randrange(len(self.moving)))
        self.ending.append((record, lane_entry, 0, False))
        return True

    def end(self, now_ms: int, *, failing: float) -> bool:
        """A task ends: its message is done, or waits for a retry."""
        if not self.running:
            return False
        record, lane_entry = self.running.pop(self.dice.choice(sorted(self.running)))
        if self.dice.random() < failing:
            self.ending.append((record, lane_entry, now_ms + self.dice.randrange(1, 20), False))
        else:
            self.books.done.setdefault(record.key, []).append(lane_entry.sequence.offset)
            self.ending.append((record, lane_entry, None, False))
        return True

    def settle(self) -> bool:
        if not self.ending:
            return False
        number = self.dice.randrange(len(self.ending))
        record, lane_entry, due_ms, told = self.ending.pop(number)
        if not told:
            if self.kafka.stalls and self.dice.random() < 0.2:
                self.kafka.stall()
            offset = self.kafka.tell(lane_entry.sequence, lane_entry.key, due_ms)
            self.written.note(LANES.topic, LANES.partition, offset)
            self.ending.append((record, lane_entry, due_ms, True))
        else:
            self.lanes.finish(lane_entry) if due_ms is None else self.lanes.wait(lane_entry, due_ms)
            self.complete.add(record.offset)
        return True

    def release(self, now_ms: int) -> bool:
        lane_entries = self.lanes.to_release(now_ms)
        if lane_entries:
            self.releaser.release(self, lane_entries, now_s=0.0)  # type: ignore[arg-type]
        return bool(lane_entries)

    def publish(self, records: Sequence[Sent]) -> dict[int, BaseException]:
        """Kafka takes records, or takes one without an acknowledgement. An end mark is in the lanes topic."""
        self.work_elsewhere()
        failures: dict[int, BaseException] = {}
        for number, sent in enumerate(records):
            if sent.topic == LANES.topic:
                assert sent.watch is not None
                sent.watch(LANES.partition, self.kafka.append(sent))
                continue
            found = read_requeue_headers(sent.headers)
            assert found is not None
            assert sent.key is not None
            self.kafka.send(sent.key, *found)
            if self.dice.random() < 0.1:
                failures[number] = TimeoutError()
        return failures

    def look(self) -> None:
        """Nobody waits for what was flushed."""
        there = set(self.kafka.waiting)
        waiting = {
            lane_entry for lane_entry in self.lane_entries if lane_entry.state is LaneEntryState.WAITING
        }
        self.releaser.check(0.0)
        if self.kafka.shown_end is not None:
            return  # it cannot be seen yet
        for lane_entry in waiting.intersection(self.lane_entries):
            assert lane_entry.state is not LaneEntryState.WAITING or lane_entry.sequence in there, (
                "it was flushed"
            )

    def work_elsewhere(self) -> None:
        """What other threads may do while the consumer's waits for Kafka."""
        for _ in range(self.dice.randrange(3)):
            self.settle()


@pytest.fixture(autouse=True, scope="module")
def small_lanes() -> object:
    """Small bounds, so that they are reached."""
    patch = pytest.MonkeyPatch()
    patch.setattr(lanes_module, "MAX_PARKED_OF_A_KEY", 3)
    patch.setattr(lanes_module, "MAX_PARKED", 5)
    patch.setattr(lanes_module, "MAX_RELEASED_OF_A_KEY", 2)
    patch.setattr(topic_reader, "STALE_TIMEOUT_S", -1.0)  # nobody else's clock goes on meanwhile
    yield
    patch.undo()


@settings(max_examples=examples(300))
# A retry is flushed after Kafka had it and before its worker had noted it.
@example(seed=6063, messages=[b"a", b"b", b"a"], failing=0.2, crashes=0, revocations=3, flushes=1, stalls=0)
@example(seed=1708, messages=[b"a"], failing=0.6, crashes=0, revocations=0, flushes=2, stalls=0)
# The same, and the worker reads of the flush before it notes that the retry waits.
@example(seed=5762, messages=[b"b"], failing=0.6, crashes=0, revocations=0, flushes=3, stalls=0)
# One is flushed while it runs and comes to wait for a retry while its worker reads of the flush.
@example(seed=1419, messages=[b"b"], failing=0.6, crashes=0, revocations=0, flushes=3, stalls=0)
# A retry is released from a lanes topic that shows the one before it.
@example(
    seed=1976276153,
    messages=[b"a", b"c", b"c", b"a", b"a", b"c", b"a", b"b", b"c", b"b", b"c", b"a", b"a", b"a", b"c", b"c",
              b"c", b"c", b"c", b"b", b"c", b"b", b"c"],
    failing=0.6, crashes=4, revocations=3, flushes=1, stalls=3,
)  # fmt: skip
# A successor reads a lanes topic that shows less than its predecessor was acknowledged.
@example(
    seed=2185722313,
    messages=[b"b", b"a", b"c", b"c", b"b", b"c", b"c", b"a", b"a", b"c", b"a", b"a", b"a", b"b", b"a", b"a",
              b"c", b"c"],
    failing=0.6, crashes=4, revocations=3, flushes=0, stalls=3,
)  # fmt: skip
# One that moved behind a retry is not shown yet when its turn comes.
@example(
    seed=4077601664,
    messages=[b"c", b"b", b"c", b"b", b"a", b"a", b"c", b"c", b"c", b"a", b"a", b"c"],
    failing=0.2, crashes=1, revocations=0, flushes=0, stalls=3,
)  # fmt: skip
@given(
    seed=st.integers(0, 2**32),
    messages=st.lists(st.sampled_from(KEYS), min_size=1, max_size=25),
    failing=st.sampled_from([0.0, 0.2, 0.6]),
    crashes=st.integers(0, 6),
    revocations=st.integers(0, 6),
    flushes=st.integers(0, 3),
    stalls=st.integers(0, 3),
)
def test_whatever_happens_a_key_runs_one_after_another_in_order_and_nothing_is_lost(
    seed: int,
    messages: list[bytes],
    failing: float,
    crashes: int,
    revocations: int,
    flushes: int,
    stalls: int,
) -> None:
    dice, kafka, books, now_ms = Random(seed), Kafka(stalls=stalls), Books(), 1
    to_send = deque(messages)
    owner = Owner(kafka, books, dice)
    for _ in range(MAX_STEPS):
        now_ms += dice.random() < 0.3
        choice = dice.random()
        if to_send and choice < 0.15:
            key = to_send.popleft()
            books.sent.setdefault(key, []).append(len(kafka.log))
            kafka.send(key)
        elif crashes and choice < 0.17:
            crashes -= 1
            # What was done and is not committed is done again, and all after it: the books forget it.
            forget_what_a_crash_repeats(books, kafka)
            owner = Owner(kafka, books, dice)
        elif choice < 0.20:
            owner.commit()
        elif revocations and choice < 0.22:
            revocations -= 1
            owner = owner.given_back()
            forget_what_a_crash_repeats(books, kafka)
        elif flushes and choice < 0.24:
            flushes -= 1
            owner.flush()
        elif kafka.shown_end is not None and choice < 0.27:
            kafka.shown_end = None
        else:
            owner.do_something(now_ms, failing=failing)
        assert owner.lanes.parked <= 5 + len(KEYS) * 2
        for lane in owner.lanes._lanes.values():
            if lane.is_blocked:
                assert lane.parked == 0, "acks are held while a retry waits"
        if not to_send and owner.is_idle and books.are_complete:
            break
    assert {key: books.done.get(key) for key in books.sent} == books.sent
    assert not kafka.waiting
    assert len(owner.lanes) == 0
    assert owner.lanes.parked == 0


def forget_what_a_crash_repeats(books: Books, kafka: Kafka) -> None:
    """A message runs again when its own record, or what waits of it, outlives the crash."""
    for key, done in books.done.items():
        books.done[key] = [
            number
            for number in done
            if (number in kafka.complete or number < kafka.log_start)
            and SequenceNumber(number, 0) not in kafka.waiting
        ]
    # What was flushed while it ran ends with its owner.
    there = {record.sequence for record in kafka.log[kafka.log_start :]} | kafka.waiting.keys()
    books.forget_all_but(lambda number: SequenceNumber(number, 0) in there)
