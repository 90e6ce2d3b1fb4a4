"""A reaper with real processes in the place of workers, and without Kafka."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import pytest

from broker.kafka.types import Membership
from broker.process import clock
from broker.process.clock import SystemClock
from broker.reaper import addresses
from broker.reaper.dead_worker import DeadWorker
from broker.reaper.process_watch import Exit, ProcessWatch
from broker.reaper.reaper import Reaper
from broker.reaper.wire import Introduction, Joined, Limited, encode
from dev.stack import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd")
DEADLINE_S = 30
KILLED = Exit(signal=signal.SIGKILL)


class Command:
    """A command of which only the reaper is real, on a thread of this process."""

    def __init__(self) -> None:
        self.dead: SimpleQueue[DeadWorker] = SimpleQueue()
        self.buried: list[int] = []
        self.announced: SimpleQueue[str] = SimpleQueue()
        self.on_announce: Callable[[], None] = lambda: None
        self.master = subprocess.Popen(["sleep", "600"])
        self._listener = addresses.listen(self.master.pid)
        self.reaper = Reaper(
            self._listener.socket,
            ProcessWatch(self.master.pid),
            "host:1",
            self._bury,
            announce=self._announce,
        )
        self.thread = threading.Thread(target=self.reaper.run, daemon=True)
        self.thread.start()

    def _bury(self, dead: Sequence[DeadWorker]) -> None:
        self.buried.append(len(dead))
        for worker in dead:
            self.dead.put(worker)

    def _announce(self, introduction: Introduction, limited: Limited) -> None:
        self.on_announce()
        self.announced.put(limited.message_id)

    @property
    def registered(self) -> int:
        return len([r for r in list(self.reaper.registrations) if r.introduction is not None])

    def member_ids(self) -> set[str]:
        return {m.member_id for r in list(self.reaper.registrations) for m in r.memberships.values()}

    def wait_for_members(self, *member_ids: str) -> None:
        wait_until(lambda: self.member_ids() == set(member_ids), deadline_s=DEADLINE_S, what="the members")

    def stop(self) -> None:
        self.reaper.stop()
        with contextlib.suppress(OSError):
            self.reaper.waker.send(b"\0")

    def close(self) -> None:
        self.stop()
        self.master.kill()
        self.master.wait()
        self.thread.join(DEADLINE_S)
        self.reaper.close()
        self._listener.close()


class Worker:
    """See worker.py."""

    def __init__(self, command: Command) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.broker.reaper.worker", str(command.master.pid)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, what: str) -> None:
        """Let it do something, without waiting for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def do(self, what: str) -> None:
        """Let it do something, and wait until it has."""
        self.begin(what)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{what}\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    with tempfile.TemporaryDirectory(prefix="reaper") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        running = Command()
        yield running
        running.close()


@pytest.fixture
def workers(command: Command) -> Iterator[list[Worker]]:
    running = [Worker(command), Worker(command)]
    wait_until(lambda: command.registered == 2, deadline_s=DEADLINE_S, what="the registrations")
    yield running
    for worker in running:
        worker.kill()


def test_the_last_memberships_of_a_killed_worker_are_known(command: Command, workers: list[Worker]) -> None:
    killed, other = workers
    killed.do("join g.work first")
    killed.do("join g.work second")
    other.do("join g.work other")
    killed.kill()
    dead = command.dead.get(timeout=DEADLINE_S)
    assert dead.memberships == {Membership("g.work", "second")}
    assert dead.exit == KILLED
    assert dead.introduction.worker_id == f"host:{killed.process.pid}"
    assert dead.siblings == {Membership("g.work", "other")}
    assert command.member_ids() == {"other"}


def test_a_membership_that_was_left_is_not_among_them(command: Command, workers: list[Worker]) -> None:
    killed, _ = workers
    killed.do("join g.work first")
    killed.do("leave")
    killed.kill()
    assert command.dead.get(timeout=DEADLINE_S).memberships == set()


def test_a_worker_that_said_goodbye_has_not_died(command: Command, workers: list[Worker]) -> None:
    stopped, killed = workers
    stopped.do("join g.work first")
    stopped.do("goodbye")
    stopped.kill()
    killed.kill()
    assert command.dead.get(timeout=DEADLINE_S).introduction.worker_id == f"host:{killed.process.pid}"
    assert command.dead.empty()


