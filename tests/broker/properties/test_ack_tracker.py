"""The ack tracker against a plain model, over any interleaving of what can happen to a partition."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.offsets.ack_tracker import AckTracker
from broker.offsets.commit_metadata import CommitState, decode, encode
from tests.examples import examples


class TrackerMachine(RuleBasedStateMachine):
    """One partition and the owners it has one after the other.

    The model knows of every offset whether a record is there, and whether its task is done; a tracker knows
    only what it was told and what the last commit said.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tracker = AckTracker(0)
        self.position = 0  # the offset of the next record to be read
        self.gone: set[int] = set()  # offsets without a record: compacted, aborted, removed by retention
        self.running: set[int] = set()
        self.done: set[int] = set()
        self.done_at_commit: set[int] = set()
        self.commit = CommitState(0, -1)

    @rule(gap=st.integers(0, 3))
    def deliver(self, gap: int) -> None:
        for offset in range(self.position, self.position + gap):
            self._remove(offset)
        offset = self.position + gap
        while offset in self.gone:
            offset += 1
        self.position = offset + 1

        runs = self.tracker.deliver(offset)

        assert runs == (offset not in self.done), f"offset {offset} must run unless it is known to be done"
        if runs:
            self.running.add(offset)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(offset)
        self.done.add(offset)

        assert self.tracker.complete(offset), "the first completion counts"

    @rule(offset=st.integers(0, 60))
    def complete_what_does_not_run(self, offset: int) -> None:
        if offset not in self.running:
            assert not self.tracker.complete(offset), "it is complete already, or was never delivered"

    @rule(gap=st.integers(0, 3))
    def skip_to_the_position(self, gap: int) -> None:
        """Everything that was read is dispatched; what is not there below the position never will be."""
        for offset in range(self.position, self.position + gap):
            self._remove(offset)
        self.position += gap
        self.tracker.skip_to(self.position)

    @rule()
    def commit_it(self) -> None:
        self.commit = CommitState(
            self.tracker.next_offset, self.tracker.highest, tuple(self.tracker.incomplete)
        )
        self.done_at_commit = set(self.done)

    @rule()
    def crash_and_restore(self) -> None:
        state = decode(self.commit.next_offset, encode(self.commit))
        self.tracker = AckTracker(state.next_offset, highest=state.highest, incomplete=state.incomplete)
        self.position = state.next_offset
        self.running = set()
        self.done = set(self.done_at_commit)

    @invariant()
    def no_offset_that_is_not_done_is_skipped(self) -> None:
        next_offset, highest = self.tracker.next_offset, self.tracker.highest
        incomplete = set(self.tracker.incomplete)
        claimed = set(range(next_offset)) | set(range(next_offset, highest + 1)) - incomplete
        assert claimed <= self.done | self.gone, "what a commit would call complete is done, or not there"

    @invariant()
    def the_next_offset_is_the_first_that_is_not_done(self) -> None:
        incomplete = self.tracker.incomplete
        assert incomplete == sorted(set(incomplete))
        assert self.tracker.next_offset == (incomplete[0] if incomplete else self.tracker.highest + 1)
        assert self.running <= set(incomplete), "what runs is incomplete"
        assert len(self.tracker) == len(incomplete)

    def _remove(self, offset: int) -> None:
        if offset not in self.done and offset not in self.running:
            self.gone.add(offset)


TestAnyInterleavingNeverSkipsAnIncompleteOffset = TrackerMachine.TestCase
TestAnyInterleavingNeverSkipsAnIncompleteOffset.settings = settings(
    max_examples=examples(300), stateful_step_count=40
)
