"""Tests of an application without a Kafka: its own actors, on the real broker, with Kafka in memory.

The functions act on the broker of the fixture ``kafka_broker``; docs/testing.md is the tutorial.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dramatiq.message import Message

from .clock import ManualClock
from .inline_worker import MAX_RUNS, DrainStalled
from .journal import AnyActor
from .kit import CrashPoint, Kit, current
from .memory import MemoryCluster
from .memory.faults import Request
from .memory_broker import MemoryBroker

if TYPE_CHECKING:
    from ..dead_letters import DeadLetter
    from ..delays.view import DelayedMessage
    from .plugin import application_broker, kafka_broker, worker

__all__ = [
    "DrainStalled",
    "Kit",
    "ManualClock",
    "MemoryBroker",
    "MemoryCluster",
    "Request",
    "advance",
    "application_broker",
    "assert_dead",
    "assert_enqueued",
    "assert_not_enqueued",
    "crash_worker",
    "dead",
    "delayed",
    "drain",
    "kafka_away",
    "kafka_broker",
    "pending",
    "worker",
]

#: The fixtures. pytest finds them by itself; the rest of the kit does without pytest.
_FIXTURES = ("application_broker", "kafka_broker", "worker")


def __getattr__(name: str) -> Any:
    if name not in _FIXTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import plugin

    return getattr(plugin, name)


def drain(*, raise_errors: bool = True, max_runs: int = MAX_RUNS) -> int:
    """See :meth:`Kit.drain`."""
    return current().drain(raise_errors=raise_errors, max_runs=max_runs)


def advance(duration: timedelta | None = None, **parts: float) -> None:
    """See :meth:`Kit.advance`."""
    current().advance(duration, **parts)


def pending(queue_name: str | None = None) -> list[Message[Any]]:
    """See :meth:`Kit.pending`."""
    return current().pending(queue_name)


def delayed(queue_name: str | None = None) -> list[DelayedMessage]:
    """See :meth:`Kit.delayed`."""
    return current().delayed(queue_name)


def dead(queue_name: str | None = None) -> list[DeadLetter]:
    """See :meth:`Kit.dead`."""
    return current().dead(queue_name)


def assert_enqueued(actor: AnyActor, *, times: int | None = None, **wanted: Any) -> Message[Any]:
    """See :meth:`Kit.assert_enqueued`."""
    return current().assert_enqueued(actor, times=times, **wanted)


def assert_not_enqueued(actor: AnyActor, **wanted: Any) -> None:
    """See :meth:`Kit.assert_not_enqueued`."""
    current().assert_not_enqueued(actor, **wanted)


def assert_dead(actor: AnyActor, error: type[BaseException] | str | None = None) -> DeadLetter:
    """See :meth:`Kit.assert_dead`."""
    return current().assert_dead(actor, error)


def crash_worker(at: CrashPoint = "after") -> AbstractContextManager[None]:
    """See :meth:`Kit.crash_worker`."""
    return current().crash_worker(at)


def kafka_away() -> AbstractContextManager[None]:
    """See :meth:`Kit.kafka_away`."""
    return current().kafka_away()
