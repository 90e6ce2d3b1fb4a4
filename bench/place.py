"""The place of one measurement, passed to senders and workers through their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

DEFAULT_PARTITIONS = 4
NUMBERS = ("partitions", "queues", "preload", "window_s", "reports")


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and names on it that no other measurement uses.

    Parameters:
      address: ``host:port`` of the server; empty for a system without a server.
      queue: The queue's name, and the prefix of every topic.
      partitions: The partitions of each topic, for systems that have partitions.
      queues: The number of queues of the tasks; only this broker's workers support more than one.
      preload: The number of tasks that each worker process gives itself, in a system without a server.
      window_s: The time, in seconds, within which delayed messages are due.
      reports: Whether this broker's workers write reports and the history: 1 or 0.
      stages: The directory for the events of ``stages.py``; empty for none.
      observed: The middleware that observes this broker's tasks; see ``apps/observing.py``.
      task: The task and its arguments (JSON).
    """

    address: str
    queue: str
    partitions: int = DEFAULT_PARTITIONS
    queues: int = 1
    preload: int = 0
    window_s: int = 60
    reports: int = 1
    stages: str = ""
    observed: str = ""
    task: str = "noop"
    args: str = "[]"

    def env(self) -> dict[str, str]:
        return {_variable(f.name): str(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Place:
        """The place of this process; the defaults without one."""
        given = {f.name: environ[_variable(f.name)] for f in fields(cls) if _variable(f.name) in environ}
        numbers = {name: int(given.pop(name)) for name in NUMBERS if name in given}
        strings = {"address": "", "queue": "bench", **given}
        return cls(**strings, **numbers)  # type: ignore[arg-type]


def _variable(name: str) -> str:
    return f"BENCH_{name.upper()}"
