"""Publishing submissions: those just handed in at once, and those whose lease ran out again.

One thread does both, in the API's processes and in the workers', so that a submission is published whoever
dies. Losing what waits in memory here is harmless: the row knows that it is unpublished, and when its lease
has run out a relay takes it, this one or another.
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
from tasks.availability import Availability
from tasks.message import message_of

logger = logging.getLogger(__name__)

#: Messages in one produce. More is not faster, and a claimed batch must be sent well within its lease.
BATCH = 500
#: Where so many were sent at once, submissions are coming in: the next batch gathers for a moment. Every send
#: has its price, whatever its size, and nobody waits for it: the replies are out.
MANY = 16
BATCH_LINGER_S = 0.02
#: Submissions that wait in memory to be sent; beyond this they wait in PostgreSQL for the relay.
MAX_WAITING = 10_000
#: How long a send may take to reach Kafka, and then Kafka to acknowledge. The broker's own 30 s, which
#: outlast the death of a node, are not needed here: a relay sends again what failed.
ENQUEUE_TIMEOUT_MS = 10_000
#: A send that could outlast its lease is left to the relay: the time to reach Kafka, and some room.
LEASE_RESERVE_S = 12.0
PING_TIMEOUT_S = 2.0
#: How long PostgreSQL may not know what Kafka has: many are noted at once, and of those that have a verdict
#: by then nothing needs to be noted. Far less than a lease, for a relay would send them again.
MARK_INTERVAL_S = 1.0
#: Unless so many have gathered.
MARK_AT_ONCE = 1_000
STOP_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Lease:
    """For ``duration_s`` from ``taken_at_s`` (time.monotonic) on, the relays leave a row to its inserter."""

    taken_at_s: float
    duration_s: float

    def allows_a_send(self) -> bool:
        return time.monotonic() < self.taken_at_s + self.duration_s - LEASE_RESERVE_S


class Outbox:
    """Sends submissions' messages to Kafka and notes in PostgreSQL that Kafka has them. Thread-safe.

    Parameters:
      database: gives a connection on which each statement is committed by itself.
      lease_s: how long a row stays with whoever is sending it.
      interval_s: between two looks for rows whose lease ran out.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        database: Callable[[], AbstractContextManager[Connection]],
        *,
        lease_s: float,
        interval_s: float,
    ) -> None:
        self._broker = broker
        self._database = database
        self._lease_s = lease_s
        self._interval_s = interval_s
        self._waiting: deque[tuple[Unpublished, Lease]] = deque()
        self._unmarked: list[Unpublished] = []  # Kafka has them, PostgreSQL does not know yet
        self._mark_at_s = math.inf
        self._kafka = Availability("Kafka", logger)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def lease(self) -> Lease:
        """Return the lease for rows about to be inserted: none while Kafka is away, so that the relay may
        send them as soon as it is back."""
        left_to_relay = self._is_running() and self._kafka.is_away
        return Lease(time.monotonic(), 0.0 if left_to_relay else self._lease_s)

    def publish(self, submissions: Sequence[Unpublished], lease: Lease) -> None:
        """Send the messages of rows that were inserted under ``lease``: in the background where the outbox
        runs, else now. Never raises for an unreachable Kafka; the relay sends what could not be sent."""
        if not self.hand_over(submissions, lease) and lease.allows_a_send():
            self._mark(self._send(submissions))

    def hand_over(self, submissions: Sequence[Unpublished], lease: Lease) -> bool:
        """Have the outbox's thread publish them; never blocks. Returns whether it runs: if not, the relay of
        another process has them when the lease is over."""
        if not self._is_running():
            return False
        if len(self._waiting) < MAX_WAITING:
            self._waiting.extend((submission, lease) for submission in submissions)
            self._wake.set()
        return True

    def start(self) -> None:
        """Start the thread. Connects to nothing before there is something to do."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what waits in memory, within a few seconds, and end the thread."""
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
            except Exception:  # whatever it was, without this thread nothing would be published
                logger.exception("The outbox failed; it goes on in %.0f s", self._interval_s)
                next_look_s = time.monotonic() + self._interval_s
            if self._stopping.is_set() and not self._waiting:
                return

    def _send_waiting(self) -> None:
        """Send what was handed in, in batches of what has gathered meanwhile. While Kafka is away it is
        dropped here instead: it would wait in vain, and the relay has it."""
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            sendable = [submission for submission, lease in taken if lease.allows_a_send()]
            if sendable and not self._kafka.is_away:
                self._keep_in_mind(self._send(sendable))
                if len(sendable) >= MANY and len(self._waiting) < BATCH:
                    self._stopping.wait(BATCH_LINGER_S)

    def _relay(self) -> bool:
        """Send a batch of rows whose lease ran out; tell whether there may be more."""
        if not self._kafka_answers():
            return False
        try:
            with self._database() as connection:
                due = table.claim_due(connection, limit=BATCH, lease_s=self._lease_s)
        except DatabaseUnavailable:  # logged where it was noticed
            return False
        if due:
            self._keep_in_mind(self._send(due))
        return len(due) == BATCH and not self._kafka.is_away

    def _kafka_answers(self) -> bool:
        """While Kafka is away, ask before claiming: a claim that cannot be sent only delays its rows."""
        if self._kafka.is_away:
            try:
                self._broker.ping(timeout_s=PING_TIMEOUT_S)
            except BrokerConnectionError:
                return False
            self._kafka.came_back()
        return True

    def _send(self, submissions: Sequence[Unpublished]) -> list[Unpublished]:
        """Send the messages; return those that Kafka acknowledged."""
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

    def _keep_in_mind(self, published: Sequence[Unpublished]) -> None:
        """Have it noted in PostgreSQL, soon."""
        if published and not self._unmarked:
            self._mark_at_s = time.monotonic() + MARK_INTERVAL_S
        self._unmarked += published
        if len(self._unmarked) >= MARK_AT_ONCE:
            self._mark_all()

    def _mark_all(self) -> None:
        # Let go of first: what can never be noted must not keep the thread from everything else.
        published, self._unmarked, self._mark_at_s = self._unmarked, [], math.inf
        if published and not self._mark(published):
            self._unmarked, self._mark_at_s = published, time.monotonic() + MARK_INTERVAL_S

    def _mark(self, published: Sequence[Unpublished]) -> bool:
        """Tell PostgreSQL what Kafka has. Until that works these rows may be sent once more, which is
        harmless: a second delivery changes nothing."""
        try:
            with self._database() as connection:
                table.mark_published(connection, published)
        except DatabaseUnavailable:  # logged where it was noticed
            return False
        return True
