"""dkb workers, actors and top, from the reports of workers that are not."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
import pytest

from broker.kafka.types import TopicPartition
from broker.reaper.death_note import DeathNote
from broker.reports.counters import ActorCounters
from broker.reports.report import RunningTask, WorkerReport, encode_report
from broker.testing import Kit, advance
from tests.broker.console.conftest import Dkb
from tests.broker.reports.samples import report

Tell = Callable[[WorkerReport | DeathNote], None]


@pytest.fixture
def tell(kit: Kit) -> Tell:
    kit.cluster.create_topic("shop-dramatiq_workers", settings={"cleanup.policy": "compact,delete"})

    def tell(content: WorkerReport | DeathNote) -> None:
        if isinstance(content, DeathNote):
            key, value = content.key, content.encode()
        else:
            key, value = content.worker_id.encode(), encode_report(content)
        kit.cluster.append(TopicPartition("shop-dramatiq_workers", 0), key, value)

    return tell


def four_workers(kit: Kit, tell: Tell) -> None:
    """One that is silent, and after 30 seconds a busy, a stuck and a killed one."""
    tell(report(worker_id="a:1:silent", next_s=2.0))
    advance(seconds=30)
    now_ms = kit.clock.wall_ms()
    task = RunningTask("m-1", "pay", "mail", 2, since_ms=now_ms - 70_000, limit_ms=600_000)
    busy = {"queues": ("mail",), "running_count": 1, "at_ms": now_ms, "host": "b"}
    counters = ActorCounters(started=4, succeeded=2, failed={"OSError": 1}, retried=1)
    tell(report(worker_id="b:2:busy", running=(task,), actors={"pay": counters}, **busy))
    late = RunningTask("m-2", "slow", "mail", 1, since_ms=now_ms - 70_000, limit_ms=60_000)
    tell(report(worker_id="c:3:stuck", running=(late,), actors={"pay": counters}, **busy))
    tell(report(worker_id="d:4:killed"))
    tell(DeathNote("d:4:killed", now_ms, signal=9))


def test_workers_tells_busy_stuck_silent_and_gone_apart_with_the_reason(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    four_workers(kit, tell)
    rows = dkb("workers", "--json").document["workers"]
    assert [(row["worker"], row["state"]) for row in rows] == [
        ("a:1:silent", "silent"),
        ("b:2:busy", "busy"),
        ("c:3:stuck", "stuck"),
        ("d:4:killed", "gone"),
    ]
    assert rows[0]["reason"] == "no report for 30 s, and it had promised one within 2 s"
    assert (rows[3]["signal"], rows[3]["reason"]) == (9, "SIGKILL ended it 0 s ago")
    chosen = dkb("workers", "--json", "--state", "gone", "--state", "stuck").document["workers"]
    assert [row["state"] for row in chosen] == ["stuck", "gone"]
    text = dkb("workers").out
    assert "slow m-2 for 70 s of 60 s allowed is past its limit" in text


def test_top_shows_the_longest_run_first_and_filters(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    four_workers(kit, tell)
    advance(seconds=1)
    document = dkb("top", "--json").document
    assert document["count"] == 2
    assert {row["message_id"]: row["for_s"] for row in document["running"]} == {"m-1": 71.0, "m-2": 71.0}
    (row,) = dkb("top", "--json", "--actor", "pay").document["running"]
    assert (row["worker"], row["attempt"], row["limit_s"], row["queue"]) == ("b:2:busy", 2, 600.0, "mail")
    assert dkb("top", "--json", "--over", "2m").document["running"] == []
    assert [row["actor"] for row in dkb("top", "--json", "--sort", "actor").document["running"]] == [
        "pay",
        "slow",
    ]
    assert "1m11s" in dkb("top").out
    assert dkb("top", "--over", "soon").code == 2


def test_a_task_past_its_limit_is_marked_in_top_and_counted_in_workers(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    four_workers(kit, tell)
    rows = {row["message_id"]: row["overdue"] for row in dkb("top", "--json").document["running"]}
    assert rows == {"m-1": False, "m-2": True}
    (line,) = [line for line in dkb("top").out.splitlines() if " m-2 " in line]
    assert "1m00s over" in line
    counts = {row["worker"]: row["overdue"] for row in dkb("workers", "--json").document["workers"]}
    assert counts == {"a:1:silent": 0, "b:2:busy": 0, "c:3:stuck": 1, "d:4:killed": 0}


def test_actors_adds_the_counters_of_all_workers_and_lists_declared_ones(
    kit: Kit, dkb: Dkb, tell: Tell
) -> None:
    @dramatiq.actor
    def never_ran() -> None: ...

    four_workers(kit, tell)
    rows = {row["actor"]: row for row in dkb("actors", "--json").document["actors"]}
    assert rows["pay"]["succeeded"] == 4
    assert (rows["pay"]["errors"], rows["pay"]["workers"]) == ({"OSError": 2}, 2)
    assert (rows["slow"]["running"], rows["never_ran"]["started"]) == (1, 0)


def test_a_state_that_no_worker_has_is_refused_with_the_list(dkb: Dkb) -> None:
    ran = dkb("workers", "--state", "bogus")
    assert ran.code == 2
    assert all(state in ran.err for state in ("bogus", "busy", "idle", "stuck", "silent", "gone"))


def test_without_a_worker_there_is_a_message_and_no_row(dkb: Dkb) -> None:
    ran = dkb("workers")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "No worker has reported within that time.\n"
