"""A reaper with real processes in the place of workers, and without Kafka."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import pytest

from broker.kafka.types import Membership
from broker.reaper import addresses
from broker.reaper.dead_worker import DeadWorker
from broker.reaper.process_watch import Exit, ProcessWatch
from broker.reaper.reaper import Reaper
from broker.reaper.wire import Introduction, Joined, encode
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
        self.master = subprocess.Popen(["sleep", "600"])
        self._listener = addresses.listen(self.master.pid)
        self.reaper = Reaper(self._listener.socket, ProcessWatch(self.master.pid), "host:1", self._bury)
        self.thread = threading.Thread(target=self.reaper.run, daemon=True)
        self.thread.start()

    def _bury(self, dead: Sequence[DeadWorker]) -> None:
        self.buried.append(len(dead))
        for worker in dead:
            self.dead.put(worker)

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

    def do(self, what: str) -> None:
        """Let it do something, and wait until it has."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
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
