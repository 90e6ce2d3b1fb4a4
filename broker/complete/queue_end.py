"""The end of a queue's partition at this moment, as its leader knows it."""

from __future__ import annotations

import threading

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.protocol import ConsumerClient
from ..kafka.rights import reading
from ..kafka.types import TopicPartition
from ..process.forks import reset_on_fork

REQUEST_TIMEOUT_MS = 5_000


class QueueEnd:
    """Asks for the ends of partitions. It connects with the first use. Thread-safe; one request at a time."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Connect at the next use: the client belongs to the parent."""
        self._lock = threading.Lock()
        self._kafka: ConsumerClient | None = None

    def read(self, partition: TopicPartition) -> int:
        """The offset after the last record, records of open transactions included.

        Raises:
          KafkaUnavailable, NotAuthorized: Without an answer.
        """
        with self._lock:
            try:
                if self._kafka is None:
                    self._kafka = self._clients.consumer(request_timeout_ms=REQUEST_TIMEOUT_MS)
                return self._kafka.end_offsets([partition], timeout_ms=REQUEST_TIMEOUT_MS)[partition]
            except KafkaError as e:
                doing = f"The end of {partition.topic}[{partition.partition}] could not be read"
                raise self._clients.translated(e, doing, reading(partition.topic)) from e

    def close(self) -> None:
        """Close the connection. The next use connects again."""
        with self._lock:
            kafka, self._kafka = self._kafka, None
        if kafka is not None:
            kafka.close(autocommit=False, timeout_ms=0)
