"""What is believed of a commit, against a log whose tail is lost in elections and which grows again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.kafka.leader_epochs import EpochEnd
from broker.offsets.ack_tracker import AckTracker
from broker.offsets.commit_metadata import CommitState, Suspicion
from broker.offsets.truncation import ALL_OF_IT, PartitionLog, believe, cut_of, forget_from, merge
from tests.examples import examples


@dataclass
class Replicated:
    """A partition: its leader's log, and how much of it the replica has that may be elected next."""

    records: list[tuple[int, int]] = field(default_factory=list)  # (epoch, identity)
    starts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])  # (epoch, start)
    epoch: int = 0
    replicated: int = 0

    def append(self, identity: int) -> None:
        self.records.append((self.epoch, identity))

    def elect(self, epochs: int) -> None:
        """The replica leads, with what it has."""
        del self.records[self.replicated :]
        self.epoch += epochs
        end = len(self.records)
        # As Kafka's LeaderEpochFileCache does it.
        self.starts = [entry for entry in self.starts if entry[1] < end] + [(self.epoch, end)]

    def end_of(self, epoch: int) -> EpochEnd:
        later = [start for known, start in self.starts if known > epoch]
        earlier = [known for known, _ in self.starts if known <= epoch]
        if epoch == self.starts[-1][0]:
            return EpochEnd(epoch, len(self.records), self.epoch)
        if not later:
            return EpochEnd(-1, -1, self.epoch)
        return EpochEnd(earlier[-1] if earlier else epoch, later[0], self.epoch)


