"""kafka-python's producer behind the broker's ``ProducerClient``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

from kafka import KafkaProducer

from . import internals
from .errors import IllegalStateError, KafkaError
from .producer_errors import ProducerErrors
from .protocol import SendFuture
from .types import TopicPartition


class Producer(KafkaProducer):  # type: ignore[misc]
    """A producer that works until the process ends, and that only its owner closes.

    kafka-python closes its producers in an ``atexit`` handler, so later handlers could send nothing. That is
    unnecessary here, because each caller waits for its responses. kafka-python also closes a producer that is
    garbage-collected. In the child of a fork that would be the parent's producer, and at the end of the
    interpreter the call would wait for a thread that never runs again.

    See ``protocol.ProducerClient`` for its methods.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        internals.keep_beyond_atexit(self)
        self._owner_pid = os.getpid()
        self._errors = ProducerErrors()
        internals.watch_batch_errors(self, self._errors.note)

    def __del__(self) -> None:
        if not sys.is_finalizing() and getattr(self, "_owner_pid", None) == os.getpid():
            super().__del__()

    def partition_of(self, future: SendFuture) -> TopicPartition:
        return internals.partition_of(future)

    def last_error(self, partition: TopicPartition, *, since_s: float) -> BaseException | None:
        return self._errors.since(since_s, partition)

    def known_partitions(self, topic: str) -> set[int] | None:
        return internals.known_partitions(self, topic)

    def leader_epoch(self, partition: TopicPartition) -> int | None:
        return internals.producer_leader_epoch(self, partition)

    def wait_for_topic(self, topic: str, timeout_ms: float) -> None:
        with _open():
            internals.wait_for_topic(self, topic, timeout_ms)

    def refresh_metadata(self, *, timeout_s: float) -> None:
        answered = Event()
        with _open():
            internals.request_producer_metadata(self, lambda _: answered.set())
        answered.wait(timeout_s)

    def force_close(self) -> None:
        internals.force_close(self)


@contextmanager
def _open() -> Iterator[None]:
    """Raise IllegalStateError, as send() does, when another thread has closed the producer meanwhile."""
    try:
        yield
    except RuntimeError as e:  # of kafka-python's network, which is closed; KafkaError is a RuntimeError, too
        if isinstance(e, KafkaError):
            raise
        raise IllegalStateError(f"The producer was closed meanwhile: {e}") from e
