"""The producer of this process, which is replaced after a failure."""

from __future__ import annotations

import threading
from functools import partial

from ..kafka.clients import Clients
from ..kafka.errors import IllegalStateError, KafkaTimeoutError
from ..kafka.partitioner import StickyBatchPartitioner
from ..kafka.protocol import ProducerClient
from ..kafka.single_flight import SingleFlight
from ..kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from ..process import clock, forks
from ..process.threads import start_unwaited
from .send_batching import current_batch

#: The minimum time for a producer to connect, even shortly before a deadline.
MIN_CONNECT_S = 0.1

#: The bounds of a request's timeout, which is a third of the whole time. A frozen node keeps its connections;
#: the new leader gets a request only after this timeout.
MIN_ANSWER_MS = 5_000
MAX_ANSWER_MS = 30_000

#: The time for a producer without records in flight to close.
CLOSE_TIMEOUT_S = 1.0


class DisposableProducer:
    """Holds the current producer of all threads, and constructs the first one and each replacement.

    kafka-python's idempotent producer never recovers from an outage longer than its delivery timeout. So a
    producer with a failure is retired, and the next call that needs one constructs it.

    Parameters:
      timeout_ms: The delivery timeout of a producer.
      linger_ms: The time for which a producer waits for more records to share a request; 0 sends at once.
    """

    def __init__(self, clients: Clients, *, timeout_ms: int, linger_ms: int) -> None:
        self._clients = clients
        self._timeout_ms = timeout_ms
        self._linger_ms = linger_ms
        self._answer_ms = min(max(min(timeout_ms, MIN_ANSWER_MS), timeout_ms // 3), MAX_ANSWER_MS)
        self._connecting = SingleFlight()
        self.reset_after_fork()
        forks.reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Drop the producer, which belongs to the parent."""
        self._lock = threading.Lock()
        self._producer: ProducerClient | None = None

    def current(self, deadline_s: float) -> ProducerClient:
        """The current producer, or a new one that all threads share.

        Raises:
          KafkaUnavailable: When no producer connects by ``deadline_s`` (of ``clock.monotonic_s()``).
        """
        return self._held() or self._connecting.run(lambda: self._renew(deadline_s), deadline_s=deadline_s)

    def construct(self, deadline_s: float) -> ProducerClient:
        """Construct a producer for the caller alone, who closes it.

        Raises:
          KafkaUnavailable: When it does not connect by ``deadline_s``.
        """
        return self._clients.producer(
            within_s=max(MIN_CONNECT_S, deadline_s - clock.monotonic_s()),
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            delivery_timeout_ms=self._timeout_ms,
            request_timeout_ms=self._answer_ms,
            max_block_ms=self._timeout_ms,
            max_request_size=MAX_DEAD_LETTER_BYTES,
            linger_ms=self._linger_ms,
            partitioner=StickyBatchPartitioner(current_batch),
        )

    def retire(self, producer: ProducerClient) -> None:
        """Let the next call construct another producer than ``producer``."""
        with self._lock:
            if self._producer is not producer:
                return  # another thread saw the same failure first
            self._producer = None
        # Other threads may still wait for its futures, so it is closed in the background after their timeout.
        close = partial(close_producer, producer, timeout_s=self._timeout_ms / 1000)
        start_unwaited(close, name="dramatiq-kafka-retired-producer")

    def retire_current(self) -> None:
        """Retire the current producer, if there is one."""
        if (producer := self._held()) is not None:
            self.retire(producer)

    def close(self) -> None:
        """Close the current producer, which has no records in flight."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)

    def _held(self) -> ProducerClient | None:
        with self._lock:
            return self._producer

    def _renew(self, deadline_s: float) -> ProducerClient:
        if (producer := self._held()) is not None:
            return producer
        producer = self.construct(deadline_s)
        with self._lock:
            self._producer = producer
        return producer


def close_producer(producer: ProducerClient, *, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
    """Close ``producer``, with its thread and sockets, also when some records cannot be sent."""
    try:
        producer.close(timeout=timeout_s)
    except (KafkaTimeoutError, IllegalStateError):
        # kafka-python leaves a producer that cannot flush open, with its thread and sockets. All its callers
        # have returned.
        producer.force_close()
