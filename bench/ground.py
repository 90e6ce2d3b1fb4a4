"""Sets up any measurement: a fresh queue, its tasks and its workers, and their removal."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError

from bench.commands import Commands
from bench.place import Place
from bench.servers import Servers
from bench.systems import System
from bench.workers import Workers
from dev.kafka_protocol import delete_topics_of
from dev.stack import ROOT

SEND_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Sent:
    """The measurement of a sender.

    Attributes:
      seconds: From the first message to the last answer.
      latencies_s: Of each awaited send; empty in bulk.
    """

    seconds: float
    latencies_s: list[float]


class SendingFailed(RuntimeError):
    """A sender ended with an error; the text holds its output."""


class Ground:
    """The servers and files of measurements.

    Parameters:
      home: The directory for the files of each measurement.
    """

    def __init__(self, servers: Servers, home: Path) -> None:
        self.servers = servers
        self.home = home
        self._numbers = itertools.count(1)

    @contextmanager
    def place(self, system: System, **fields: Any) -> Iterator[Place]:
        """A fresh queue of `system`; removed afterwards where it would cost its server resources."""
        address = self.servers.running[system.server].address if system.server else ""
        place = replace(Place(address, f"bench{next(self._numbers)}"), **fields)
        try:
            yield place
        finally:
            if system.server.startswith("kafka"):
                # Kafka may be slow to answer on a busy machine. The remaining files are few, and last until
                # the end.
                with contextlib.suppress(KafkaError):
                    delete_topics_of(address, f"{place.queue}-")

    def send(
        self,
        system: System,
        place: Place,
        count: int,
        *,
        how: str = "bulk",
        threads: int = 1,
        args: Sequence[Any] | None = None,
    ) -> Sent:
        """Send the task of the place `count` times, from a separate process.

        Parameters:
          args: The arguments of the task, in place of those of the place.
        """
        command = [sys.executable, "-m", "bench.sending", system.module, how, str(count), str(threads)]
        done = subprocess.run(
            [*command, place.task, place.args if args is None else json.dumps(args)],
            env={**os.environ, **place.env()},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SEND_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise SendingFailed(f"{system.title} could not send:\n{done.stderr[-4000:]}")
        return Sent(**json.loads(done.stdout))

    @contextmanager
    def workers(self, system: System, place: Place, *, processes: int, threads: int) -> Iterator[Workers]:
        home = self.home / f"workers{next(self._numbers)}"
        workers = Workers(system, place, processes=processes, threads=threads, home=home)
        try:
            workers.start()
            yield workers
        finally:
            workers.kill()

    def directory(self) -> Path:
        """A new directory for files of one measurement."""
        directory = self.home / f"files{next(self._numbers)}"
        directory.mkdir(parents=True)
        return directory

    def commands(self, system: System, place: Place, **how: Any) -> Commands:
        """The commands of a system's workers; see :class:`Commands`."""
        return Commands(system, place, home=self.home / f"commands{next(self._numbers)}", **how)
