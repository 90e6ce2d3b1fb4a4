"""Makes clients of a cluster in memory, in the place of kafka-python's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import KafkaUnavailable
from ...kafka.clients import Clients
from ...kafka.protocol import AdminClient, ConsumerClient, ProducerClient
from ...process import clock
from .admin import MemoryAdmin
from .cluster import MemoryCluster, MemoryProcess
from .consumer import MemoryConsumer
from .faults import Request
from .producer import MemoryProducer

ADDRESS = "memory:9092"


class MemoryClients(Clients):
    """The clients of one process; see ``Clients``.

    Parameters:
      process: The process that they belong to; a new one by default.
    """

    def __init__(
        self,
        cluster: MemoryCluster,
        options: Mapping[str, Any] | None = None,
        *,
        process: MemoryProcess | None = None,
    ) -> None:
        super().__init__(ADDRESS, options)
        self.cluster = cluster
        self.process = process or MemoryProcess()

    def producer(self, *, within_s: float | None = None, **settings: Any) -> ProducerClient:
        return MemoryProducer(self.cluster, self.process, **self._reach(MemoryProducer, settings, within_s))

    def consumer(self, *, topics: Iterable[str] = (), **settings: Any) -> ConsumerClient:
        return MemoryConsumer(self.cluster, self.process, **self._reach(MemoryConsumer, settings))

    @contextmanager
    def admin(self, *, within_s: float | None = None, **settings: Any) -> Iterator[AdminClient]:
        yield MemoryAdmin(self.cluster, self.process, **self._reach(MemoryAdmin, settings, within_s))

    def _reach(self, kind: Any, settings: dict[str, Any], within_s: float | None = None) -> dict[str, Any]:
        """The settings of a client that has found the cluster.

        Raises:
          KafkaUnavailable: When the cluster is not reached in time.
        """
        timeouts = self._timeouts(kind, settings, within_s)
        timeout_s = timeouts["bootstrap_timeout_ms"] / 1000
        self.process.check()
        if not clock.wait(self.cluster.reachable, timeout_s):
            raise KafkaUnavailable(f"No Kafka server answered at {ADDRESS} within {timeout_s:g} s")
        self.cluster.request(self.process, Request.CONNECT, lambda: None, timeout_s=timeout_s)
        return {**settings, **timeouts}
