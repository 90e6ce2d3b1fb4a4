"""dramatiq-abort: tasks that are aborted while they run, and before."""

from __future__ import annotations

import pytest

from tests.ecosystem.conftest import DEADLINE_S, Application
from tests.waiting import wait_until

TIMEOUT_MS = int(DEADLINE_S * 1000)
APP = "tests.ecosystem.abortable_app"


@pytest.fixture
def application(application_with_redis: Application) -> Application:
    worker = application_with_redis.start(
        "worker", "-m", "dramatiq", APP, "--processes", "1", "--threads", "1"
    )
    worker.wait_for_boots(1)
    return application_with_redis


def send(application: Application, code: str) -> str:
    """Run code of the application in a process of its own and return what it prints: a message's id."""
    return application.run(
        "-c", f"from {APP} import *\nfrom dramatiq_abort import abort\n{code}\nbroker.close()"
    ).strip()


def test_a_running_task_is_interrupted_and_a_waiting_and_a_delayed_one_never_begin(
    application: Application,
) -> None:
    running = send(application, "print(long_task.send('running').message_id)")
    journal = application.journal
    wait_until(lambda: journal.entries("began", name="running"), deadline_s=DEADLINE_S, what="it to run")
    cancelled = send(
        application,
        "waiting = short_task.send('waiting')\n"
        "delayed = short_task.send_with_options(args=('delayed',), delay=500)\n"
        "for message in (waiting, delayed): abort(message.message_id)\n"
        "print(waiting.message_id, delayed.message_id)",
    )
    assert len(cancelled.split()) == 2
    send(application, f"abort({running!r})")
    wait_until(lambda: journal.entries("aborted", name="running"), deadline_s=DEADLINE_S, what="its abort")
    send(application, "short_task.send('after')")
    wait_until(lambda: journal.entries("done", name="after"), deadline_s=DEADLINE_S, what="the next task")
    broker = application.broker("default")
    broker.join("default", timeout=TIMEOUT_MS)
    assert [entry["name"] for entry in journal.entries("done")] == ["after"]
    assert [entry["name"] for entry in journal.entries("began")] == ["running"]
    (dead_letter,) = broker.dead_letters("default")
    assert dead_letter.message is not None
    assert (dead_letter.message.message_id, dead_letter.error_type) == (running, "Abort")
