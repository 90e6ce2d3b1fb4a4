"""Runs a system's workers as its own command line does, and watches them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.place import Place
from bench.servers import cpu_s_of
from bench.systems import System
from bench.tally import VARIABLE, Tally, Total
from dev.child import Child
from dev.stack import ROOT
from dev.waiting import wait_until

#: The time in which every thread must get its first task, and the longest time without a finished task.
READY_TIMEOUT_S = 60.0
STALL_TIMEOUT_S = 60.0
POLL_S = 0.004


class Stalled(RuntimeError):
    """A system did not finish its work; the text holds the last lines of its workers."""


class Workers:
    """The worker processes of one measurement.

    Attributes:
      tally: Their finished tasks.
      started_s: The time before their start, of ``time.monotonic()``.
    """

    def __init__(self, system: System, place: Place, *, processes: int, threads: int, home: Path) -> None:
        directory = home / "tally"
        directory.mkdir(parents=True)
        self.tally = Tally(directory)
        self.started_s = 0.0
        self._system = system
        self._threads = processes * threads
        env = {**os.environ, **place.env(), VARIABLE: str(directory), "PYTHONPATH": str(ROOT)}
        self._children = [
            Child(f"{system.title}'s worker", command, log=home / f"worker{number}.log", env=env, cwd=ROOT)
            for number, command in enumerate(system.workers(processes, threads))
        ]

    def start(self) -> None:
        self.started_s = time.monotonic()
        for child in self._children:
            child.start()

    def kill(self) -> None:
        for child in self._children:
            child.kill()

    def wait_until_all_hold_a_task(self) -> None:
        """Return when every thread of every process has a task and waits for the gate."""
        with self._explained("did not get a task into each of its threads"):
            wait_until(self._all_hold_a_task, deadline_s=READY_TIMEOUT_S, what="the workers")

    def wait_for(self, count: int) -> Total:
        """Return when `count` tasks are done."""
        with self._explained(f"did not do {count} tasks"):
            total, progressed_at_s = self.tally.total(), time.monotonic()
            while total.count < count:
                time.sleep(POLL_S)
                before, total = total, self.tally.total()
                if total.count > before.count:
                    progressed_at_s = time.monotonic()
                elif time.monotonic() - progressed_at_s > STALL_TIMEOUT_S:
                    raise TimeoutError(f"{total.count} were done, then none for {STALL_TIMEOUT_S:g} s")
        return total

    def cpu_s(self) -> float:
        return sum(cpu_s_of(child.pid) for child in self._children)

    def rss_bytes(self) -> int:
        """The memory of all processes together."""
        return sum(process.memory_info().rss for process in self._processes())

    def thread_count(self) -> int:
        """The threads of the process that has the most of them: a worker, beside which a master has few."""
        return max(process.num_threads() for process in self._processes())

    def _all_hold_a_task(self) -> bool:
        for child in self._children:
            child.check()
        return self.tally.total().threads >= self._threads

    def _processes(self) -> Iterator[psutil.Process]:
        for child in self._children:
            process = psutil.Process(child.pid)
            yield from (process, *process.children(recursive=True))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            tails = "\n".join(f"--- {child.log.name}\n{child.tail(15)}" for child in self._children)
            raise Stalled(f"{self._system.title} {what}: {error}\n{tails}") from error