class TruncationMachine(RuleBasedStateMachine):
    """One partition and its consumer, which commits, and dies whenever it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Replicated()
        self.identities = itertools.count()
        self.tracker = AckTracker(0)
        self.running: dict[int, int] = {}
        self.done: set[int] = set()
        self.commit = CommitState(0, -1)
        self.done_at_commit: set[int] = set()
        self.may_run = True  # until an election, the consumer is at one with the log

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        for _ in range(count):
            self.log.append(next(self.identities))

    @rule(share=st.floats(0, 1))
    def replicate(self, share: float) -> None:
        self.log.replicated += int(share * (len(self.log.records) - self.log.replicated))

    @rule(count=st.integers(1, 5))
    def run(self, count: int) -> None:
        for offset in range(self.tracker.highest + 1, len(self.log.records))[:count]:
            if self.may_run:
                epoch, identity = self.log.records[offset]
                self.tracker.deliver(offset, epoch)
                self.running[offset] = identity

    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        if self.running:
            offset = data.draw(st.sampled_from(sorted(self.running)))
            self.done.add(self.running.pop(offset))
            self.tracker.complete(offset)

    @rule()
    def commit_it(self) -> None:
        self.commit = CommitState(
            self.tracker.next_offset,
            self.tracker.highest,
            tuple(self.tracker.incomplete),
            leader_epoch=self.tracker.leader_epoch,
        )
        self.done_at_commit = set(self.done)

    @rule(epochs=st.integers(1, 3))
    def elect(self, epochs: int) -> None:
        self.log.elect(epochs)
        self.may_run = False

    @rule()
    def restart(self) -> None:
        state, _ = self._restored()
        self.tracker = AckTracker(
            state.next_offset,
            highest=state.highest,
            incomplete=state.incomplete,
            leader_epoch=state.leader_epoch,
        )
        for offset in state.incomplete:  # they are read again, and run
            self.tracker.deliver(offset)
        self.running = {offset: self.log.records[offset][1] for offset in state.incomplete}
        self.done = set(self.done_at_commit)
        self.may_run = True
        self.commit_it()

    @invariant()
    def what_is_believed_to_be_done_is_done_and_nothing_else_runs(self) -> None:
        state, _ = self._restored()
        for offset, (_, identity) in enumerate(self.log.records):
            believed = offset < state.next_offset or (
                offset <= state.highest and offset not in state.incomplete
            )
            assert believed == (identity in self.done_at_commit), f"offset {offset}"
        assert state.highest < len(self.log.records)

    def _restored(self) -> tuple[CommitState, int | None]:
        epoch = self.commit.leader_epoch
        answer = self.log.end_of(epoch) if epoch >= 0 else None
        return believe(self.commit, PartitionLog(0, len(self.log.records), self.log.epoch), answer)


TestElectionsAndRestartsLoseNothingAndRepeatNothing = TruncationMachine.TestCase
TestElectionsAndRestartsLoseNothingAndRepeatNothing.settings = settings(
    max_examples=examples(300), stateful_step_count=40
)


@st.composite
def states(draw: st.DrawFn) -> CommitState:
    next_offset = draw(st.integers(0, 20))
    incomplete = tuple(sorted({next_offset + d for d in draw(st.sets(st.integers(0, 15), max_size=8))}))
    highest = max(incomplete, default=next_offset - 1) + draw(st.integers(0, 5))
    suspected = draw(st.sets(st.sampled_from(incomplete))) if incomplete else set()
    return CommitState(
        incomplete[0] if incomplete else highest + 1,
        highest,
        incomplete,
        suspicions={offset: Suspicion(1, running=True) for offset in suspected},
        leader_epoch=draw(st.integers(-1, 5)),
    )


def complete_in(state: CommitState) -> set[int]:
    return set(range(state.highest + 1)) - set(state.incomplete)


@given(states(), states())
def test_a_merged_state_calls_complete_what_either_does(first: CommitState, second: CommitState) -> None:
    both = merge(first, second)

    assert complete_in(both) == complete_in(first) | complete_in(second)
    assert both.highest == max(first.highest, second.highest)
    assert set(both.suspicions) == set(first.suspicions) & set(both.incomplete)
    AckTracker(both.next_offset, highest=both.highest, incomplete=both.incomplete)


@given(states(), st.integers(0, 50))
def test_nothing_at_or_above_a_cut_is_remembered(state: CommitState, cut: int) -> None:
    left = forget_from(state, cut)

    assert complete_in(left) == {offset for offset in complete_in(state) if offset < cut}
    assert left.incomplete == tuple(offset for offset in state.incomplete if offset < cut)
    assert set(left.suspicions) == {offset for offset in state.suspicions if offset < cut}
    AckTracker(left.next_offset, highest=left.highest, incomplete=left.incomplete)


@pytest.mark.parametrize(
    ("answer", "end", "leader_epoch", "cut"),
    [
        (None, 400, 5, None),
        (None, 300, 5, 300),
        (None, 300, 0, ALL_OF_IT),
        (None, 300, -1, ALL_OF_IT),
    ],
    ids=[
        "an unknown epoch, and a longer log",
        "an unknown epoch, and a shorter log since an election",
        "an unknown epoch, and a shorter log without an election",
        "a server without epochs, and a shorter log",
    ],
)
def test_without_an_epoch_offsets_are_compared(
    answer: EpochEnd | None, end: int, leader_epoch: int, cut: int | None
) -> None:
    assert cut_of(349, -1, answer, end=end, leader_epoch=leader_epoch) == cut


@pytest.mark.parametrize(
    ("answer", "cut"),
    [
        (EpochEnd(3, 400, 5), None),
        (EpochEnd(3, 350, 3), None),
        (EpochEnd(3, 320, 5), 320),
        (EpochEnd(1, 300, 5), 300),
        (EpochEnd(-1, -1, 2), ALL_OF_IT),
        (EpochEnd(3, 20, 3), ALL_OF_IT),
        (EpochEnd(1, 400, 5), ALL_OF_IT),
    ],
    ids=[
        "it is there, and others follow",
        "it is there, and nothing follows",
        "its epoch has lost its end",
        "its epoch is gone",
        "a log that has never come to its epoch: a recreated topic",
        "a shorter log without an election: a recreated topic",
        "another record stands there, of an earlier epoch",
    ],
)
def test_an_answer_about_the_epoch_of_the_highest_record_says_where_its_log_was_cut(
    answer: EpochEnd, cut: int | None
) -> None:
    assert cut_of(349, 3, answer, end=400) == cut
