"""A broker that has never known another Kafka than one in memory."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ..broker import KafkaBroker
from .clock import ManualClock
from .kit import Kit
from .memory.cluster import MemoryCluster


class MemoryBroker(KafkaBroker):
    """A :class:`KafkaBroker` on a Kafka in memory, until :meth:`close`.

    It connects to nothing. While it is open, the process goes by its clock.

    Parameters:
      cluster: The cluster, to share one between brokers; a new one by default.
      clock: The clock; by default one that only tests move.
      options: The options of :class:`KafkaBroker`.

    Attributes:
      kit: Runs the messages, moves the time and makes assertions.
    """

    def __init__(
        self, *, cluster: MemoryCluster | None = None, clock: ManualClock | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.kit = Kit(self, cluster, clock)
        self._use = ExitStack()
        self._use.enter_context(self.kit.use())

    def close(self) -> None:
        self._use.close()
        super().close()
