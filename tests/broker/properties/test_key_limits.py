"""However messages of a key arrive, end and return, they run within its limits, in order, and all of them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.partition_keys.lane import LaneEntry, SequenceNumber
from broker.partition_keys.lanes import MAX_PARKED_OF_A_KEY, Lanes
from broker.partition_keys.limits import EARLY_MS, Limit
from tests.examples import examples


@dataclass
class Record:
    offset: int


@dataclass
class Model:
    """A plain account of what runs.

    Attributes:
      limit: That of every message.
      waiting: What the lanes topic has, by sequence number, with its key.
      running: The entries that were dispatched, by key.
      starts: When runs began, by key.
      held: Dispatched entries that do not begin yet, as during a pause; None while entries begin at once.
      holds: The number of such pauses.
    """

    limit: Limit
    lanes: Lanes[Record] = field(default_factory=Lanes)
    now_ms: int = 1_000_000
    offset: int = 0
    sent: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    began: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    done: set[int] = field(default_factory=set)
    waiting: dict[SequenceNumber, LaneEntry[Record]] = field(default_factory=dict)
    running: dict[bytes, list[LaneEntry[Record]]] = field(default_factory=lambda: defaultdict(list))
    starts: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    held: list[LaneEntry[Record]] | None = None
    holds: int = 0

    def send(self, key: bytes, sequence: SequenceNumber | None = None) -> None:
        is_new = sequence is None
        sequence = sequence or SequenceNumber(self.offset, 0)
        if is_new:
            self.sent[key].append(sequence.offset)
        self.lanes.take_in(
            key, sequence, Record(self.offset), requeued_due_ms=None if is_new else 0, limit=self.limit
        )
        self.offset += 1
        self.go_on()

    def go_on(self) -> None:
        """Do what the dispatcher and the releaser do."""
        while self.lanes.leaving:
            _, entry = self.lanes.leaving.popleft()
            if entry is not None:
                self.waiting[entry.sequence] = entry
                self.lanes.wait(entry, 0)
        while self.lanes.ready:
            entry = self.lanes.ready.popleft()
            if self.held is None:
                self.begin(entry)
            else:
                self.held.append(entry)
        entries = self.lanes.to_release(self.now_ms)
        for entry in entries:
            self.lanes.release(entry)
            del self.waiting[entry.sequence]
        for entry in entries:
            self.send(entry.key, entry.sequence)

    def begin(self, entry: LaneEntry[Record]) -> None:
        """Begin a dispatched entry, or park it again when another one of its key has just begun."""
        if self.limit.interval_ms and not self.lanes.may_begin(entry, self.now_ms):
            self.lanes.park_again(entry, Record(self.offset), 0)
            return
        self.running[entry.key].append(entry)
        self.began[entry.key].append(entry.sequence.offset)
        self.starts[entry.key].append(self.now_ms)
        if self.limit.interval_ms:
            self.lanes.note_begin(entry, self.now_ms)
        assert len(self.running[entry.key]) <= self.limit.concurrency

    def hold(self) -> None:
        """Hold dispatched entries back, or let all of them begin at once."""
        held, self.held = self.held, [] if self.held is None else None
        self.holds += held is None
        for entry in held or ():
            self.begin(entry)
        self.go_on()

    def end(self, key: bytes, number: int) -> None:
        if running := self.running[key]:
            entry = running.pop(number % len(running))
            self.done.add(entry.sequence.offset)
            self.lanes.finish(entry)
            self.go_on()

    def let_time_pass(self, by_ms: int) -> None:
        self.now_ms += by_ms
        self.lanes.tick(self.now_ms)
        self.go_on()

    def check(self) -> None:
        interval_ms = self.limit.interval_ms
        slack_ms: float = 2 * EARLY_MS
        if interval_ms < EARLY_MS:  # those that were held back begin at once
            slack_ms += self.holds * self.limit.concurrency * interval_ms
        for key, starts in self.starts.items():
            for number, start in enumerate(starts):
                for later in range(number + 1, len(starts)):
                    # A run may be early, and the one before it may have begun late and be noted as early.
                    least = (later - number) * interval_ms - slack_ms
                    assert starts[later] - start >= least, f"{key!r} began too soon: {starts}"
            assert self.began[key] == sorted(self.began[key]), f"{key!r} began out of order"


@settings(max_examples=examples(300), deadline=None)
@given(
    concurrency=st.sampled_from([1, 2, 3, 20]),
    interval_ms=st.sampled_from([0.0, 0.7, 60.0, 600.0, 60_000.0]),
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("send"), st.sampled_from([b"a", b"b"]), st.integers(1, MAX_PARKED_OF_A_KEY + 20)
            ),
            st.tuples(st.just("end"), st.sampled_from([b"a", b"b"]), st.integers(0, 20)),
            st.tuples(st.just("pass"), st.just(b""), st.sampled_from([1, 20, 500, 100_000])),
            st.tuples(st.just("hold"), st.just(b""), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_a_key_stays_within_its_limits_and_runs_all_its_messages_in_order(
    concurrency: int, interval_ms: float, steps: list[tuple[str, bytes, int]]
) -> None:
    model = Model(Limit(concurrency, interval_ms))
    model.lanes.restore((), now_ms=model.now_ms)
    for action, key, number in steps:
        if action == "send":
            for _ in range(number):
                model.send(key)
        elif action == "end":
            model.end(key, number)
        elif action == "hold":
            model.hold()
        else:
            model.let_time_pass(number)
    if model.held is not None:
        model.hold()
    for _ in range(model.offset * 3 + 10):
        for key in (b"a", b"b"):
            model.end(key, 0)
        model.let_time_pass(int(interval_ms) + 1)
    model.check()
    for sent in model.sent.values():
        assert set(sent) <= model.done
    assert not model.lanes
