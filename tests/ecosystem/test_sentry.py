"""Sentry's Dramatiq integration: a middleware that it puts before all others when a broker is made."""

from __future__ import annotations

from tests.broker.features.command_line import CommandLine
from tests.ecosystem.conftest import DEADLINE_S, Application
from tests.waiting import wait_until

TIMEOUT_MS = int(DEADLINE_S * 1000)
APP = "tests.ecosystem.sentry_app"
ORDERS = 24


def start(application: Application, name: str, *, threads: int = 2) -> CommandLine:
    counts = ("--processes", "1", "--threads", str(threads))
    return application.start(
        name, "-m", "dramatiq", APP, *counts, WORKER=name, dramatiq_queue_prefetch=str(2 * ORDERS)
    )


def send(application: Application, code: str) -> None:
    application.environment["WORKER"] = "sender"
    application.run("-c", f"from {APP} import *\n{code}\nbroker.close()")


def test_sentry_gets_each_failed_attempt_with_its_message_and_nothing_else(application: Application) -> None:
    start(application, "worker").wait_for_boots(1)
    send(application, "work.send(1); expected.send(2); fail.send(3)")
    broker = application.broker("default")
    broker.join("default", timeout=TIMEOUT_MS)
    errors = application.journal.entries("error")
    assert [(error["type"], error["message"]["args"]) for error in errors] == [("ValueError", [3])] * 2
    assert len({error["message"]["message_id"] for error in errors}) == 1
    assert sorted(dead_letter.error_type for dead_letter in broker.dead_letters("default")) == [
        "LookupError",
        "ValueError",
    ]
    transactions = application.journal.entries("transaction", op="queue.task.dramatiq")
    assert sorted(entry["name"] for entry in transactions) == ["expected", "fail", "fail", "work"]


def test_a_trace_goes_on_from_the_sender_into_the_worker(application: Application) -> None:
    start(application, "worker").wait_for_boots(1)
    send(
        application,
        "with sentry_sdk.start_transaction(name='request') as request: work.send(1)\n"
        "note('sent', trace_id=request.trace_id)",
    )
    (done,) = wait_until(
        lambda: application.journal.entries("transaction", name="work"),
        deadline_s=DEADLINE_S,
        what="the task",
    )
    (sent,) = application.journal.entries("sent")
    assert done["trace_id"] == sent["trace_id"]


def test_sentry_hears_nothing_of_tasks_that_move_to_another_worker_before_they_begin(
    application: Application,
) -> None:
    send(application, f"[pack.send(order) for order in range({ORDERS})]")
    first = start(application, "first", threads=1)
    packing = application.journal.entries
    wait_until(lambda: packing("packing", worker="first"), deadline_s=DEADLINE_S, what="the first to begin")
    second = start(application, "second", threads=1)
    wait_until(lambda: packing("packing", worker="second"), deadline_s=DEADLINE_S, what="the second to begin")
    (application.home / "gate").touch()
    application.broker("packing").join("packing", timeout=TIMEOUT_MS)
    first.stop()
    second.stop()
    assert {entry["order"] for entry in packing("packing")} == set(range(ORDERS))
    for worker in (first, second):
        assert "CRITICAL" not in worker.output(), worker.tail()
    assert application.journal.entries("error") == []
