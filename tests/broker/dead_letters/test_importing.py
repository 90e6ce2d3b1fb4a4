"""Copies of dead letters come into a queue's dead-letter topic once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dramatiq
import pytest

from broker import DeadLetter, KafkaBroker, NotAuthorized
from broker.dead_letters import importing
from broker.kafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError
from broker.testing import Kit, MemoryCluster, Request
from broker.testing.memory.faults import ProcessKilled

QUEUE = "mail"
REASON = "moved from the old cluster"


@pytest.fixture
def dead() -> list[DeadLetter]:
    """Three dead letters of another cluster, of one message each."""
    with Kit(KafkaBroker(partitions=2)).use() as kit:

        @dramatiq.actor(broker=kit.broker, queue_name=QUEUE, max_retries=0)
        def task(number: int) -> None:
            raise ValueError(f"number {number}")

        for number in range(3):
            task.send(number)
        kit.drain(raise_errors=False)
        return list(kit.broker.dead_letters(QUEUE))


@pytest.fixture
def cluster() -> Iterator[MemoryCluster]:
    with Kit(KafkaBroker(partitions=2)).use() as kit:
        kit.broker.declare_queue(QUEUE)
        yield kit.cluster


@pytest.fixture
def operator(cluster: MemoryCluster) -> Callable[[], Kit]:
    """Processes of an operator on the cluster, which know no actor."""
    return lambda: Kit(KafkaBroker(partitions=2), cluster)


def contents(dead_letters: list[DeadLetter]) -> list[tuple[object, ...]]:
    return sorted((d.timestamp, d.error_type, d.error, d.traceback, d.raw) for d in dead_letters)


@pytest.mark.parametrize("before", [True, False], ids=["before a write", "after a write"])
@pytest.mark.parametrize("writes", range(3))
def test_an_import_that_is_killed_and_repeated_writes_each_dead_letter_once(
    dead: list[DeadLetter],
    cluster: MemoryCluster,
    operator: Callable[[], Kit],
    monkeypatch: pytest.MonkeyPatch,
    writes: int,
    before: bool,
) -> None:
    monkeypatch.setattr(importing, "MAX_BATCH", 1)
    with operator().use() as first:
        first.broker.import_dead_letters(QUEUE, [])  # the topics exist
        cluster.kill_at(Request.PRODUCE, before=before, topic=f"{QUEUE}_dlq", skip=writes)
        with pytest.raises(ProcessKilled):
            first.broker.import_dead_letters(QUEUE, dead, dry_run=False, reason=REASON)
    with operator().use() as second:
        written = writes if before else writes + 1
        again = second.broker.import_dead_letters(QUEUE, dead, dry_run=False, reason=REASON)
        assert (again.written, again.skipped[importing.PRESENT]) == (3 - written, written)
        assert contents(list(second.broker.dead_letters(QUEUE))) == contents(dead)


def test_an_import_reports_its_progress_and_who_did_it(
    dead: list[DeadLetter], operator: Callable[[], Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MAX_BATCH", 2)
    seen: list[int] = []
    with operator().use() as kit:
        result = kit.broker.import_dead_letters(
            QUEUE,
            iter(dead),
            dry_run=False,
            reason=REASON,
            by="ops",
            on_progress=lambda so_far: seen.append(so_far.written),
        )
        notes = [found.import_note for found in kit.broker.dead_letters(QUEUE)]
    assert (result.given, result.to_write, seen) == (3, 3, [2, 3])
    assert {note and (note.by, note.reason, note.operation) for note in notes} == {
        ("ops", REASON, result.operation)
    }


def test_dead_letters_that_the_topic_refuses_for_their_size_are_counted_and_left_out(
    dead: list[DeadLetter], cluster: MemoryCluster, operator: Callable[[], Kit]
) -> None:
    with operator().use() as kit:
        kit.broker.import_dead_letters(QUEUE, [])
        cluster.refuse(
            Request.PRODUCE,
            lambda: MessageSizeTooLargeError("too large"),
            topic=f"{QUEUE}_dlq",
            times=None,
        )
        result = kit.broker.import_dead_letters(QUEUE, dead, dry_run=False, reason=REASON)
        assert (result.written, result.to_write, result.skipped) == (0, 0, {importing.TOO_LARGE: 3})


def test_a_missing_right_and_a_missing_reason_are_errors(
    dead: list[DeadLetter], cluster: MemoryCluster, operator: Callable[[], Kit]
) -> None:
    with operator().use() as kit:
        with pytest.raises(ValueError, match="an import needs reason="):
            kit.broker.import_dead_letters(QUEUE, dead, dry_run=False)
        cluster.refuse(
            Request.PRODUCE,
            lambda: TopicAuthorizationFailedError({f"{QUEUE}_dlq"}),
            topic=f"{QUEUE}_dlq",
            times=None,
        )
        with pytest.raises(NotAuthorized, match=r"The import stopped: .*WRITE on the topic"):
            kit.broker.import_dead_letters(QUEUE, dead, dry_run=False, reason=REASON)
