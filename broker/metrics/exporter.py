"""The exporter: one thread reads the state, and the threads of a server answer scrapes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server

from .. import KafkaBroker
from ..process import clock
from .collector import StateCollector
from .state import State

#: The time for which the end waits for a read.
END_TIMEOUT_S = 1.0


class Exporter:
    """Exports the metrics of a broker's namespace.

    Attributes:
      registry: The registry with the metrics, and with those of this process (``process_...``).
    """

    def __init__(self, broker: KafkaBroker) -> None:
        self._state = State(broker)
        self._collector = StateCollector(self._state)
        self._collector.refresh()
        self.registry = CollectorRegistry()
        self.registry.register(self._collector)
        ProcessCollector(registry=self.registry)

    @property
    def is_up(self) -> bool:
        """Whether the last reads of all sources have succeeded."""
        return all(source.is_up for source in self._state.sources.values())

    @property
    def is_denied(self) -> bool:
        """Whether a right was missing at one of the last reads."""
        return any(source.is_denied for source in self._state.sources.values())

    def refresh(self) -> None:
        """Read the state from Kafka. It waits for Kafka's answers, and raises no error of Kafka."""
        self._state.refresh()
        self._collector.refresh()

    def text(self) -> str:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def serve(
        self,
        host: str,
        port: int,
        *,
        interval_s: float,
        stop: threading.Event,
        on_open: Callable[[int], object] = lambda port: None,
    ) -> None:
        """Serve the metrics, and refresh them at an interval, until ``stop`` is set.

        Parameters:
          port: The port; 0 for a free one.
          on_open: Called with the port when it is open.

        Raises:
          OSError: When the port cannot be opened.
        """
        server, thread = start_http_server(port, addr=host, registry=self.registry)
        try:
            on_open(server.server_port)
            # A read waits for a Kafka that does not answer, and the end of the process must not.
            reader = threading.Thread(
                target=self._keep_reading, args=(interval_s, stop), name="metrics-reader", daemon=True
            )
            reader.start()
            while not stop.is_set():
                clock.wait(stop, interval_s)
            reader.join(END_TIMEOUT_S)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _keep_reading(self, interval_s: float, stop: threading.Event) -> None:
        while not stop.is_set():
            self.refresh()
            clock.wait(stop, interval_s)
