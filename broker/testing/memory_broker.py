"""A broker that has never known another Kafka than one in memory."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from dramatiq.message import Message

from ..broker import KafkaBroker
from ..consume.consumer import QueueConsumer
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
        self._is_open = True
        self._use = ExitStack()
        self._use.enter_context(self.kit.use())

    def enqueue_many(
        self, messages: Iterable[Message[Any]], *, delay: int | None = None
    ) -> list[Message[Any]]:
        """See ``KafkaBroker.enqueue_many``.

        Raises:
          RuntimeError: After :meth:`close`: nothing is to reach a Kafka that is none of the tests'.
        """
        self._check_open()
        return super().enqueue_many(messages, delay=delay)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> QueueConsumer:
        self._check_open()
        return super().consume(queue_name, prefetch, timeout)

    def _check_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("this MemoryBroker is closed, and so is its Kafka")

    def close(self) -> None:
        self._use.close()
        super().close()
        self._is_open = False