def test_a_frozen_worker_has_not_died(command: Command, workers: list[Worker]) -> None:
    frozen, killed = workers
    frozen.do("join g.work first")
    frozen.process.send_signal(signal.SIGSTOP)
    killed.kill()
    assert command.dead.get(timeout=DEADLINE_S).introduction.worker_id == f"host:{killed.process.pid}"
    assert command.member_ids() == {"first"}
    frozen.process.send_signal(signal.SIGCONT)


def test_a_connection_that_a_child_of_the_worker_keeps_open_does_not_hide_its_death(
    command: Command, workers: list[Worker]
) -> None:
    killed, _ = workers
    killed.do("join g.work first")
    killed.do("fork")
    killed.process.kill()
    assert command.dead.get(timeout=DEADLINE_S).memberships == {Membership("g.work", "first")}


def test_workers_that_die_together_are_buried_together(command: Command, workers: list[Worker]) -> None:
    for worker in workers:
        worker.process.send_signal(signal.SIGSTOP)  # so that neither can act in between
    for worker in workers:
        worker.process.kill()
    for _ in workers:
        command.dead.get(timeout=DEADLINE_S)
    assert command.buried == [2]


def test_a_reaper_ends_after_its_workers(command: Command, workers: list[Worker]) -> None:
    command.stop()
    first, second = workers
    first.kill()
    command.dead.get(timeout=DEADLINE_S)
    assert command.thread.is_alive()
    second.kill()
    command.thread.join(DEADLINE_S)
    assert not command.thread.is_alive()


def test_a_reaper_whose_command_was_killed_ends_after_its_workers(
    command: Command, workers: list[Worker]
) -> None:
    command.master.kill()
    command.master.wait()
    first, second = workers
    second.do("join g.work second")
    first.kill()
    assert command.dead.get(timeout=DEADLINE_S).siblings == set(), "nobody stops the other one"
    assert command.thread.is_alive()
    second.do("join g.work second")
    second.do("goodbye")
    command.wait_for_members()
    assert command.thread.is_alive(), "Dramatiq's command waits for the log of the last process to end"
    second.kill()
    command.thread.join(DEADLINE_S)
    assert not command.thread.is_alive()


def test_a_reaper_without_a_registered_worker_ends_with_its_command(command: Command) -> None:
    command.master.kill()
    command.thread.join(DEADLINE_S)
    assert not command.thread.is_alive()


def test_a_reaper_prepares_itself_before_the_first_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.reaper.reaper.PREPARE_AFTER_S", 0.0)
    prepared: SimpleQueue[object] = SimpleQueue()
    listener = addresses.listen(os.getpid())
    reaper = Reaper(listener.socket, None, "host:1", prepared.put, prepare=lambda: prepared.put(None))
    thread = threading.Thread(target=reaper.run, daemon=True)
    thread.start()
    prepared.get(timeout=DEADLINE_S)
    reaper.stop()
    reaper.waker.send(b"\0")
    thread.join(DEADLINE_S)
    reaper.close()
    listener.close()
    assert prepared.empty()


def test_lines_of_another_program_end_its_connection_only(command: Command, workers: list[Worker]) -> None:
    connection = addresses.connect(command.master.pid)
    assert connection is not None
    connection.sendall(b"GET / HTTP/1.1\n")
    connection.settimeout(DEADLINE_S)
    assert connection.recv(1) == b""
    workers[0].do("join g.work first")
    command.wait_for_members("first")


