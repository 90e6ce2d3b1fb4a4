"""What every server handle offers: a program that listens on a port of this machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from dev.child import Child
from dev.ports import HOST, is_listening
from dev.waiting import wait_until


class Server(ABC):
    """A server of our own, which a test may harm.

    `start` after `stop` or `kill` brings it up again on the same port, with the data that this server keeps.
    """

    name: str
    start_timeout_s = 60.0

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
        """Return once it answers; one that does not is ended. Raises as `start` does."""
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
        """End it in good order."""
        self.child.stop()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self.child.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self.child.pause()

    def resume(self) -> None:
        self.child.resume()

    def prepare(self) -> None:
        """See to what has to be there before the program starts; called before every start."""
        return

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves requests; called when something listens on its port."""

    def _answers_or_died(self) -> bool:
        self.child.check()
        return is_listening(self.port) and self.answers()
