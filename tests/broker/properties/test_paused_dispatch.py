"""The dispatcher of a paused queue: its running marks, and the isolation of its process."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from broker.deliveries.delivery import Delivery
from broker.offsets.commit_metadata import CommitState, Suspicion
from broker.process import clock
from tests.broker.properties.test_dispatch import PARTITIONS, Cluster, Process
from tests.broker.stopped_clock import StoppedClock

MAIL = PARTITIONS[0]


@pytest.fixture(autouse=True)
def stopped_clock() -> Iterator[None]:
    with clock.use(StoppedClock()):
        yield


def process_after(crashes: dict[int, int]) -> Process:
    """A worker that has taken over a partition of the queue "mail" with these crash counts."""
    suspicions = {offset: Suspicion(count, running=False) for offset, count in crashes.items()}
    cluster = Cluster(killers=set())
    cluster.done = {(MAIL, offset) for offset in range(max(crashes)) if offset not in crashes}
    cluster.commits[MAIL] = CommitState(
        min(crashes), max(crashes), tuple(crashes), clean=True, suspicions=suspicions
    )
    process = Process(cluster, Random(1), threads=4, failing=0.0)
    process.consumers["mail"].remove(PARTITIONS[1])
    return process


def next_of_mail(process: Process) -> Delivery:
    delivery = process.consumers["mail"].next()
    assert delivery is not None
    return delivery


def pause_mail(process: Process) -> None:
    process.cluster.paused = frozenset({"mail"})
    process.read_commands()


def running_marks(process: Process) -> list[int]:
    suspicions = process.consumers["mail"].assigned_partitions[MAIL].snapshot().suspicions
    return sorted(offset for offset, suspicion in suspicions.items() if suspicion.running)


def test_a_suspect_that_was_given_back_ends_the_isolation_of_its_process_once_that_is_committed() -> None:
    process = process_after({0: 2})
    work = process.consumers["work"]
    dispatcher = process.consumers["mail"]
    suspect = next_of_mail(process)
    assert work.next() is None, "the suspect does not run alone"

    pause_mail(process)
    assert not process.broker.parts.in_flight.begin(suspect)
    assert dispatcher.next() is None
    assert work.next() is None, "a crash would still count against the suspect"
    process.commits.commit_now([dispatcher.assigned_partitions[MAIL]])
    assert dispatcher.next() is None
    assert work.next() is not None


def test_records_that_wait_for_their_dispatch_have_no_running_marks_while_their_queue_is_paused() -> None:
    process = process_after({0: 1, 1: 1, 2: 1})
    delivery = next_of_mail(process)
    assert running_marks(process) == [0, 1, 2]

    assert process.broker.parts.in_flight.begin(delivery)
    pause_mail(process)
    assert process.consumers["mail"].next() is None
    assert running_marks(process) == [delivery.origin.offset], "it runs"

    process.cluster.paused = frozenset()
    process.read_commands()
    assert next_of_mail(process).origin.offset == 1
    assert running_marks(process) == [0, 1, 2]


def test_a_prefetched_record_that_is_given_back_has_no_running_mark() -> None:
    process = process_after({0: 1})
    delivery = next_of_mail(process)
    assert running_marks(process) == [0]
    pause_mail(process)
    assert not process.broker.parts.in_flight.begin(delivery)
    assert running_marks(process) == []