def test_a_closed_connection_is_a_death_where_processes_cannot_be_watched(
    monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(addresses, "peer_pid", lambda connection: 0)  # as where the system does not tell it
    connection = addresses.connect(command.master.pid)
    assert connection is not None
    introduction = Introduction("host:1", ["kafka:9092"], {}, "notes", 10_000)
    connection.sendall(encode(introduction) + encode(Joined(0, "g.work", "first", None)))
    command.wait_for_members("first")
    connection.close()
    dead = command.dead.get(timeout=DEADLINE_S)
    assert dead.memberships == {Membership("g.work", "first")}
    assert dead.exit == Exit()


# Hard time limits

LIMIT_MS = 600_000


class ShiftedClock(SystemClock):
    """The system's clock, and the time that a test has let pass. Workers have the system's clock alone."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def monotonic_s(self) -> float:
        return SystemClock.monotonic_s() + self.shift_s


@pytest.fixture
def let_limits_pass(command: Command) -> Iterator[Callable[[], None]]:
    """Lets the time of the reaper pass beyond each limit of the tasks so far."""
    shifted = ShiftedClock()

    def let_pass() -> None:
        shifted.shift_s += LIMIT_MS / 1000
        command.reaper.waker.send(b"\0")

    with clock.use(shifted):
        yield let_pass


def test_a_worker_whose_task_holds_the_interpreters_lock_is_killed_at_its_hard_limit(
    command: Command, workers: list[Worker], let_limits_pass: Callable[[], None]
) -> None:
    stuck, other = workers
    stuck.do(f"limit 1 {LIMIT_MS * 3}")
    stuck.do(f"limit 2 {LIMIT_MS}")
    other.do(f"limit 1 {LIMIT_MS * 3}")
    stuck.begin(f"hold {DEADLINE_S * 2}")
    let_limits_pass()
    dead = command.dead.get(timeout=DEADLINE_S)
    assert dead.exit == KILLED
    assert dead.culprit is not None
    assert (dead.culprit.message_id, dead.culprit.offset) == ("message-2", 102)
    assert command.announced.get_nowait() == "message-2"
    assert command.announced.empty()
    assert other.process.poll() is None


def test_a_worker_is_killed_when_the_time_of_a_limit_has_passed_and_nothing_else_happens(
    command: Command, workers: list[Worker]
) -> None:
    workers[0].begin("limit 1 50")  # it may be killed before it has answered
    assert command.dead.get(timeout=DEADLINE_S).culprit is not None


def test_a_frozen_worker_is_killed_at_the_hard_limit_of_its_task(
    command: Command, workers: list[Worker], let_limits_pass: Callable[[], None]
) -> None:
    frozen, _ = workers
    frozen.do(f"limit 1 {LIMIT_MS}")
    frozen.process.send_signal(signal.SIGSTOP)
    let_limits_pass()
    assert command.dead.get(timeout=DEADLINE_S).culprit is not None


def test_a_worker_whose_tasks_have_ended_or_that_has_said_goodbye_is_not_killed(
    command: Command, workers: list[Worker], let_limits_pass: Callable[[], None]
) -> None:
    living, killed = workers
    for task in ("1", "2"):
        living.do(f"limit {task} {LIMIT_MS}")
    living.do("end 2")
    living.do("end 1")
    stopped = Worker(command)
    wait_until(lambda: command.registered == 3, deadline_s=DEADLINE_S, what="the third registration")
    stopped.do(f"limit 1 {LIMIT_MS}")
    stopped.do("goodbye")
    killed.do(f"limit 1 {LIMIT_MS}")
    let_limits_pass()
    assert command.dead.get(timeout=DEADLINE_S).introduction.worker_id == f"host:{killed.process.pid}"
    assert [command.announced.get_nowait(), command.announced.empty()] == ["message-1", True]
    assert [living.process.poll(), stopped.process.poll()] == [None, None]
    stopped.kill()


def test_a_task_that_ends_while_kafka_is_told_of_it_kills_no_worker(
    command: Command, workers: list[Worker], let_limits_pass: Callable[[], None]
) -> None:
    living, killed = workers
    living.do(f"limit 1 {LIMIT_MS}")
    command.on_announce = lambda: living.do("end 1")
    let_limits_pass()
    assert command.announced.get(timeout=DEADLINE_S) == "message-1"
    command.on_announce = lambda: None
    killed.begin(f"limit 7 {LIMIT_MS}")  # which has passed already: it may be killed before it has answered
    assert command.announced.get(timeout=DEADLINE_S) == "message-7"
    assert command.dead.get(timeout=DEADLINE_S).introduction.worker_id == f"host:{killed.process.pid}"
    assert living.process.poll() is None
