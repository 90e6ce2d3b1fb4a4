"""Publishes the outbox of a delivery, and completes the delivery once Kafka has all of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..errors import RECORD_ERRORS, KafkaUnavailable, NotAuthorized, TopicMisconfigured
from ..process import clock
from ..process.backoff import Backoff
from ..process.forks import reset_on_fork
from ..produce.publisher import Publisher
from ..produce.record import Record

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
#: Failures after which a record is not in Kafka. After any other it may be.
_NOT_SENT = (*RECORD_ERRORS, NotAuthorized, TopicMisconfigured)


@dataclass(eq=False, slots=True)
class PendingDeadLetter:
    """The dead letter of a message that was not delivered here, and its follow-ups.

    The attributes are those of a Delivery.
    """

    queue_name: str
    outbox: list[Record]
    follow_ups: list[Callable[[], None]] = field(default_factory=list)
    completed: bool = False
    preparation: None = None
    retry: None = None
    retry_sent: bool = False
    dead_letter: None = None


Settled = Delivery | PendingDeadLetter


class Completer:
    """One thread that publishes outboxes, runs follow-ups and completes deliveries. It retries each until it
    succeeds.

    Worker threads only hand a delivery over. So an outage blocks deliveries, and consumption once
    ``prefetch`` of them are held, but never worker threads. Deliveries that wait together share one publish.

    Parameters:
      give_up: Called with a delivery and the error when Kafka can never take one of its records (too large,
        for example). It replaces the outbox by a preparation, which creates a dead letter. A delivery that
        has a dead letter keeps it and loses only the refused record; a refused dead letter is shortened. It
        is not called for a delivery whose retry may be in Kafka: that delivery, too, loses only the refused
        record.
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
        """Drop all waiting deliveries: they belong to the parent, whose thread continues there."""
        self._changed = threading.Condition()
        self._waiting: list[Settled] = []
        self._busy = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs. Threads that Dramatiq may interrupt must not call this (see
        ``process.threads``).
        """
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._stopping = False
                self._thread = threading.Thread(
                    target=self._run, name="dramatiq-kafka-completer", daemon=True
                )
                self._thread.start()

    def settle(self, delivery: Delivery) -> None:
        """Complete ``delivery`` once Kafka has its outbox; at once when the outbox is empty."""
        if not delivery.outbox and not delivery.follow_ups and delivery.preparation is None:
            self._in_flight.complete(delivery)
            return
        self._add(delivery)

    def move(self, deliveries: Sequence[Delivery]) -> None:
        """Complete deliveries whose records move, once Kafka has their outboxes."""
        self._add(*deliveries)

    def write(self, pending: PendingDeadLetter) -> None:
        """Complete ``pending`` once Kafka has its outbox and its follow-ups are done."""
        self._add(pending)

    def _add(self, *settled: Settled) -> None:
        with self._changed:
            self._waiting += settled
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until all deliveries are settled; False when one is left after ``timeout_s``.

        Without the thread they are settled on this one.
        """
        if self._thread is None:
            deadline_s = clock.monotonic_s() + timeout_s
            while self.step() is not None and clock.monotonic_s() < deadline_s:
                clock.sleep(FIRST_BACKOFF_S)
            return not self._waiting
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Stop after ``timeout_s`` at the latest. Unsettled deliveries stay incomplete, and run again on
        another worker.
        """
        if not self.drain(timeout_s):
            logger.warning(
                "%d deliveries could not be settled in time; they will run again.", len(self._waiting)
            )
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        backoff = Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting)
                if self._stopping:
                    return
                if pause_s := backoff.remaining_s:
                    self._changed.wait_for(lambda: self._stopping, pause_s)
            held, reason = self._settle_waiting()
            if held and not backoff.has_failed:
                denied = isinstance(reason, NotAuthorized)
                logger.log(
                    logging.ERROR if denied else logging.WARNING,
                    "%d deliveries are held until their outboxes and follow-ups are done: %s",
                    len(held),
                    reason if denied else repr(reason),
                    exc_info=None if denied else reason,
                )
            elif backoff.has_failed and not held:
                logger.info("The held deliveries are complete now.")
            if held:
                backoff.fail()
            else:
                backoff.reset()

    def step(self) -> BaseException | None:
        """Settle the waiting deliveries once, on the calling thread; return the reason why one is held, or
        None. For a process that does not :meth:`start` the thread.
        """
        _, reason = self._settle_waiting()
        return reason

    def _settle_waiting(self) -> tuple[list[Settled], BaseException | None]:
        with self._changed:
            deliveries, self._waiting, self._busy = self._waiting, [], True
        try:
            held, reason = self._advance(deliveries)
        except Exception as e:  # noqa: BLE001
            # If the thread ended, no delivery of this process would be settled any more.
            held, reason = [delivery for delivery in deliveries if not delivery.completed], e
        with self._changed:
            self._waiting = held + self._waiting
            self._busy = False
            self._changed.notify_all()
        return held, reason

    def _complete(self, delivery: Settled) -> None:
        if isinstance(delivery, PendingDeadLetter):
            delivery.completed = True
        else:
            self._in_flight.complete(delivery)

    def _advance(self, deliveries: list[Settled]) -> tuple[list[Settled], BaseException | None]:
        """Advance each delivery as far as possible. Return the incomplete ones, and why the first of them is
        incomplete.
        """
        unprepared = self._prepare(deliveries)
        reason = self._publish([settled for settled in deliveries if id(settled) not in unprepared])
        reason = reason or next(iter(unprepared.values()), None)
        untried: list[Settled] = []
        failed: list[Settled] = []
        for delivery in deliveries:
            if delivery.outbox or delivery.preparation is not None or failed:
                # After one failed follow-up the others wait: they probably need the same unavailable service.
                untried.append(delivery)
                continue
            error = _follow_up(delivery)
            if error is None:
                self._complete(delivery)
            else:
                failed.append(delivery)
                reason = reason or error
        # A failed delivery goes last, so that one that always fails cannot block the others.
        return untried + failed, reason

    def _prepare(self, deliveries: list[Settled]) -> dict[int, Exception]:
        """Run the preparation of each delivery, which fills its outbox. Return the errors, by id of the
        delivery.
        """
        unprepared: dict[int, Exception] = {}
        for delivery in deliveries:
            if isinstance(delivery, PendingDeadLetter):
                continue
            begins = delivery.moves or (delivery.unrun and delivery.preparation is not None)
            if begins and not self._in_flight.answers_for(delivery):
                # The partition's next owner reads the record again, or the record was flushed.
                delivery.outbox.clear()
                delivery.follow_ups.clear()
                delivery.preparation = None
            elif delivery.preparation is not None:
                try:
                    delivery.preparation()
                    delivery.preparation = None
                except Exception as e:  # noqa: BLE001
                    # After any error the delivery is held and prepared again.
                    unprepared[id(delivery)] = e
        return unprepared

    def _publish(self, deliveries: list[Settled]) -> BaseException | None:
        """Publish all outboxes, and remove the acknowledged records from them."""
        try:
            refused = self._give_up_refused(deliveries)
        except KafkaUnavailable as unavailable:
            return unavailable
        owners = [(delivery, record) for delivery in deliveries for record in delivery.outbox]
        failures = self._publisher.publish([record for _, record in owners])
        for index, (delivery, record) in enumerate(owners):
            if record is delivery.retry and not isinstance(failures.get(index), _NOT_SENT):
                delivery.retry_sent = True  # without a response the record may be in Kafka
            if index not in failures:
                delivery.outbox.remove(record)
        refused_for_good: dict[int, tuple[Settled, BaseException]] = {}
        for index, e in failures.items():
            settled, record = owners[index]
            if not isinstance(e, RECORD_ERRORS):
                continue
            if _is_dropped_alone(settled, record):
                logger.error("A record for %s that follows from %s is lost: %r", record.topic, settled, e)
                settled.outbox.remove(record)
            else:
                refused_for_good[id(settled)] = settled, e
        for settled, e in refused_for_good.values():
            self._give_up(settled, e)
        return next(iter(failures.values()), refused)

    def _give_up_refused(self, deliveries: list[Settled]) -> BaseException | None:
        """Dead-letter the deliveries with a record that Kafka is known to refuse for good. None of their
        records is sent before: a message is either retried or dead-lettered.

        Returns:
          The first refusal.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        owners = [
            (delivery, record)
            for delivery in deliveries
            if len(delivery.outbox) > 1 and delivery.dead_letter is None and not delivery.retry_sent
            for record in delivery.outbox
        ]
        if not owners:
            return None
        refusals = self._publisher.refusals([record for _, record in owners])
        for settled, e in {id(owners[i][0]): (owners[i][0], e) for i, e in refusals.items()}.values():
            self._give_up(settled, e)
        return next(iter(refusals.values()), None)


def _is_dropped_alone(settled: Settled, record: Record) -> bool:
    """Whether only this refused record is lost, since the message is already retried or dead-lettered."""
    if settled.dead_letter is not None:
        return record is not settled.dead_letter
    return settled.retry_sent and record is not settled.retry


def _follow_up(delivery: Settled) -> Exception | None:
    while delivery.follow_ups:
        try:
            delivery.follow_ups[0]()
        except Exception as e:  # noqa: BLE001
            # After any error the delivery is held, and the follow-up is called again.
            return e
        delivery.follow_ups.pop(0)
    return None
