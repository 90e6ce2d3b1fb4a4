"""What a report is made of, apart from the runs."""

from __future__ import annotations

import math
import platform
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware, TimeLimit

from ..kafka.types import TopicPartition
from .report import MAX_APPLIED_COMMANDS, ControlState


class ReportedIdentity(Protocol):
    """The identity of this process's worker (see ``worker.identity``)."""

    worker_id: str
    host: str
    pid: int
    booted_ms: int


class Actors(Protocol):
    """The actors and the middleware of a broker."""

    @property
    def actors(self) -> Mapping[str, Any]: ...

    @property
    def middleware(self) -> list[Middleware]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of the broker that know what a report says.

    Attributes:
      identity: The worker's.
      actors: For the time limits.
      assigned: Returns the assigned partitions of all queues.
      memberships: Returns the member id in each consumer group.
      group_id: The worker's ``group_id``.
      topic_of: The topic of a queue.
      versions: Versions by name.
    """

    identity: ReportedIdentity
    actors: Actors
    assigned: Callable[[], Sequence[TopicPartition]]
    memberships: Callable[[], Mapping[str, str]]
    group_id: str
    topic_of: Callable[[str], str]
    versions: dict[str, str]


class ControlStatus:
    """What this worker knows of the control commands. The thread that applies them changes it.

    Parameters:
      on_change: Called after each change: a report follows at once.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._applied: deque[str] = deque(maxlen=MAX_APPLIED_COMMANDS)
        self._state = ControlState()

    @property
    def state(self) -> ControlState:
        return self._state

    def note(
        self,
        *applied: str,
        pauses_unknown: bool = False,
        paused_queues: Sequence[str] = (),
        quiet: bool = False,
    ) -> None:
        """Note the present state.

        Parameters:
          applied: The ids of the commands that were applied since the last call.
          pauses_unknown, paused_queues, quiet: See ControlState.
        """
        self._applied.extend(applied)
        self._state = ControlState(tuple(self._applied), pauses_unknown, tuple(paused_queues), quiet)
        self._on_change()


def versions_of(broker: str, app: str) -> dict[str, str]:
    """The versions of this process.

    Parameters:
      broker: The version of this distribution.
      app: The version of the application; empty when it has named none.
    """
    found = {"broker": broker, "python": platform.python_version()}
    for distribution in ("dramatiq", "kafka-python"):
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:  # the code was copied into the application
            continue
    return {**found, "app": app} if app else found


def limit_ms(actors: Actors, message: MessageProxy) -> int | None:
    """The time limit of a message, as Dramatiq's TimeLimit applies it; None without one."""
    for middleware in actors.middleware:
        if isinstance(middleware, TimeLimit):
            actor = actors.actors.get(message.actor_name)
            options = {} if actor is None else actor.options
            limit = message.options.get("time_limit") or options.get("time_limit", middleware.time_limit)
            is_number = isinstance(limit, int | float) and math.isfinite(limit)
            return int(limit) if is_number else None
    return None
