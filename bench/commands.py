"""The commands of a system's workers, one child process each, which may be started again when they end."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil

from bench.place import Place
from bench.systems import System
from bench.tally import VARIABLE
from dev.child import Child
from dev.stack import ROOT

#: The interval in which a supervisor looks for the end of its command; systemd and Docker are told of it.
SUPERVISOR_POLL_S = 0.01


class Commands:
    """The commands of one measurement. Use it as a context manager: it kills them at the end.

    Parameters:
      number: The number of commands; each has its own worker processes.
      supervised: Whether a command that ends is started again at once.

    Attributes:
      directory: Where their tasks note what they do.
      restarts_s: The times at which supervisors started commands again.
    """

    def __init__(
        self,
        system: System,
        place: Place,
        *,
        number: int,
        processes: int,
        threads: int,
        home: Path,
        supervised: bool,
    ) -> None:
        self.directory = home / "tally"
        self.directory.mkdir(parents=True)
        self.restarts_s: list[float] = []
        env = {**os.environ, **place.env(), VARIABLE: str(self.directory), "PYTHONPATH": str(ROOT)}
        # Celery has a command for each process, the others have one for all.
        commands = [command for _ in range(number) for command in system.workers(processes, threads)]
        self._children = [
            Child(
                f"{system.title}'s worker",
                [f"bench{index}@%h" if part.endswith("@%h") else part for part in _at_defaults(command)],
                log=home / f"command{index}.log",
                env=env,
                cwd=ROOT,
            )
            for index, command in enumerate(commands)
        ]
        self._supervised = supervised
        self._stop = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Commands:
        for child in self._children:
            child.start()
        if self._supervised:
            self._supervisor.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for child in self._children:
            child.kill()

    def command_of(self, pid: int) -> Child:
        """The command that a worker process belongs to."""
        family = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        return next(child for child in self._children if child.pid in family)

    def replace(self, child: Child) -> None:
        """Start a command again that nobody supervises."""
        child.kill()
        child.start()

    def tails(self) -> str:
        """The last lines of all commands."""
        return "\n".join(f"--- {child.log.name}\n{child.tail(15)}" for child in self._children)

    def _supervise(self) -> None:
        while not self._stop.wait(SUPERVISOR_POLL_S):
            for child in self._children:
                if not child.is_running:
                    self.restarts_s.append(time.monotonic())
                    child.start()


def _at_defaults(command: list[str]) -> list[str]:
    """A command with its system's own read-ahead; with a longer one, one worker gets all messages."""
    if "--prefetch-multiplier" not in command:
        return command
    index = command.index("--prefetch-multiplier")
    return [*command[:index], *command[index + 2 :]]
