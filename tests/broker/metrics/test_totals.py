"""Counters that outlive the workers."""

from __future__ import annotations

from typing import Any

from broker import ActorCounters, WorkerInfo, WorkerReport, WorkerState
from broker.metrics.totals import FORGET_AFTER_S, MAX_ACTORS, MAX_ERROR_TYPES, OTHERS, Totals
from broker.reports.consumption import Consumption
from broker.reports.histogram import Histogram
from tests.broker.reports.samples import report

STARTED_MS = 1_000_000
KEY = ("mail", "send")


def ran(count: int, **fields: Any) -> ActorCounters:
    return ActorCounters(
        started=count,
        succeeded=count,
        run_time=Histogram(0, (count,), 1.5 * count),
        queue_name="mail",
        **fields,
    )


def info(found: WorkerReport, state: WorkerState = WorkerState.IDLE, **fields: Any) -> WorkerInfo:
    return WorkerInfo(found.worker_id, state, "", 0.0, found, **fields)


def told(
    worker_id: str, counters: ActorCounters, booted_ms: int = STARTED_MS + 1, **fields: Any
) -> WorkerInfo:
    return info(report(worker_id=worker_id, booted_ms=booted_ms, actors={"send": counters}, **fields))


def test_a_worker_that_ends_and_one_that_starts_lower_no_counter() -> None:
    totals = Totals(STARTED_MS)
    totals.add([], 0.0)
    totals.add([told("a", ran(3)), told("b", ran(4))], 1.0)
    totals.add([told("a", ran(5))], 2.0)
    assert totals.actors[KEY].ended == 9
    totals.add([told("c", ran(1))], 3.0)
    assert totals.actors[KEY].ended == 10
    assert totals.actors[KEY].run_time.sum_s == 15.0


def test_counts_of_a_worker_that_was_there_before_are_a_baseline() -> None:
    totals = Totals(STARTED_MS)
    totals.add([told("a", ran(100))], 0.0)
    totals.add([told("a", ran(102)), told("away", ran(50), booted_ms=STARTED_MS - 1)], 1.0)
    assert totals.actors[KEY].ended == 2
    totals.add([told("away", ran(51), booted_ms=STARTED_MS - 1)], 2.0)
    assert totals.actors[KEY].ended == 3


def test_a_worker_that_was_silent_is_counted_from_where_it_was() -> None:
    totals = Totals(STARTED_MS)
    totals.add([], 0.0)
    totals.add([told("a", ran(3))], 1.0)
    totals.add([], 3600.0)
    totals.add([told("a", ran(4))], 7200.0)
    assert totals.actors[KEY].ended == 4


def test_what_is_kept_of_workers_is_bounded() -> None:
    totals = Totals(STARTED_MS)
    totals.add([told("a", ran(3))], 0.0)
    totals.add([], FORGET_AFTER_S + 1)
    assert totals.known_workers == 0


def test_actors_and_error_types_beyond_a_limit_share_an_entry() -> None:
    totals = Totals(STARTED_MS)
    totals.add([], 0.0)
    errors = {f"Error{number}": 1 for number in range(MAX_ERROR_TYPES + 5)}
    actors = {f"actor-{n}": ran(1) for n in range(MAX_ACTORS + 5)} | {"last": ran(1, failed=errors)}
    totals.add([info(report(booted_ms=STARTED_MS + 1, actors=actors))], 1.0)
    assert len(totals.actors) == MAX_ACTORS + 1
    assert totals.actors["", OTHERS].ended == 6
    assert len(totals.run_errors) == MAX_ERROR_TYPES + 1
    assert totals.run_errors["mail", OTHERS] == 5


def test_a_crash_is_counted_once_and_an_end_in_good_order_is_none() -> None:
    totals = Totals(STARTED_MS)
    old = info(report(worker_id="old"), WorkerState.GONE, signal=9)
    totals.add([old], 0.0)
    gone = [
        info(report(worker_id="killed"), WorkerState.GONE, signal=9),
        info(report(worker_id="failed"), WorkerState.GONE, exit_code=3),
        info(report(worker_id="told"), WorkerState.GONE, signal=15),
        info(report(worker_id="lost"), WorkerState.GONE),
        info(report(worker_id="orderly", kind="goodbye"), WorkerState.GONE),
        old,
    ]
    totals.add(gone, 1.0)
    totals.add(gone, 2.0)
    assert totals.crashes == {"SIGKILL": 1, "exit": 1, "unknown": 1}


def test_the_consumption_of_a_queue_is_summed_over_workers() -> None:
    totals = Totals(STARTED_MS)
    totals.add([], 0.0)
    consumption = {"mail": Consumption(Histogram(-4, (2,), 0.5), 1, 4, 2, 1, 7)}
    for worker_id in ("a", "b"):
        totals.add([told(worker_id, ran(0), consumption=consumption)], 1.0)
    found = totals.queues["mail"]
    assert (found.assigned, found.revoked, found.lost) == (8, 4, 2)
    assert (found.failed_commits, found.redelivered, sum(found.commit_time.counts)) == (2, 14, 4)
