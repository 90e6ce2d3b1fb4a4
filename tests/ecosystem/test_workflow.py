"""dramatiq-workflow: messages whose time is a fraction, each sent when those before it are done."""

from __future__ import annotations

from tests.ecosystem.conftest import DEADLINE_S, Application
from tests.waiting import wait_until

TIMEOUT_MS = int(DEADLINE_S * 1000)
APP = "tests.ecosystem.workflow_app"


def test_a_workflow_of_chains_and_groups_runs_each_task_once_and_in_order(
    application_with_redis: Application,
) -> None:
    application = application_with_redis
    worker = application.start("worker", "-m", "dramatiq", APP, "--processes", "1", "--threads", "4")
    worker.wait_for_boots(1)
    application.run("-m", APP)
    wait_until(
        lambda: application.journal.entries("done", number=8), deadline_s=DEADLINE_S, what="the last task"
    )
    broker = application.broker("default")
    broker.join("default", timeout=TIMEOUT_MS, fail_fast=True)
    done = [entry["number"] for entry in application.journal.entries("done")]
    assert sorted(done) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (done[0], done[-1]) == (1, 8)
    assert done.index(2) < done.index(5)
    assert done.index(4) < min(done.index(6), done.index(7))
