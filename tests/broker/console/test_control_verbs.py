"""dkb pause, resume, quiet and stop."""

from __future__ import annotations

import dramatiq
import pytest

from broker.console.control_verbs import find_worker
from broker.console.session import Refused
from broker.reports.report import ControlState
from broker.reports.worker_states import WorkerInfo, WorkerState
from broker.testing import Kit, drain, pending
from tests.broker.console.conftest import Dkb
from tests.broker.console.test_worker_verbs import Tell, four_workers, tell
from tests.broker.reports.samples import report

__all__ = ["tell"]


def test_a_paused_queue_is_shown_with_who_and_why_until_it_is_resumed(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    drain()
    ran = dkb("pause", "mail", "--reason", "")
    assert (ran.code, "a pause needs reason=" in ran.err) == (2, True)
    ran = dkb("pause", "mail", "--reason", "the server is down", "--by", "ops", "--wait", "0", "--json")
    assert ran.code in (0, 5)  # 5: not in force yet
    assert (ran.document["command"]["by"], ran.document["command"]["kind"]) == ("ops", "pause")
    task.send()
    assert len(pending("mail")) == 1
    text = dkb("status", "--sample", "0").out
    assert "mail (paused)" in text
    assert "mail is paused by ops since" in text
    assert "the server is down" in text
    ran = dkb("resume", "mail", "--json")
    assert (ran.code, ran.document["was_paused"]) == (0, True)
    assert drain() == 1
    assert dkb("resume", "mail").out == "'mail' was not paused.\n"


def test_a_pause_needs_a_reason_and_a_queue_that_exists(kit: Kit, dkb: Dkb) -> None:
    assert dkb("pause", "mail").code == 2
    ran = dkb("pause", "male", "--reason", "x")
    assert (ran.code, "no queue 'male'" in ran.err) == (1, True)
    assert kit.cluster.topics == {}


def test_a_pause_with_a_worker_in_no_report_names_it_and_promises_nothing(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    drain()  # as a worker of an earlier version
    ran = dkb("pause", "mail", "--reason", "the server is down")
    assert ran.code == 5
    assert ran.out == "The queue 'mail' is paused: no task of it begins on a worker that reads commands.\n"
    assert "may still begin on member-1 (client 'memory' on memory)" in ran.err
    ran = dkb("pause", "mail", "--reason", "the server is down", "--json")
    assert (ran.code, ran.document["in_force"], ran.document["members_known"]) == (5, True, True)
    assert ran.document["unknown"] == ["member-1 (client 'memory' on memory)"]


def test_a_pause_without_workers_promises_that_nothing_begins(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    ran = dkb("pause", "mail", "--reason", "the server is down")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "The queue 'mail' is paused: no task of it begins any more.\n"


def test_a_pause_names_the_workers_that_have_not_confirmed_it(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    kit.broker.declare_queue("mail")
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    tell(report(worker_id="a:1:frozen", queues=("mail",), control=ControlState()))
    ran = dkb("pause", "mail", "--reason", "a test", "--wait", "0")
    assert ran.code == 5
    assert "Not confirmed by a:1:frozen: " in ran.out


def test_every_view_names_the_workers_that_do_not_obey_a_pause(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    # Given a pause that one worker has applied and another one cannot read
    kit.broker.declare_queue("mail")
    kit.broker.enqueue(dramatiq.Message("mail", "task", (), {}, {}))
    kit.broker.pause("mail", reason="a test")
    obeys = ControlState(paused_queues=("mail",))
    tell(report(worker_id="a:1:obeys", queues=("mail",), control=obeys))
    tell(report(worker_id="b:2:cannot", queues=("mail",), control=ControlState(pauses_unknown=True)))
    tell(report(worker_id="c:3:other", queues=("images",), control=ControlState(pauses_unknown=True)))

    ran = dkb("status", "--sample", "0")
    assert "Tasks of 'mail' may still begin on b:2:cannot: " in ran.out
    assert "obeys" not in ran.out.partition("may still begin")[2].partition(":")[0]
    (row,) = dkb("status", "--sample", "0", "--json").document["queues"]
    assert (row["paused"], row["disobeying"]) == (True, ["b:2:cannot"])

    rows = dkb("workers", "--json").document["workers"]
    assert [row["disobeys"] for row in rows] == [[], ["mail"], []]
    (line,) = (line for line in dkb("workers").out.splitlines() if line.startswith("b:2:cannot"))
    assert "it cannot read commands and does not obey the pause of mail; " in line

    found = dkb("doctor", "--json").document["findings"]
    assert [row["subject"] for row in found if row["check"] == "pauses"] == ["mail"]

    kit.broker.resume("mail")
    assert "may still begin" not in dkb("status", "--sample", "0").out
    assert [row["disobeys"] for row in dkb("workers", "--json").document["workers"]] == [[], [], []]


def test_quiet_and_stop_take_a_unique_part_of_a_living_workers_id(kit: Kit, dkb: Dkb, tell: Tell) -> None:
    four_workers(kit, tell)
    ran = dkb("stop", "b:2", "--reason", "a leak", "--json")
    document = ran.document
    assert (document["command"]["target"], document["worker_state"]) == ("b:2:busy", "busy")
    assert "obeys once it runs again" in dkb("quiet", "silent").out
    for wanted, code, said in (
        ("killed", 1, "d:4:killed is gone: SIGKILL ended it"),
        ("nobody", 1, "No worker has 'nobody' in its id"),
        (":", 2, "is in the ids of a:1:silent, b:2:busy, c:3:stuck"),
    ):
        ran = dkb("quiet", wanted)
        assert (ran.code, said in ran.err) == (code, True)


def test_a_whole_id_is_found_although_it_is_a_part_of_another() -> None:
    workers = [WorkerInfo(name, WorkerState.IDLE, "", 0.0, None) for name in ("a:1:x", "a:1:xy")]
    assert find_worker(workers, "a:1:x").worker_id == "a:1:x"
    with pytest.raises(Refused):
        find_worker(workers, "a:1")
