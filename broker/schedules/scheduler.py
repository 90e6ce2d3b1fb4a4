"""The thread that enqueues the occurrences of schedules when they are due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Mapping
from typing import Any

from dramatiq.errors import BrokerConnectionError

from ..kafka.clients import Clients
from ..kafka.errors import KafkaError
from ..kafka.failure_log import FailureLog
from ..kafka.rights import reading
from ..kafka.topics import Topics
from ..process import clock
from ..process.backoff import Backoff
from ..produce.publisher import Publisher
from ..reaper.registrar import MembershipSlot
from .book import Book
from .firing import AHEAD_MS, Firings, LeaseOver
from .owner import Ownership, TopicReplaced, group_of

logger = logging.getLogger(__name__)

#: The longest sleep of the thread, and so the time in which it notices a stop.
MAX_WAIT_MS = 200
#: The first and the longest pause between attempts while Kafka is unreachable.
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 5.0
CLOSE_TIMEOUT_MS = 2_000


class Scheduler:
    """Writes the schedules that code declares, and enqueues due occurrences while this process is the owner.

    No error ends the thread or the process.

    Parameters:
      settings: Further settings of kafka-python's consumer, such as ``session_timeout_ms``.
      declare: Writes the declared schedules that the topic does not have.
      note_read: Called with the schedules when this process has become their owner.
      slot: Takes the membership in the group of owners.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        publisher: Publisher,
        firings: Firings,
        settings: Mapping[str, Any],
        *,
        declare: Callable[[], None],
        note_read: Callable[[Book], None],
        slot: MembershipSlot | None = None,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._publisher = publisher
        self._firings = firings
        self._settings = settings
        self._declare = declare
        self._note_read = note_read
        self._book: Book | None = None
        self._slot = slot
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dramatiq-kafka-scheduler", daemon=True)
        self._ownership: Ownership | None = None
        self._is_declared = False
        self._failures = FailureLog(
            clients,
            reading(topics.schedules, group=group_of(topics)),
            logger,
            activity="The schedules cannot be read",
            failing="Schedules cannot be enqueued at the moment; the scheduler tries again: %s",
            works="Schedules are enqueued again.",
        )
        self._backoff = Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S)

    def start(self) -> None:
        """Start the thread. Kafka need not be reachable yet."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop after the current page, and leave the group. The call waits for ``timeout_s`` at most."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def heartbeat_soon(self, groups: Container[str]) -> None:
        """Send a heartbeat now if the group of owners is one of ``groups``: it rebalances. Any thread may
        call this.
        """
        ownership = self._ownership
        if ownership is not None and group_of(self._topics) in groups:
            ownership.heartbeat_soon()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()
            if self._ownership is None:
                self._stop.wait(self._backoff.remaining_s)
        self.close()

    def step(self, max_wait_ms: float = MAX_WAIT_MS) -> None:
        """Read, and enqueue a page of due occurrences, on the calling thread.

        Parameters:
          max_wait_ms: The longest wait for a record.
        """
        if self._ownership is None and not self._backoff.is_over:
            return
        try:
            if not self._is_declared:
                self._declare()
                self._is_declared = True
            if self._ownership is None:
                self._ownership = Ownership(
                    self._clients,
                    self._topics,
                    self._publisher,
                    self._settings,
                    slot=self._slot,
                    unless=self._stop,
                )
            self._step(self._ownership, max_wait_ms)
        except (KafkaError, BrokerConnectionError, LeaseOver, TopicReplaced) as e:
            self.close()
            self._back_off(e)
        except Exception as e:
            # An unforeseen error must neither end the thread nor be hidden.
            self.close()
            logger.exception("The scheduler failed; it restarts.")
            self._back_off(e)

    def close(self) -> None:
        """Leave the group. The next :meth:`step` joins it again."""
        ownership, self._ownership, self._book = self._ownership, None, None
        self._firings.close()
        if ownership is not None:
            ownership.close(CLOSE_TIMEOUT_MS)

    def _step(self, ownership: Ownership, max_wait_ms: float) -> None:
        ownership.poll(self._wait_ms(ownership, max_wait_ms))
        if (book := ownership.book) is None:
            return
        if book is not self._book:
            self._book = book
            self._note_read(book)
        failure = self._firings.step(book, ownership.id, lambda: ownership.book is book)
        self._firings.make_ahead(book)
        if failure is not None:
            self._failures.note(failure)
            return
        self._failures.note_rights()
        self._failures.note_success()
        self._backoff.reset()

    def _wait_ms(self, ownership: Ownership, max_wait_ms: float) -> float:
        """The time until there is work other than reading."""
        if (book := ownership.book) is None:
            return max_wait_ms
        waits_ms = [max_wait_ms]
        if (due_ms := book.next_due_ms) is not None:
            left_ms = due_ms - clock.wall_ms()
            # Once to make the messages, and once to send them.
            waits_ms.append(left_ms - AHEAD_MS if left_ms > AHEAD_MS else left_ms)
        if (attempt_s := self._firings.next_attempt_s(book)) is not None:
            waits_ms.append(1000 * attempt_s)
        return max(0.0, min(waits_ms))

    def _back_off(self, reason: BaseException) -> None:
        if not self._stop.is_set():
            self._failures.note(reason)
            self._backoff.fail()
