"""Makes durable what follows from a delivery, and only then completes it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..errors import RECORD_ERRORS, NotAuthorized
from ..process.forks import reset_on_fork
from ..produce.publisher import Publisher, Record

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0


@dataclass(eq=False, slots=True)
class PendingDeadLetter:
    """What has to be made durable of a message that was not delivered here.

    Its attributes are those of a Delivery.
    """

    queue_name: str
    outbox: list[Record]
    follow_ups: list[Callable[[], None]] = field(default_factory=list)
    completed: bool = False
    preparation: None = None
    dead_letter: None = None


Settled = Delivery | PendingDeadLetter


class Completer:
    """One thread that publishes outboxes, runs follow-ups and completes deliveries, until it succeeds.

    Worker threads only hand a delivery over, so an outage holds deliveries (and, once ``prefetch`` of them
    are held, the intake), never threads. Deliveries that wait together share one publish.

    Parameters:
      give_up: Called with a delivery and the error when Kafka can never take one of its records (too large,
        say). It replaces the outbox by a preparation, which makes a dead letter. A delivery that has its dead
        letter keeps it, and loses just the record that is refused; the dead letter itself is shortened.
    """

    def __init__(
        self,
        publisher: Publisher,
        in_flight: InFlightDeliveries,
        *,
        give_up: Callable[[Settled, BaseException], None],
    ) -> None:
        self._publisher = publisher
        self._in_flight = in_flight
        self._give_up = give_up
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Have nothing to settle: what waits is the parent's, whose thread goes on there."""
        self._changed = threading.Condition()
        self._waiting: list[Settled] = []
        self._busy = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs; not from one that Dramatiq may interrupt (see ``threads``)."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._stopping = False
                self._thread = threading.Thread(
                    target=self._run, name="dramatiq-kafka-settlement", daemon=True
                )
                self._thread.start()

    def settle(self, delivery: Delivery) -> None:
        """Complete ``delivery`` once everything in its outbox is durable; at once when there is nothing in
        it.
        """
        if not delivery.outbox and not delivery.follow_ups and delivery.preparation is None:
            self._in_flight.complete(delivery)
            return
        self._add(delivery)

    def run(self, pending: PendingDeadLetter) -> None:
        """Complete ``errand`` once everything in its outbox is durable and its follow-ups are done."""
        self._add(pending)

    def _add(self, settled: Settled) -> None:
        with self._changed:
            self._waiting.append(settled)
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is left to settle; False when something still is after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Stop after ``timeout_s`` at the latest. What is not settled stays incomplete and is run again
        elsewhere.
        """
        if not self.drain(timeout_s):
            logger.warning(
                "%d deliveries could not be settled in time; they will be run again.", len(self._waiting)
            )
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        backoff_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting)
                if self._stopping:
                    return
                if backoff_s:
                    self._changed.wait_for(lambda: self._stopping, backoff_s)
                batch, self._waiting, self._busy = self._waiting, [], True
            try:
                held, reason = self._settle_batch(batch)
            except Exception as e:  # noqa: BLE001
                # Were this thread to end, nothing of this process would be settled any more.
                held, reason = [delivery for delivery in batch if not delivery.completed], e
            with self._changed:
                self._waiting = held + self._waiting
                self._busy = False
                self._changed.notify_all()
            if held and not backoff_s:
                denied = isinstance(reason, NotAuthorized)
                logger.log(
                    logging.ERROR if denied else logging.WARNING,
                    "%d deliveries are held until what follows from them is durable: %s",
                    len(held),
                    reason if denied else repr(reason),
                    exc_info=None if denied else reason,
                )
            elif backoff_s and not held:
                logger.info("What was held is durable now.")
            backoff_s = min(MAX_BACKOFF_S, max(FIRST_BACKOFF_S, 2 * backoff_s)) if held else 0.0

    def _complete(self, delivery: Settled) -> None:
        if isinstance(delivery, PendingDeadLetter):
            delivery.completed = True
        else:
            self._in_flight.complete(delivery)

    def _settle_batch(self, batch: list[Settled]) -> tuple[list[Settled], BaseException | None]:
        """Bring each delivery as far as it goes; return those that are not complete, and why the first of
        them is not.
        """
        unprepared = self._prepare(batch)
        reason = self._publish([settled for settled in batch if id(settled) not in unprepared])
        reason = reason or next(iter(unprepared.values()), None)
        untried: list[Settled] = []
        failed: list[Settled] = []
        for delivery in batch:
            if delivery.outbox or delivery.preparation is not None or failed:
                # After one failed follow-up the others wait: what it needs is probably away for all of them.
                untried.append(delivery)
                continue
            error = _follow_up(delivery)
            if error is None:
                self._complete(delivery)
            else:
                failed.append(delivery)
                reason = reason or error
        # The one that failed goes last, so that one that always fails cannot hold up the others.
        return untried + failed, reason

    def _prepare(self, batch: list[Settled]) -> dict[int, Exception]:
        """Let each delivery make what is still to be put into its outbox; return why some cannot, by id."""
        unprepared: dict[int, Exception] = {}
        for delivery in batch:
            if isinstance(delivery, PendingDeadLetter):
                continue
            begins = delivery.moves or (delivery.unrun and delivery.preparation is not None)
            if begins and not self._in_flight.answers_for(delivery):
                # Its partition's next owner reads it again, or it was flushed.
                delivery.outbox.clear()
                delivery.follow_ups.clear()
                delivery.preparation = None
            elif delivery.preparation is not None:
                try:
                    delivery.preparation()
                    delivery.preparation = None
                except Exception as e:  # noqa: BLE001
                    # Whatever it was, the delivery is held and prepared again.
                    unprepared[id(delivery)] = e
        return unprepared

    def _publish(self, batch: list[Settled]) -> BaseException | None:
        """Publish all outboxes and take out of them what Kafka has."""
        owners = [(delivery, record) for delivery in batch for record in delivery.outbox]
        failures = self._publisher.publish([record for _, record in owners])
        for index, (delivery, record) in enumerate(owners):
            if index not in failures:
                delivery.outbox.remove(record)
        hopeless: dict[int, tuple[Settled, BaseException]] = {}
        for index, e in failures.items():
            settled, record = owners[index]
            if not isinstance(e, RECORD_ERRORS):
                continue
            if settled.dead_letter in (None, record):
                hopeless[id(settled)] = settled, e
            else:
                logger.error(
                    "A record for %s, sent when %s was given up, is lost: %r", record.topic, settled, e
                )
                settled.outbox.remove(record)
        for settled, e in hopeless.values():
            self._give_up(settled, e)
        return next(iter(failures.values()), None)


def _follow_up(delivery: Settled) -> Exception | None:
    while delivery.follow_ups:
        try:
            delivery.follow_ups[0]()
        except Exception as e:  # noqa: BLE001
            # Whatever it was, it is not lost: the delivery is held and this is called again.
            return e
        delivery.follow_ups.pop(0)
    return None
