"""The thread that moves delayed messages into their queues when they are due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Mapping, Sequence
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..errors import NotAuthorized
from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.failure_log import FailureLog
from ..kafka.rights import reading
from ..kafka.topics import Topics
from ..process import clock
from ..process.backoff import Backoff
from ..process.sqlite_cache import CacheDamaged, CacheInUse, CacheUnusable, discard
from ..reaper.registrar import MembershipSlot
from .forwarding import Forwarding
from .index_files import IndexFiles
from .owned_partition import OwnedPartition
from .owned_partitions import OwnedPartitions, group_of

logger = logging.getLogger(__name__)

#: The longest sleep of the thread, and so the time in which it notices a stop.
MAX_WAIT_MS = 200
#: The first and the longest pause between attempts while Kafka is unreachable or an index is unusable.
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 5.0
CLOSE_TIMEOUT_MS = 2_000


class Forwarder:
    """Forwards due messages of the partitions that this process owns, until it is stopped.

    A forward has three steps: produce the message to its queue, note that in the index, produce the
    tombstone. After a crash in between, the next owner forwards the message again, with the same message id.
    The only other cause of a duplicate is a send whose acknowledgement is lost together with its producer.
    No error ends the thread or the process.

    Parameters:
      settings: Further settings of kafka-python's consumer, such as ``session_timeout_ms``.
      slot: Takes the membership in the group of forwarders.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        forwarding: Forwarding,
        files: IndexFiles,
        settings: Mapping[str, Any],
        slot: MembershipSlot | None = None,
    ) -> None:
        self._slot = slot
        self._clients = clients
        self._topics = topics
        self._files = files
        self._settings = dict(settings)
        self._forwarding = forwarding
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delay-forwarder", daemon=True)
        self._partitions: OwnedPartitions | None = None
        self._failures = FailureLog(
            clients,
            reading(topics.delayed, group=group_of(topics)),
            logger,
            activity="The delayed topic cannot be read",
            failing="Delayed messages cannot be forwarded at the moment; the forwarder tries again: %s",
            works="Delayed messages are forwarded again.",
        )
        self._backoff = Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S)

    def start(self) -> None:
        """Start the thread. Kafka need not be reachable yet."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the current page, and leave the group.

        Only an unreachable Kafka makes this slow. After ``timeout_s`` the call returns and the thread ends by
        itself.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def heartbeat_soon(self, groups: Container[str]) -> None:
        """Send a heartbeat now if the group of forwarders is one of ``groups``: it rebalances. Any thread may
        call this.
        """
        partitions = self._partitions
        if partitions is not None and group_of(self._topics) in groups:
            partitions.heartbeat_soon()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs. It ends only after :meth:`stop`."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()
            if self._partitions is None:
                self._stop.wait(self._backoff.remaining_s)
        self.close()

    def step(self, max_wait_ms: float = MAX_WAIT_MS) -> None:
        """Read, and forward a page of due messages, on the calling thread.

        Parameters:
          max_wait_ms: The longest wait for a record.
        """
        try:
            if self._partitions is None:
                self._partitions = self._own_partitions()
            self._step(self._partitions, max_wait_ms)
        except (KafkaError, BrokerConnectionError, CacheUnusable, CacheInUse) as e:
            self.close()
            self._back_off(e)
        except CacheDamaged as e:
            self.close()
            logger.warning("%s", e)
            discard(e.path)
        except Exception as e:
            # An unforeseen error must neither stop the forwarding of messages nor be hidden.
            self.close()
            logger.exception("The forwarder of delayed messages failed; it restarts.")
            self._back_off(e)

    def close(self) -> None:
        """Leave the group. The next :meth:`step` joins it again."""
        partitions, self._partitions = self._partitions, None
        if partitions is not None:
            partitions.close(CLOSE_TIMEOUT_MS)

    def _own_partitions(self) -> OwnedPartitions:
        return OwnedPartitions(
            self._clients,
            self._topics,
            self._forwarding.publisher,
            self._files,
            self._settings,
            slot=self._slot,
            unless=self._stop,
        )

    def _step(self, partitions: OwnedPartitions, max_wait_ms: float) -> None:
        partitions.poll(self._wait_ms(partitions.ready, max_wait_ms), clock.wall_ms())
        if not self._backoff.is_over:
            return
        failure = self._forwarding.step(partitions.ready, clock.wall_ms())
        if isinstance(failure, NotAuthorized):
            self._backoff.fail()  # it was logged where the topic is known
        elif failure is not None:
            self._back_off(failure)
        elif partitions.ready:
            self._failures.note_rights()
            # Until every partition is ready, a failure may recur: the index that failed may be read last.
            if partitions.all_ready:
                self._failures.note_success()
                self._backoff.reset()

    def _wait_ms(self, ready: Sequence[OwnedPartition], max_wait_ms: float) -> float:
        """The time until there is work other than reading."""
        if (pause_s := self._backoff.remaining_s) > 0:
            return min(max_wait_ms, pause_s * 1000)
        if any(owned.index.pending_tombstones(1) for owned in ready):
            return 0.0
        now_ms, now_s = clock.wall_ms(), clock.monotonic_s()
        waits_s = [w for owned in ready if (w := owned.index.seconds_until_due(now_ms, now_s)) is not None]
        return min([max_wait_ms, *(1000 * wait_s for wait_s in waits_s)])

    def _back_off(self, reason: BaseException) -> None:
        """Pause after a failure."""
        if not self._stop.is_set():
            self._failures.note(reason)
            self._backoff.fail()
