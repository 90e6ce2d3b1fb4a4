"""The processes of the demo: Kafka, a worker, a feed and the console."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dev.child import Child
from dev.console import step
from dev.embedded_kafka import EmbeddedKafkaServer
from dev.ports import HOST, free_port, is_listening, is_taken
from dev.stack import ROOT
from dev.waiting import wait_until

#: The console's own default.
PORT = 9180
PASSWORD = "demo"  # it listens on this machine alone
READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 6.0


class Demo:
    """A shop with its worker and its console.

    Parameters:
      home: The directory of data and logs.
      servers: Kafka's address; without one, a Kafka in memory is started.
      port: The console's port.
    """

    def __init__(
        self, home: Path, *, servers: str | None = None, namespace: str = "demo-", port: int | None = None
    ) -> None:
        self.home = home
        self.namespace = namespace
        self.port = port or (free_port() if is_taken(PORT) else PORT)
        self._kafka = None if servers else EmbeddedKafkaServer(home / "kafka", port=free_port())
        self.servers = servers or (self._kafka.address if self._kafka else "")
        self._env = {
            **os.environ,
            "DEMO_HOME": str(home),
            "DEMO_SERVERS": self.servers,
            "DEMO_NAMESPACE": namespace,
            "DKB_CONSOLE_PASSWORD": PASSWORD,
        }
        dramatiq = Path(sys.executable).parent / "dramatiq"
        self._started: list[Child] = []
        self.worker = self._child(
            "the worker", [dramatiq, "dev.demo.shop", "--processes", "1", "--threads", "8"]
        )
        self.feed = self._child("the feed", [sys.executable, "-m", "dev.demo.feed"])
        self.console = self._child(
            "the console", self.command("console", "--port", str(self.port), "--data", str(home / "console"))
        )

    def command(self, *arguments: str) -> list[str]:
        """A command of the broker's command line for the shop."""
        return [sys.executable, "-m", "broker.console", "dev.demo.shop", *arguments]

    def _child(self, name: str, command: Sequence[str | Path]) -> Child:
        log = self.home / "logs" / f"{name.split()[-1]}.log"
        return Child(name, command, log=log, env=self._env, cwd=ROOT)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    @property
    def mail_is_down(self) -> Path:
        """No mail can be sent while this file is there."""
        return self.home / "mail-is-down"

    def start(self, *, has_feed: bool = True) -> None:
        """Start everything. Raises `ChildDied` when a child ends meanwhile."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.mail_is_down.unlink(missing_ok=True)
        if self._kafka is not None:
            with step("Kafka"):
                self._kafka.start()
        with step("a worker, and the web console"):
            self._started = [self.worker, self.console, *([self.feed] if has_feed else [])]
            for child in self._started:
                child.start()
            wait_until(self._console_listens, deadline_s=READY_TIMEOUT_S, what="the web console")

    def check(self) -> None:
        """Raise `ChildDied` when a child that was started has ended."""
        for child in self._started:
            child.check()

    def stop(self) -> None:
        """Stop all processes."""
        children = self._children()
        for child in children:
            child.ask_to_stop()
        with contextlib.suppress(TimeoutError):  # those are killed
            wait_until(
                lambda: not any(child.is_running for child in children),
                deadline_s=STOP_TIMEOUT_S,
                what="the children's end",
            )
        for child in children:
            child.kill()

    def _children(self) -> list[Child]:
        kafka = [] if self._kafka is None else [self._kafka.child]
        return [self.feed, self.console, self.worker, *kafka]

    def _console_listens(self) -> bool:
        self.check()
        return is_listening(self.port)
