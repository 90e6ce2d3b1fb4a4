"""The base of the methods for operators."""

from __future__ import annotations

from collections.abc import Sequence

from dramatiq.errors import QueueNotFound

from ..declared_queues import DeclaredQueues
from ..parameters import (
    check_names,
)
from ..parts import Parts


class OperatorBase:
    """The parts of a broker, and the checks of names."""

    parts: Parts
    queues: DeclaredQueues

    def _check_known(self, names: Sequence[str]) -> None:
        """Raise unless each queue is declared here, or has a topic."""
        for name in names:
            check_names(queue_name=name)
            if name not in self.queues:
                self.parts.topics.check_queue_name(name)
        if self.queues.keys() >= set(names):
            return
        known = self.parts.topics.queue_names({*self.queues, *names})
        for name in names:
            if name not in known and name not in self.queues:
                there = ", ".join(sorted({*known, *self.queues})) or "none yet"
                raise QueueNotFound(f"No queue {name!r} is known; the queues of the namespace: {there}.")

    def _check_declared(self, queue_name: str) -> None:
        check_names(queue_name=queue_name)
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
