"""The thread that puts delayed messages into their queues when they are due."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..errors import NotAuthorized
from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.rights import is_denial, reading
from ..kafka.topics import Topics
from .forwarding import Forwarding
from .index_files import IndexFiles
from .index_store import IndexDamaged, IndexInUse, IndexUnusable, discard
from .owned_partitions import OwnedPartition, OwnedPartitions, group_of

logger = logging.getLogger(__name__)

#: How long the thread sleeps at most: how soon it notices that it is to stop.
MAX_WAIT_MS = 200
#: Between attempts while Kafka is away or an index cannot be used, doubling from the first to the second.
MIN_BACKOFF_S = 0.25
MAX_BACKOFF_S = 5.0
CLOSE_TIMEOUT_MS = 2_000


class Forwarder:
    """Forwards what is due in the partitions that this process is given, until it is stopped.

    Forward is: produce to the queue, note that, produce the tombstone. A crash in between makes the next
    owner do it again, with the same message id; nothing else does, but for a send whose acknowledgement is
    lost together with its producer. Nothing that goes wrong here ends the thread or the process.

    Parameters:
      settings: What else kafka-python's consumer is given, such as ``session_timeout_ms``.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        forwarding: Forwarding,
        files: IndexFiles,
        settings: Mapping[str, Any],
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._rights = reading(topics.delayed, group=group_of(topics))
        self._files = files
        self._settings = dict(settings)
        self._forwarding = forwarding
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delay-forwarder", daemon=True)
        self._trouble: str | None = None
        self._backoff_s = MIN_BACKOFF_S
        self._rest_until_s = 0.0

    def start(self) -> None:
        """Start the thread. Kafka need not be there yet."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the page at hand, and leave the group.

        It takes long only while Kafka does not answer; past ``timeout_s`` the thread is left to end by
        itself.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs. It ends only after it was told to stop."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._own_partitions()
            except (KafkaError, BrokerConnectionError, IndexUnusable, IndexInUse) as e:
                self._rest(e)
            except IndexDamaged as e:
                logger.warning("%s", e)
                discard(e.path)
            except Exception as e:
                # Whatever it is, delayed messages must get another chance, and it must not go unseen.
                logger.exception("The forwarder of delayed messages failed; it starts again.")
                self._rest(e)
            self._stop.wait(max(0.0, self._rest_until_s - time.monotonic()))

    def _own_partitions(self) -> None:
        partitions = OwnedPartitions(
            self._clients,
            self._topics,
            self._forwarding.publisher,
            self._files,
            self._settings,
            unless=self._stop,
        )
        try:
            while not self._stop.is_set():
                self._step(partitions)
        finally:
            partitions.close(CLOSE_TIMEOUT_MS)

    def _step(self, partitions: OwnedPartitions) -> None:
        partitions.poll(self._wait_ms(partitions.ready), _now_ms())
        if time.monotonic() < self._rest_until_s:
            return
        failure = self._forwarding.step(partitions.ready, _now_ms())
        if failure is not None:
            self._rest(failure)
        elif self._trouble is not None and (partitions.ready or self._trouble != NotAuthorized.__name__):
            logger.info("Delayed messages are forwarded again.")
            self._trouble = None
            self._backoff_s = MIN_BACKOFF_S

    def _wait_ms(self, ready: Sequence[OwnedPartition]) -> float:
        """How long there is nothing to do but to read."""
        if (rest_s := self._rest_until_s - time.monotonic()) > 0:
            return min(MAX_WAIT_MS, rest_s * 1000)
        if any(owned.index.to_settle(1) for owned in ready):
            return 0.0
        now_ms, now_s = _now_ms(), time.monotonic()
        waits_s = [w for owned in ready if (w := owned.index.seconds_until_due(now_ms, now_s)) is not None]
        return min(MAX_WAIT_MS, 1000 * min(waits_s, default=MAX_WAIT_MS))

    def _rest(self, reason: BaseException) -> None:
        """Leave off for a while, and say so when that is news."""
        if self._stop.is_set():
            return
        if isinstance(reason, KafkaError) and is_denial(reason):
            reason = self._clients.translated(reason, "The delayed messages cannot be followed", self._rights)
        kind = type(reason).__name__
        if self._trouble != kind:
            logger.log(
                logging.ERROR if isinstance(reason, NotAuthorized) else logging.WARNING,
                "Delayed messages cannot be forwarded for now; trying on: %s",
                reason or repr(reason),
            )
            self._trouble = kind
        self._rest_until_s = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
