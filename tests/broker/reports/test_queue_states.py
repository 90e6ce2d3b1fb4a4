"""broker.queues(): queues, read from logs and commits alone."""

from __future__ import annotations

from datetime import timedelta

import dramatiq
import pytest
from dramatiq.errors import QueueNotFound
from hypothesis import given
from hypothesis import strategies as st

from broker import InvalidQueueName, KafkaBroker, PartitionCounts, QueueState
from broker.admin.partition_counts import count_records
from broker.kafka.types import OffsetAndMetadata, TopicPartition
from broker.offsets.commit_metadata import CommitState, Suspicion, encode
from broker.testing import Kit, advance, drain
from broker.testing.kit import current
from broker.testing.memory.faults import Request


@pytest.fixture
def kit(kafka_broker: KafkaBroker) -> Kit:
    return current()


@pytest.fixture
def application_broker(monkeypatch: pytest.MonkeyPatch) -> KafkaBroker:
    broker = KafkaBroker(partitions=1)
    monkeypatch.setattr(dramatiq.broker, "global_broker", broker)
    return broker


def state_of(kit: Kit, name: str = "default") -> QueueState:
    (state,) = kit.broker.queues(name)
    return state


@st.composite
def partitions(draw: st.DrawFn) -> tuple[CommitState | None, int, int]:
    end = draw(st.integers(0, 50))
    beginning = draw(st.integers(0, end))
    if draw(st.booleans()):
        return None, beginning, end
    highest = draw(st.integers(-1, end - 1))
    incomplete = tuple(sorted(draw(st.sets(st.integers(0, highest), max_size=10)))) if highest >= 0 else ()
    next_offset = incomplete[0] if incomplete else highest + 1
    return CommitState(next_offset, highest, incomplete), beginning, end


@given(partitions())
def test_every_record_is_counted_once(partition: tuple[CommitState | None, int, int]) -> None:
    state, beginning, end = partition
    counts = count_records(state, beginning, end)
    alive = range(beginning, end)
    incomplete = set() if state is None else set(state.incomplete)
    delivered_end = 0 if state is None else state.highest + 1
    assert counts.written == end
    assert counts.incomplete == sum(offset in incomplete for offset in alive)
    assert counts.waiting == sum(offset >= delivered_end for offset in alive)
    if state is not None:
        assert counts.completed == delivered_end - len(incomplete)
        assert counts.removed == counts.difference
        gone = range(beginning)
        assert counts.removed == sum(o in incomplete or o >= delivered_end for o in gone)


@given(partitions(), st.integers(0, 50), st.integers(0, 50))
def test_the_records_of_a_flush_are_purged_and_not_lost(
    partition: tuple[CommitState | None, int, int], start: int, stop: int
) -> None:
    state, beginning, end = partition
    flushed = range(start, min(stop, end))
    before, counts = count_records(state, beginning, end), count_records(state, beginning, end, flushed)
    incomplete = set() if state is None else set(state.incomplete)
    delivered_end = 0 if state is None else state.highest + 1
    gone = [o for o in range(beginning) if o in incomplete or o >= delivered_end]
    assert counts.purged == sum(o in flushed for o in gone)
    assert counts.difference == before.difference - counts.purged == len(gone) - counts.purged
    assert (counts.left, counts.completed, counts.removed) == (before.left, before.completed, before.removed)


def test_a_flush_is_no_loss_and_says_who_when_and_why(kit: Kit) -> None:
    # Given a queue that has lost records to retention
    kit.broker.declare_queue("mail")
    send = lambda: kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))  # noqa: E731
    for _ in range(3):
        send()
    advance(days=8)
    send()
    assert state_of(kit, "mail").counts.difference == 3

    # When it is flushed, twice
    kit.broker.flush("mail", reason="a test", by="ada")
    send()
    kit.broker.flush("mail", reason="again", by="bob")

    # Then the flushed records are no loss, and the others still are
    state = state_of(kit, "mail")
    assert (state.counts.purged, state.counts.difference, state.waiting) == (2, 3, 0)
    assert state.purge is not None
    assert (state.purge.by, state.purge.reason) == ("bob", "again")
    assert state.purge.at_ms <= kit.clock.wall_ms()

    # And a topic of the same name that is recreated has been flushed by nobody
    kit.cluster.delete_topic("mail")
    send()
    advance(days=8)
    state = state_of(kit, "mail")
    assert (state.counts.purged, state.counts.difference, state.purge) == (0, 1, None)


def test_a_reason_that_kafka_would_not_keep_is_shortened(kit: Kit) -> None:
    kit.broker.declare_queue("mail")
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    kit.broker.flush("mail", reason="\N{PILE OF POO}" * 5_000, by="\N{PILE OF POO}" * 5_000)
    commits = kit.cluster.group("dramatiq.mail.flushed").offsets.values()
    assert 1_000 < max(len(commit.metadata) for commit in commits) < 4_096
    purge = state_of(kit, "mail").purge
    assert purge is not None
    assert set(purge.reason) == set(purge.by) == {"\N{PILE OF POO}"}


