"""The outbox: one thread that publishes new submissions at once and expired leases again.

The thread runs in the processes of the API and in those of the workers, so a submission is published
whichever process dies. The loss of the queue in memory is harmless: the row records that its message is
unpublished, and after its lease a relay of any process publishes it.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from dramatiq.errors import BrokerConnectionError
from sqlalchemy import Connection

from broker import EnqueueFailed, KafkaBroker
from db import outbox as table
from db.errors import DatabaseUnavailable
from db.outbox import Unpublished
from submissions.message import message_of
from submissions.outage_log import OutageLog

logger = logging.getLogger(__name__)

#: Messages in one produce. More is not faster, and a claimed batch must be sent well within its lease.
BATCH = 500
#: A batch of this size shows that submissions keep arriving: the next batch then waits for more of them.
#: Every send has a fixed cost, and no client waits for it.
MANY = 16
BATCH_LINGER_S = 0.02
#: Submissions in the queue in memory. Further ones wait in PostgreSQL for the relay.
MAX_WAITING = 10_000
#: The time for a send to reach Kafka, and again for Kafka's acknowledgement. The broker's default of 30 s
#: outlasts the death of a node. The outbox does not need that: a relay repeats failed sends.
ENQUEUE_TIMEOUT_MS = 10_000
#: The part of a lease that a send needs: the time to reach Kafka, and some room. Later sends are left to the
#: relay.
LEASE_RESERVE_S = 12.0
PING_TIMEOUT_S = 2.0
#: The longest delay between Kafka's acknowledgement and its mark in PostgreSQL. One statement marks many
#: rows, and rows with a verdict need no mark. It is far shorter than a lease, after which a relay would send
#: them again.
MARK_INTERVAL_S = 1.0
#: This many unmarked submissions are marked without waiting for the interval.
MAX_UNMARKED = 1_000
#: After a send of which Kafka took nothing, the relay claims one row and no more, after a pause that doubles
#: up to this. Kafka may answer and refuse this process: its rights, clock or network differ from others'.
MAX_PAUSE_S = 30.0
STOP_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class PublishLease:
    """The relays leave a row to its inserter for ``duration_s`` from ``taken_at_s`` (time.monotonic)."""

    taken_at_s: float
    duration_s: float

    def allows_a_send(self) -> bool:
        return time.monotonic() < self.taken_at_s + self.duration_s - LEASE_RESERVE_S


class Outbox:
    """Sends the messages of submissions to Kafka and marks their rows as published. Thread-safe.

    Parameters:
      statements: Gives a connection on which PostgreSQL commits each statement by itself.
      lease_s: The time in which only the process that took a row sends it.
      interval_s: The time between two searches for expired leases.
      resubmit: Called before such a search, while Kafka takes messages; it may insert submissions.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        statements: Callable[[], AbstractContextManager[Connection]],
        *,
        lease_s: float,
        interval_s: float,
        resubmit: Callable[[], None] = lambda: None,
    ) -> None:
        self._resubmit = resubmit
        self._broker = broker
        self._statements = statements
        self._lease_s = lease_s
        self._interval_s = interval_s
        self._waiting: deque[tuple[Unpublished, PublishLease]] = deque()
        self._unmarked: list[Unpublished] = []  # Kafka has them; their rows are not marked yet
        self._mark_at_s = math.inf
        self._kafka = OutageLog("Kafka", logger)
        self._failed_sends = 0  # since Kafka took anything
        self._claim_at_s = -math.inf
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def lease(self) -> PublishLease:
        """Return the lease for rows about to be inserted.

        It is empty while Kafka is unreachable: the relay then sends the rows as soon as Kafka answers.
        """
        left_to_relay = self._is_running() and self._kafka.is_away
        return PublishLease(time.monotonic(), 0.0 if left_to_relay else self._lease_s)

    def publish(self, submissions: Sequence[Unpublished], lease: PublishLease) -> None:
        """Send the messages of rows that were inserted under ``lease``.

        A running outbox sends them in its thread, otherwise this call does. An unreachable Kafka raises
        nothing: the relay repeats failed sends.
        """
        if not self.hand_over(submissions, lease) and lease.allows_a_send():
            self._mark(self._send(submissions))

    def hand_over(self, submissions: Sequence[Unpublished], lease: PublishLease) -> bool:
        """Queue the submissions for the outbox's thread, without blocking.

        Returns:
          False when the thread does not run: the relay of another process then sends them after the lease.
        """
        if not self._is_running():
            return False
        if len(self._waiting) < MAX_WAITING:
            self._waiting.extend((submission, lease) for submission in submissions)
            self._wake.set()
        return True

    def start(self) -> None:
        """Start the thread. It connects to nothing while there is nothing to send."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send the queue in memory within :data:`STOP_TIMEOUT_S`, and end the thread."""
        if self._thread is None:
            return
        self._stopping.set()
        self._wake.set()
        self._thread.join(STOP_TIMEOUT_S)
        self._thread = None

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        next_look_s = time.monotonic()
        while True:
            self._wake.wait(max(0.0, min(next_look_s, self._mark_at_s) - time.monotonic()))
            self._wake.clear()
            try:
                self._send_waiting()
                if time.monotonic() >= self._mark_at_s or self._stopping.is_set():
                    self._mark_all()
                if time.monotonic() >= next_look_s and not self._stopping.is_set():
                    more = self._relay()
                    next_look_s = time.monotonic() + (0.0 if more else self._interval_s)
            except Exception:  # any error: without this thread nothing would be published
                logger.exception("The outbox failed; it continues in %.0f s", self._interval_s)
                next_look_s = time.monotonic() + self._interval_s
            if self._stopping.is_set() and not self._waiting:
                return

    def _send_waiting(self) -> None:
        """Send the queue in memory, in batches. While Kafka is unreachable, leave it to the relay."""
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            sendable = [submission for submission, lease in taken if lease.allows_a_send()]
            if sendable and not self._kafka.is_away:
                self._mark_soon(self._send_or_release(sendable))
                if len(sendable) >= MANY and len(self._waiting) < BATCH:
                    self._stopping.wait(BATCH_LINGER_S)

    def _relay(self) -> bool:
        """Send a batch of rows with an expired lease; return whether there may be more.

        Other processes wait for the rows that this one claims. So it claims many only if its last send
        succeeded.
        """
        if time.monotonic() < self._claim_at_s or not self._kafka_answers():
            return False
        limit = 1 if self._failed_sends else BATCH
        if not self._failed_sends:
            self._resubmit()
        try:
            with self._statements() as connection:
                due = table.claim_due(connection, limit=limit, lease_s=self._lease_s)
        except DatabaseUnavailable:  # Database has logged it
            return False
        if due:
            self._mark_soon(self._send_or_release(due))
        return len(due) == limit and not self._failed_sends

    def _kafka_answers(self) -> bool:
        """Return whether Kafka can be used; ping it if it was unreachable.

        A claim that cannot be sent would only delay its rows.
        """
        if self._kafka.is_away:
            try:
                self._broker.ping(timeout_s=PING_TIMEOUT_S)
            except BrokerConnectionError:
                return False
            self._kafka.came_back()
        return True

    def _send_or_release(self, submissions: Sequence[Unpublished]) -> list[Unpublished]:
        """Send the messages; end the leases of those that Kafka did not acknowledge, for other relays."""
        published: list[Unpublished] = []
        try:
            published = self._send(submissions)
        finally:
            if published:
                self._failed_sends, self._claim_at_s = 0, -math.inf
            else:
                pause_s = min(self._interval_s * 2**self._failed_sends, MAX_PAUSE_S)
                self._failed_sends = min(self._failed_sends + 1, 10)
                self._claim_at_s = time.monotonic() + pause_s
            sent = {one.message_id for one in published}
            if unsent := [one for one in submissions if one.message_id not in sent]:
                self._release(unsent)
        return published

    def _release(self, unsent: Sequence[Unpublished]) -> None:
        try:
            with self._statements() as connection:
                table.release(connection, unsent)
        except DatabaseUnavailable as error:  # Database has logged it
            logger.debug("%d leases last until they expire: %s", len(unsent), error)

    def _send(self, submissions: Sequence[Unpublished]) -> list[Unpublished]:
        """Send the messages; return the submissions that Kafka acknowledged."""
        try:
            self._broker.enqueue_many([message_of(submission) for submission in submissions])
        except BrokerConnectionError as error:
            failures = error.failures if isinstance(error, EnqueueFailed) else None
            published = [
                one for one in submissions if failures is not None and one.message_id not in failures
            ]
            if published:
                logger.warning("Some submissions wait for the relay: %s", error)
            else:
                self._kafka.went_away(f"{error} Submissions are accepted and wait.")
            return published
        self._kafka.came_back()
        return list(submissions)

    def _mark_soon(self, published: Sequence[Unpublished]) -> None:
        """Mark the rows as published within :data:`MARK_INTERVAL_S`."""
        if published and not self._unmarked:
            self._mark_at_s = time.monotonic() + MARK_INTERVAL_S
        self._unmarked += published
        if len(self._unmarked) >= MAX_UNMARKED:
            self._mark_all()

    def _mark_all(self) -> None:
        # Forget the list first: rows that can never be marked must not stop the thread.
        published, self._unmarked, self._mark_at_s = self._unmarked, [], math.inf
        if published and not self._mark(published):
            self._unmarked, self._mark_at_s = published, time.monotonic() + MARK_INTERVAL_S

    def _mark(self, published: Sequence[Unpublished]) -> bool:
        """Mark the rows as published; return whether that succeeded.

        An unmarked row may be sent again, which is harmless: a second delivery changes nothing.
        """
        try:
            with self._statements() as connection:
                table.mark_published(connection, published)
        except DatabaseUnavailable:  # Database has logged it
            return False
        return True
