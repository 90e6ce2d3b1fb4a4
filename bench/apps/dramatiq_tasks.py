"""The tasks as Dramatiq actors."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import dramatiq
from dramatiq.actor import Actor
from dramatiq.broker import Broker, set_broker

from bench.work import TASKS


class DramatiqApp:
    """The tasks on one broker.

    Parameters:
      queue_name: The queue of all of them.
    """

    def __init__(self, broker: Broker, *, queue_name: str) -> None:
        set_broker(broker)
        self.broker = broker
        self.actors: dict[str, Actor[Any, Any]] = {
            name: dramatiq.actor(actor_name=name, queue_name=queue_name, broker=broker)(task)
            for name, task in TASKS.items()
        }

    def send(self, task: str, args: tuple[Any, ...]) -> None:
        self.actors[task].send(*args)

    def send_many(self, task: str, many_args: Iterable[tuple[Any, ...]]) -> None:
        """One by one: Dramatiq's brokers have no other way."""
        for args in many_args:
            self.actors[task].send(*args)

    def send_delayed(self, task: str, due_s: Iterable[float]) -> None:
        """One message for each time on the monotonic clock, which it also gets as its argument."""
        for due in due_s:
            delay_ms = max(0, round((due - time.monotonic()) * 1000))
            self.actors[task].send_with_options(args=(due,), delay=delay_ms)

    def send_due(self, task: str, due_s: Mapping[tuple[Any, ...], float]) -> None:
        """One message for each tuple of arguments, due at its time on the monotonic clock."""
        for args, due in due_s.items():
            delay_ms = max(0, round((due - time.monotonic()) * 1000))
            self.actors[task].send_with_options(args=args, delay=delay_ms)

    def close(self) -> None:
        self.broker.close()
