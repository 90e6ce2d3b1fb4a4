"""The states of worker processes as another process sees them, without asking the worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker import KafkaBroker, WorkerInfo, WorkerReport, WorkerState
from broker.reports import worker_states
from dev.child import Child
from dev.stack import ROOT, Stack
from tests.broker.features.command_line import CommandLine
from tests.broker.reports.cuttable_proxy import CuttableProxy
from tests.broker.reports.reporting_app import declare, new_broker
from tests.reapers import reaper_pids, registrations
from tests.waiting import wait_until

DEADLINE_S = 90.0
#: Longer than a silent worker's session timeout, so that its groups do not have it any more.
GONE_AFTER_S = 10.0


@pytest.fixture
def worker(stack: Stack, namespace: str, tmp_path: Path) -> Iterator[Child]:
    """A worker process that has sent its first report."""
    command = [sys.executable, "-m", "tests.broker.reports.reporting_app", stack.bootstrap_servers, namespace]
    child = Child("the worker", command, log=tmp_path / "worker.log", cwd=ROOT)
    child.start()
    yield child
    child.kill()


@pytest.fixture
def cuttable(stack: Stack, namespace: str, tmp_path: Path) -> Iterator[CuttableProxy]:
    """The only way to Kafka of a worker process."""
    proxy = CuttableProxy()
    command = [sys.executable, "-m", "tests.broker.reports.reporting_app", stack.bootstrap_servers, namespace]
    child = Child("the worker", [*command, proxy.url], log=tmp_path / "worker.log", cwd=ROOT)
    child.start()
    yield proxy
    child.kill()
    proxy.close()


@pytest.fixture
def broker(stack: Stack, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaBroker]:
    """The observer, which sends as well."""
    monkeypatch.setattr(worker_states, "GONE_AFTER_S", GONE_AFTER_S)
    broker = new_broker(stack.bootstrap_servers, namespace)
    declare(broker)
    yield broker
    broker.close()


def send(broker: KafkaBroker, actor_name: str, duration_s: float) -> str:
    return str(broker.get_actor(actor_name).send(duration_s).message_id)


def seen(broker: KafkaBroker, condition: Callable[[WorkerInfo], bool], what: str) -> WorkerInfo:
    """The worker, once it is seen as wanted."""

    def look() -> WorkerInfo | None:
        found = broker.workers()
        assert len(found) <= 1
        return next(filter(condition, found), None)

    return wait_until(look, deadline_s=DEADLINE_S, what=what)


def in_state(broker: KafkaBroker, state: WorkerState) -> WorkerInfo:
    return seen(broker, lambda worker: worker.state is state, f"a worker that is {state}")


def report_of(worker: WorkerInfo) -> WorkerReport:
    assert worker.report is not None
    return worker.report


def test_a_worker_is_idle_busy_and_after_an_orderly_end_gone(worker: Child, broker: KafkaBroker) -> None:
    idle = in_state(broker, WorkerState.IDLE)
    assert report_of(idle).pid == worker.pid
    assert report_of(idle).versions["app"] == "1.2.3"
    message_id = send(broker, "work", 3.0)
    busy = in_state(broker, WorkerState.BUSY)
    (task,) = report_of(busy).running
    assert (task.message_id, task.actor_name, task.attempt) == (message_id, "work", 1)
    assert task.progress is not None
    assert (task.progress.fraction, task.progress.text) == (0.4, "reading page 12")
    os.kill(worker.pid, signal.SIGTERM)
    # A starved worker is silent for long before it says goodbye.
    gone = seen(broker, lambda worker: "it ended in good order" in worker.reason, "its goodbye")
    assert gone.state is WorkerState.GONE
    assert report_of(gone).actors["work"].succeeded == 1
    assert [event.kind for event in broker.history(message_id=message_id)] == ["started", "succeeded"]


def test_a_worker_whose_task_is_past_its_limit_is_stuck_until_the_task_ends(
    worker: Child, broker: KafkaBroker
) -> None:
    send(broker, "hang", 15.0)
    stuck = in_state(broker, WorkerState.STUCK)
    assert "of 1 s allowed is past its limit, and no run has ended since" in stuck.reason
    in_state(broker, WorkerState.IDLE)


@pytest.mark.real_kafka(reason="the members of a group without those whose session has timed out")
def test_a_frozen_worker_is_silent_then_gone_and_reports_again_when_it_continues(
    worker: Child, broker: KafkaBroker
) -> None:
    in_state(broker, WorkerState.IDLE)
    os.kill(worker.pid, signal.SIGSTOP)
    silent = in_state(broker, WorkerState.SILENT)
    assert "and it had promised one within" in silent.reason
    in_state(broker, WorkerState.GONE)
    os.kill(worker.pid, signal.SIGCONT)
    in_state(broker, WorkerState.IDLE)


@pytest.mark.real_kafka(reason="the members of a group without those whose session has timed out")
def test_a_worker_that_is_cut_off_from_kafka_is_silent_then_gone_and_reports_again(
    cuttable: CuttableProxy, broker: KafkaBroker
) -> None:
    in_state(broker, WorkerState.IDLE)
    cuttable.cut()
    in_state(broker, WorkerState.SILENT)
    in_state(broker, WorkerState.GONE)
    cuttable.restore()
    in_state(broker, WorkerState.IDLE)
    send(broker, "work", 0.0)
    seen(broker, lambda found: "work" in report_of(found).actors, "a worker that has run the task")


def test_a_worker_whose_task_holds_the_gil_is_silent_until_it_lets_go(
    worker: Child, broker: KafkaBroker
) -> None:
    in_state(broker, WorkerState.IDLE)
    send(broker, "hold_gil", 9.0)
    in_state(broker, WorkerState.SILENT)
    in_state(broker, WorkerState.IDLE)


@pytest.mark.real_kafka(reason="the members of a group without those whose session has timed out")
def test_a_killed_worker_is_silent_then_gone(worker: Child, broker: KafkaBroker) -> None:
    message_id = send(broker, "work", 60.0)
    seen(broker, lambda found: report_of(found).running_count == 1, "a worker that runs the task")
    os.kill(worker.pid, signal.SIGKILL)
    in_state(broker, WorkerState.SILENT)
    gone = in_state(broker, WorkerState.GONE)
    (task,) = report_of(gone).running
    assert task.message_id == message_id  # what it ran, until somebody else runs it
    (queue,) = broker.queues()
    assert queue.counts.completed == 0
    assert queue.lag == 1
    # It counts as waiting until a commit says that it was dispatched.
    assert queue.lag_s is not None or queue.oldest_incomplete_s is not None


def test_a_worker_of_the_command_line_that_is_killed_is_gone_with_its_signal(
    stack: Stack, namespace: str, broker: KafkaBroker, tmp_path: Path
) -> None:
    env = {**os.environ, "BOOTSTRAP_SERVERS": stack.bootstrap_servers, "NAMESPACE": namespace}
    arguments = ["tests.broker.reports.command_line_app", "--processes", "1", "--threads", "2"]
    command = CommandLine(*arguments, env=env, log=tmp_path / "worker.log")
    command.start()
    try:
        message_id = send(broker, "work", 60.0)
        busy = seen(broker, lambda found: report_of(found).running_count == 1, "a worker that runs the task")
        wait_until(
            lambda: sum(map(registrations, reaper_pids(command.output().splitlines()))) == 1,
            deadline_s=DEADLINE_S,
            what="the worker's registration with the reaper",
        )
        os.kill(report_of(busy).pid, signal.SIGKILL)
        gone = seen(broker, lambda found: found.signal is not None, "a death note")
    finally:
        command.kill()
    assert (gone.state, gone.signal, gone.exit_code) == (WorkerState.GONE, signal.SIGKILL, None)
    assert gone.reason.startswith("SIGKILL ended it")
    assert [task.message_id for task in report_of(gone).running] == [message_id]


def test_the_ledger_of_a_queue_balances_while_a_worker_works(worker: Child, broker: KafkaBroker) -> None:
    for number in range(40):
        send(broker, "work", 0.1 if number % 10 == 0 else 0.0)
    (queue,) = broker.queues()
    assert queue.counts.written == 40
    assert queue.counts.difference == 0
    broker.join("default", timeout=int(DEADLINE_S * 1000))
    (queue,) = broker.queues()
    assert (queue.counts.completed, queue.lag, queue.lag_s, queue.dead) == (40, 0, None, 0)