def test_the_states_of_the_declared_queues_are_read_and_of_any_queue_by_name(kit: Kit) -> None:
    for name in ("b", "a"):
        kit.broker.declare_queue(name)
    assert [state.name for state in kit.broker.queues()] == ["a", "b"]
    with pytest.raises(QueueNotFound, match=r"No queue 'other' is known; .*: a, b"):
        kit.broker.queues("other")
    kit.cluster.create_topic("other")
    (other,) = kit.broker.queues("other")
    assert (other.topic, other.group, other.waiting) == ("other", "dramatiq.other", 0)
    with pytest.raises(InvalidQueueName):
        kit.broker.queues("dramatiq_workers")
    assert set(kit.broker.queues) == {"a", "b"}


def test_the_states_of_many_queues_take_no_more_requests_than_of_one(kit: Kit) -> None:
    # Given queues with waiting, delayed and dead messages, whose dead letters were counted before
    @dramatiq.actor(max_retries=0)
    def task() -> None:
        raise RuntimeError

    names = [f"queue-{number}" for number in range(12)]
    for name in names:
        kit.broker.declare_queue(name)
        kit.broker.enqueue(task.message().copy(queue_name=name))
    drain(raise_errors=False)
    for name in names:
        kit.broker.enqueue(task.message().copy(queue_name=name))
        kit.broker.enqueue(task.message().copy(queue_name=name), delay=3_600_000)
    assert [(s.dead, s.waiting, s.delayed) for s in kit.broker.queues(*names)] == [(1, 1, 1)] * len(names)

    def requests_of(*wanted: str) -> dict[Request, int]:
        before = kit.cluster.requests.copy()
        assert [state.name for state in kit.broker.queues(*wanted)] == [*wanted]
        found = {kind: count - before[kind] for kind, count in kit.cluster.requests.items()}
        del found[Request.FETCH]  # one returns a single record in memory, and as many as fit from Kafka
        return found

    # When the states of one queue are read, and those of all
    one = requests_of(names[0])

    # Then all take as many requests as the one
    assert requests_of(*names) == one


def test_waiting_delayed_and_dead_messages_are_counted_with_their_ages(kit: Kit) -> None:
    @dramatiq.actor(max_retries=0)
    def task(what: str) -> None:
        raise RuntimeError(what)

    task.send("die")
    drain(raise_errors=False)
    task.send("wait")
    task.send_with_options(args=("later",), delay=3_600_000)
    advance(seconds=90)
    task.send("wait, too")
    state = state_of(kit)
    assert (state.waiting, state.incomplete, state.delayed, state.dead) == (2, 0, 1, 1)
    assert (state.lag, state.lag_s, state.oldest_incomplete_s) == (2, 90.0, None)
    assert state.counts == PartitionCounts(written=3, completed=1, waiting=2)
    assert state.counts.difference == 0
    assert state.is_paused is False


def test_a_paused_queue_says_so(kit: Kit) -> None:
    for name in ("default", "mail"):
        kit.broker.declare_queue(name)
    kit.broker.pause("mail", reason="a test")
    assert [(state.name, state.is_paused) for state in kit.broker.queues("default", "mail")] == [
        ("default", False),
        ("mail", True),
    ]


def test_a_redriven_or_discarded_dead_letter_is_not_counted(kit: Kit) -> None:
    @dramatiq.actor(max_retries=0)
    def task() -> None:
        raise RuntimeError("asked to")

    sent = [task.send() for _ in range(3)]
    drain(raise_errors=False)
    assert state_of(kit).dead == 3
    kit.broker.discard("default", dry_run=False, reason="a test", message_id=sent[0].message_id)
    assert state_of(kit).dead == 2


def test_incomplete_offsets_holes_suspects_and_their_age_come_from_the_commit(kit: Kit) -> None:
    @dramatiq.actor
    def task() -> None: ...

    for seconds in (0, 10, 10, 10, 10):
        advance(seconds=seconds)
        task.send()
    state = CommitState(1, 3, (1, 3), suspicions={3: Suspicion(2, running=True)})
    group = kit.cluster.group("dramatiq.default")
    group.offsets[TopicPartition("default", 0)] = OffsetAndMetadata(1, encode(state))
    advance(seconds=5)
    (partition,) = state_of(kit).partitions
    assert (partition.next_offset, partition.highest, partition.holes) == (1, 3, 1)
    assert partition.counts == PartitionCounts(written=5, completed=2, incomplete=2, waiting=1)
    assert (partition.oldest_incomplete_s, partition.lag_s, partition.lag) == (35.0, 5.0, 3)
    assert (partition.was_handed_over, partition.is_on_probation) == (False, True)
    assert [(s.offset, s.crashes, s.is_running) for s in partition.suspects] == [(3, 2, True)]


def test_records_that_retention_deleted_before_they_ran_are_the_difference_of_the_ledger(kit: Kit) -> None:
    @dramatiq.actor
    def task() -> None: ...

    task.send()
    drain()
    task.send()
    task.send()
    kit.clock.advance(timedelta(days=8))
    kit.cluster.clean_up()
    task.send()
    counts = state_of(kit).counts
    assert (counts.written, counts.completed, counts.waiting) == (4, 1, 1)
    assert counts.difference == counts.removed == 2
