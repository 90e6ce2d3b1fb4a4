"""The base of all server handles: a program that listens on a port of this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from dev.child import Child
from dev.ports import HOST, is_listening
from dev.waiting import wait_until


class Server(ABC):
    """A server that a test may stop, kill and pause.

    `start` after `stop` or `kill` starts it on the same port, with the data that it keeps.
    """

    name: str
    start_timeout_s = 120.0

    def __init__(self, child: Child, *, home: Path, port: int) -> None:
        self.child = child
        self.home = home
        self.port = port

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.child.is_running

    def start(self) -> None:
        """Start it and return once it answers.

        Raises:
          ChildDied: It ended instead; the text holds its last lines.
          TimeoutError: It runs and does not answer.
        """
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Start it and return at once."""
        self.prepare()
        self.child.start()

    def wait_until_it_answers(self) -> None:
        """Return once it answers; kill it if it does not. Raises as `start` does."""
        try:
            wait_until(
                self._answers_or_died,
                deadline_s=self.start_timeout_s,
                what=f"{self.name} on port {self.port}",
            )
        except BaseException:
            self.child.kill()
            raise

    def stop(self) -> None:
        """Stop it in order."""
        self.child.stop()

    def kill(self) -> None:
        """Kill it as a crash would (SIGKILL)."""
        self.child.kill()

    def pause(self) -> None:
        """Pause it: connections stay open without answers."""
        self.child.pause()

    def resume(self) -> None:
        self.child.resume()

    def prepare(self) -> None:
        """Create the files that the program needs; called before every start."""
        return

    @abstractmethod
    def answers(self) -> bool:
        """Return whether it serves requests; called when its port has a listener."""

    def _answers_or_died(self) -> bool:
        self.child.check()
        return is_listening(self.port) and self.answers()
