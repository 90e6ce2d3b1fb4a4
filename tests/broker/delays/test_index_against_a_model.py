"""The index and the steps of forwarding, against a plain model, with a crash at any point.

The log is a list, the forwarder's steps and its index file are the real ones. A crash takes a copy of the
index's files between two SQL statements, or around a publish, and goes on with the copy: what a killed
process leaves.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kafka.errors import KafkaTimeoutError
from kafka.structs import TopicPartition

from broker.delays.forwarding import Forwarding
from broker.delays.index import DelayIndex
from broker.delays.owned_partition import OwnedPartition
from broker.delays.record_format import (
    CancelDecision,
    CancelRequest,
    Delay,
    Done,
    Entry,
    Flush,
    Outcome,
    cancel_request,
    due_now,
    flush_command,
    read,
    tombstone,
)
from broker.kafka.topics import Topics
from broker.produce.publisher import Publisher
from broker.produce.record import Record
from tests.examples import examples

TOPIC = "delayed"
QUEUES = ["a", "b"]
MESSAGES = ["m", "m:1", "n"]


class Log:
    """One partition: records by offset, and a publisher that can lose answers or die."""

    def __init__(self) -> None:
        self.records: list[Record | None] = []
        self.forwarded: Counter[str] = Counter()
        self.early: list[str] = []
        #: The delays that were asked to run now.
        self.made_due: set[str] = set()
        self.now_ms = 0
        self.dead = False
        self.dies_after: int | None = None
        #: Which of the records published next fail, by number, and whether they arrive all the same.
        self.failing: dict[int, bool] = {}

    def publish(self, records: Sequence[Record]) -> dict[int, BaseException]:
        for number, record in enumerate(records):
            if self.dead:
                break
            if self.failing.get(number, True):
                self._take(record)
            if self.dies_after is not None:
                self.dies_after -= 1
                self.dead = self.dies_after < 0
        return {n: KafkaTimeoutError("no answer") for n in self.failing if n < len(records)}

    def _take(self, record: Record) -> None:
        if record.topic == TOPIC:
            self.records.append(record)
            return
        delay_id = _delay_of(record)
        self.forwarded[delay_id] += 1
        if delay_id not in self.made_due and self.now_ms < int(
            (record.value or b"").decode().rsplit("@", 1)[1]
        ):
            self.early.append(delay_id)

    def entries(self, start: int = 0) -> list[tuple[int, Entry]]:
        return [
            (offset, read(record.key, record.value, record.headers))
            for offset, record in enumerate(self.records)
            if record is not None and offset >= start
        ]

    def compact(self) -> None:
        last = {record.key: offset for offset, record in enumerate(self.records) if record is not None}
        for offset, record in enumerate(self.records):
            if record is not None and last[record.key] != offset:
                self.records[offset] = None


def _delay_of(record: Record) -> str:
    return (record.value or b"").decode().rsplit("@", 1)[0]


def waiting(entries: list[tuple[int, Entry]]) -> set[str]:
    """The plain model: what the log says is waiting."""
    delays: dict[str, Delay] = {}
    for _, entry in entries:
        match entry:
            case Delay():
                delays[entry.id] = entry
            case Done(delay_id):
                delays.pop(delay_id, None)
            case CancelRequest():
                delays = {i: d for i, d in delays.items() if d.message_id != entry.message_id}
            case Flush(queue):
                delays = {i: d for i, d in delays.items() if d.queue != queue}
    return set(delays)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="delay-index-"))
        self.files = 0
        self.log = Log()
        self.numbers = 0
        self.sent: dict[str, tuple[int, Delay]] = {}
        self.excused: Counter[str] = Counter()
        self.asked_at: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.flushed: set[str] = set()
        self.meant_to_be_flushed: set[str] = set()
        self.erased: set[str] = set()
        #: What this forwarder knows may be in its queue, and what any knew.
        self.tried: set[str] = set()
        self.ever_tried: set[str] = set()
        self.forwarding = Forwarding(
            cast(Topics, _TopicNames()), cast(Publisher, self.log), clock=lambda: self.log.now_ms / 1000
        )

    @initialize()
    def open(self) -> None:
        self._use(DelayIndex(self._new_path()))
        self.index.reset("p", 0)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self._drain()
            self._check_the_end()
            self.index.close()
        shutil.rmtree(self.home)

    # What happens to the log

    @rule(
        message=st.sampled_from(MESSAGES),
        queue=st.sampled_from(QUEUES),
        delay_ms=st.sampled_from([0, 0, 5, 20]),
    )
    def delay(self, message: str, queue: str, delay_ms: int) -> None:
        self.numbers += 1
        due_ms = self.log.now_ms + delay_ms
        delay_id = f"{message}:{self.numbers:016x}"
        value = f"{delay_id}@{due_ms}".encode()
        headers = [("delay-due-ms", b"%d" % due_ms), ("delay-queue", queue.encode())]
        self.log.records.append(Record(TOPIC, value, key=f"delay:{delay_id}".encode(), headers=headers))
        self.sent[delay_id] = len(self.log.records) - 1, Delay(delay_id, queue, due_ms, value)

    @rule(message=st.sampled_from(MESSAGES))
    def ask_to_cancel(self, message: str) -> None:
        request, record = cancel_request(TOPIC, message, partition=0)
        self.asked_at[request.id] = len(self.log.records)
        self.log.records.append(record)

    @rule(message=st.sampled_from(MESSAGES))
    def ask_to_run_now(self, message: str) -> None:
        ids = [delay.id for _, delay in self.sent.values() if delay.message_id == message]
        self.log.made_due.update(ids)
        self.log.records.append(due_now(TOPIC, ids, partition=0))

    @rule(queue=st.sampled_from(QUEUES))
    def flush(self, queue: str) -> None:
        self.log.records.append(flush_command(TOPIC, queue, partition=0))

    @rule(number=st.integers(0, 30))
    def erase_by_hand(self, number: int) -> None:
        if number in range(len(self.sent)):
            delay_id = list(self.sent)[number]
            self.log.records.append(tombstone(TOPIC, delay_id, Outcome.FLUSHED, partition=0))
            self.erased.add(delay_id)

    @rule()
    def compact(self) -> None:
        self.log.compact()

    @rule(ms=st.sampled_from([1, 5, 20]))
    def wait(self, ms: int) -> None:
        self.log.now_ms += ms

    # What the forwarder does

    @rule(count=st.sampled_from([1, 1000, 1000]))
    def read(self, count: int) -> None:
        found = self.log.entries(self.index.next_offset)[:count]
        next_offset = found[-1][0] + 1 if found else len(self.log.records)
        self.index.apply([entry for _, entry in found], next_offset, now_ms=self.log.now_ms)
        for offset, entry in found:
            self._note_dropped(offset, entry)

    @precondition(lambda self: self.owned.ready or self.index.next_offset >= self.owned.end)
    @rule()
    def step(self) -> None:
        self.owned.ready = True
        self.forwarding.step([self.owned], self.log.now_ms)
        self._note_tried()

    @precondition(lambda self: self.owned.ready or self.index.next_offset >= self.owned.end)
    @rule(failing=st.dictionaries(st.integers(0, 3), st.booleans(), min_size=1))
    def step_without_all_answers(self, failing: dict[int, bool]) -> None:
        """A producer that gives up may have delivered: what is sent again is in the queue a second time."""
        before = Counter(self.log.forwarded)
        self.log.failing = failing
        self.step()
        self.log.failing = {}
        for row in self.index.due(self.log.now_ms + 1_000_000, limit=1000, limit_bytes=10**9):
            if self.log.forwarded[row.delay.id] > before[row.delay.id]:
                self.excused[row.delay.id] += 1

    @precondition(lambda self: self.owned.ready or self.index.next_offset >= self.owned.end)
    @rule(publishes=st.integers(0, 5))
    def step_and_crash_around_a_publish(self, publishes: int) -> None:
        self.log.dies_after = publishes
        self._crash_in(self.step, statement=None)

    @precondition(lambda self: self.owned.ready or self.index.next_offset >= self.owned.end)
    @rule(statement=st.integers(0, 40))
    def step_and_crash_in_between(self, statement: int) -> None:
        self._crash_in(self.step, statement=statement)

    @rule(count=st.sampled_from([1, 3, 1000]), statement=st.integers(0, 30))
    def read_and_crash(self, count: int, statement: int) -> None:
        self._crash_in(lambda: self.read(count), statement=statement)

    @rule()
    def lose_the_index(self) -> None:
        """The file is deleted, or the partition goes to another machine."""
        self._note_crash()
        self.index.close()
        self._use(DelayIndex(self._new_path()))
        self.index.reset("p", self.log.now_ms)

    # What holds

    @invariant()
    def nothing_is_early(self) -> None:
        assert not self.log.early

    @invariant()
    def the_index_holds_what_the_log_says_is_waiting(self) -> None:
        entries, next_offset = self.log.entries(), self.index.next_offset
        expected = waiting([(offset, entry) for offset, entry in entries if offset < next_offset])
        here = {delay.id for queue in QUEUES for delay in self.index.waiting(queue, limit=1_000)}
        # What was tried is not cancelled, and of what is over further on the log may have only its tombstone.
        over = {entry.id for offset, entry in entries if isinstance(entry, Done) and offset >= next_offset}
        assert here - expected <= self.tried | over
        # What was dropped need not have its tombstone yet.
        assert expected - here <= set(self.log.forwarded) | self.cancelled | self.meant_to_be_flushed

    @invariant()
    def a_second_time_takes_a_crash_between_forward_and_tombstone(self) -> None:
        for delay_id, times in self.log.forwarded.items():
            assert times <= 1 + self.excused[delay_id], delay_id

    @invariant()
    def what_was_cancelled_or_flushed_in_time_does_not_run(self) -> None:
        assert not [i for i in self.cancelled | self.flushed if self.log.forwarded[i]]

    @invariant()
    def the_outcome_of_a_cancel_is_true(self) -> None:
        for offset, entry in self.log.entries():
            if isinstance(entry, CancelDecision):
                self._check_outcome(entry, offset)

    def _check_outcome(self, decision: CancelDecision, decided_at: int) -> None:
        """It is true when it is told, which may be after a delay that is younger than the request."""
        excused = set(self.excused)  # forwarded by one who died before he noted it
        match decision.outcome:
            case Outcome.CANCELLED:
                assert self._delays(decision.message_id, decided_at) & (self.cancelled | excused)
            case Outcome.TOO_LATE:
                assert self._delays(decision.message_id, decided_at) & self.ever_tried
            case Outcome.UNKNOWN:
                before = self._delays(decision.message_id, self.asked_at[decision.id])
                assert before <= self.erased | self.meant_to_be_flushed | excused

    def _delays(self, message_id: str, offset: int) -> set[str]:
        return {i for i, (at, delay) in self.sent.items() if delay.message_id == message_id and at < offset}

    # The workings

    def _note_dropped(self, offset: int, entry: Entry) -> None:
        """What was not even tried when it was read that it is to be dropped must not run from then on."""
        for delay_id, (sent_at, delay) in self.sent.items():
            if sent_at > offset:
                continue
            if isinstance(entry, Flush) and entry.queue == delay.queue:
                self.meant_to_be_flushed.add(delay_id)
                self.flushed |= {delay_id} - self.tried
            if isinstance(entry, CancelRequest) and entry.message_id == delay.message_id:
                self.cancelled |= {delay_id} - self.tried

    def _note_tried(self) -> None:
        noted = self.index._db.execute("SELECT id FROM delays WHERE attempts > 0")
        self.tried |= set(self.log.forwarded) | {delay_id for (delay_id,) in noted}
        self.ever_tried |= self.tried

    def _use(self, index: DelayIndex) -> None:
        self.index = index
        self.tried = set()
        self._note_tried()
        self.owned = OwnedPartition(TopicPartition(TOPIC, 0), index, end=len(self.log.records))

    def _new_path(self) -> Path:
        self.files += 1
        return self.home / f"{self.files}.sqlite3"

    def _crash_in(self, action: Any, *, statement: int | None) -> None:
        path, left = self._new_path(), statement

        def image(_: str = "") -> None:
            for suffix in ("", "-wal"):
                source = Path(f"{self.index.path}{suffix}")
                if source.exists():
                    shutil.copyfile(source, f"{path}{suffix}")

        def count(_: str) -> None:
            nonlocal left
            if left is not None and not self.log.dead:
                left -= 1
                if left < 0:
                    self.log.dead = True
            if self.log.dead and not path.exists():
                image()

        self.index._db.set_trace_callback(count)
        action()
        self.index._db.set_trace_callback(None)
        if not path.exists():
            image()
        self._note_crash()
        self.index.close()
        self.log.dead, self.log.dies_after = False, None
        self._use(DelayIndex(path))

    def _note_crash(self) -> None:
        done = {entry.id for _, entry in self.log.entries() if isinstance(entry, Done)}
        for delay_id in self.log.forwarded:
            if delay_id not in done:
                self.excused[delay_id] += 1

    def _drain(self) -> None:
        self.log.now_ms += 10_000
        for _ in range(40):
            while self.index.next_offset < len(self.log.records):
                self.read(1000)
            self.step()
            none_waits = self.index.seconds_until_due(self.log.now_ms, self.log.now_ms / 1000) is None
            if self.index.next_offset == len(self.log.records) and none_waits:
                return
            self.log.now_ms += 10_000
        pytest.fail("the forwarder does not come to an end")

    def _check_the_end(self) -> None:
        entries = self.log.entries()
        assert waiting(entries) == set()
        erased = {
            entry.id
            for _, entry in entries
            if isinstance(entry, Done) and entry.outcome is not Outcome.FORWARDED
        }
        missing = [delay_id for delay_id in self.sent if not self.log.forwarded[delay_id]]
        assert set(missing) <= erased, "a message is lost"
        assert sum(self.index.count(queue) for queue in QUEUES) == 0
        with_nothing = DelayIndex()
        with_nothing.reset("p", 0)
        with_nothing.apply([entry for _, entry in entries], len(self.log.records), now_ms=self.log.now_ms)
        assert [with_nothing.count(queue) for queue in QUEUES] == [0, 0]
        for message in MESSAGES:
            assert with_nothing.outcome(message) == self.index.outcome(message)
        with_nothing.close()


class _TopicNames:
    def ensure(self, topics: list[str], *, right: str = "") -> None:
        """They are all there."""

    def queue(self, name: str) -> str:
        return f"queue-{name}"


TestIndexAgainstAModel = Machine.TestCase
TestIndexAgainstAModel.settings = settings(
    max_examples=examples(60), stateful_step_count=50, suppress_health_check=list(HealthCheck)
)
