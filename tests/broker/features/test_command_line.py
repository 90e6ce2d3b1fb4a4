"""The options and signals of the `dramatiq` command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker.features.application import Application
from tests.broker.features.conftest import Run

STOP_TIMEOUT_S = 30
JOIN_TIMEOUT_MS = 60_000


def test_a_worker_started_with_queues_serves_only_those(application: Application, run: Run) -> None:
    left = application.send("remember", "left alone")
    run("--queues", "other")
    application.send("remember_elsewhere", "served", queue_name="other")
    application.broker.join("other", timeout=JOIN_TIMEOUT_MS)
    assert application.journal.entries("remembered elsewhere", text="served")
    assert not application.journal.entries("remembered", message_id=left.message_id)
    assert application.broker.count("default") == 1


def test_a_workers_log_holds_no_chatter_of_kafka_python(application: Application, run: Run) -> None:
    worker = run()
    application.send("remember", "done")
    application.broker.join("default", timeout=JOIN_TIMEOUT_MS)
    chatter = [line for line in worker.output().splitlines() if "[kafka." in line and "[INFO]" in line]
    assert not chatter, chatter[:3]
    assert "[INFO]" in worker.output()


def test_a_task_is_notified_of_the_shutdown_and_runs_again_in_the_next_worker(
    application: Application, run: Run
) -> None:
    sent = application.send("run_until_shutdown")
    first = run()
    application.wait_for("started")
    first.ask_to_stop()
    assert first.wait(STOP_TIMEOUT_S) == 0
    application.wait_for("shut down", message_id=sent.message_id)
    assert application.broker.count("default") == 1
    run()
    application.wait_for("finished", message_id=sent.message_id)


@pytest.mark.real_kafka(reason="find a leader for a group whose members left together")
def test_stopped_and_started_again_processes_lose_and_repeat_nothing(
    application: Application, run: Run
) -> None:
    sent = [application.send("remember", f"first {number}").message_id for number in range(20)]
    first = run(processes=2)
    application.wait_for("remembered", count=10)
    sent += [application.send("remember", f"second {number}").message_id for number in range(20)]
    first.ask_to_stop()
    assert first.wait(STOP_TIMEOUT_S) == 0
    sent += [application.send("remember", f"third {number}").message_id for number in range(20)]
    run(processes=2)
    application.broker.join("default", timeout=JOIN_TIMEOUT_MS)
    assert sorted(entry["message_id"] for entry in application.journal.entries("remembered")) == sorted(sent)


def test_a_changed_file_reloads_the_processes_that_watch_it(
    application: Application, run: Run, tmp_path: Path
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    command_line = run("--watch", str(watched))
    application.send("remember", "before")
    (before,) = application.wait_for("remembered", text="before")
    # Moved there, which is one change: Dramatiq sends a signal for each, and a second one ends a worker by
    # force, for which it waits without an end when there is the event loop of AsyncIO.
    changed = tmp_path / "changed.py"
    changed.write_text("changed = True\n", encoding="utf-8")
    changed.rename(watched / changed.name)
    command_line.wait_for_boots(2)
    application.send("remember", "after")
    (after,) = application.wait_for("remembered", text="after")
    assert after["pid"] != before["pid"]


def test_actors_run_in_greenlets_under_dramatiq_gevent(application: Application, run: Run) -> None:
    command_line = run(program="dramatiq-gevent")
    application.send("remember", "now")
    application.send("remember", "delayed", delay=200)
    sums = application.send("add", 1, 2, on_success="succeeded")
    long = application.send("run_for_too_long")
    application.wait_for("remembered", text="now")
    application.wait_for("remembered", text="delayed")
    application.wait_for("succeeded", of=sums.message_id, result=3)
    application.wait_for("time limit exceeded", message_id=long.message_id)
    application.broker.join("default", timeout=JOIN_TIMEOUT_MS)
    command_line.ask_to_stop()
    assert command_line.wait(STOP_TIMEOUT_S) == 0
