"""Calls middleware hooks so that no record that follows from a message is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import (
    Callbacks,
    GroupCallbacks,
    Interrupt,
    Middleware,
    MiddlewareError,
    Pipelines,
    Retries,
    Shutdown,
    SkipMessage,
)

from ..complete.current_delivery import CurrentDelivery
from ..complete.key_paces import KeyPaces
from ..complete.unique_marks import UniqueMarks
from ..deliveries.delivery import Delivery
from ..deliveries.in_flight import InFlightDeliveries
from ..error_text import error_text
from ..errors import Abort, MessageExpired, NotNow
from ..expiry import EXPIRES_AT, is_expired, shown_expiry
from ..kafka.errors import KafkaError
from ..process import clock
from ..process.one_line import one_line
from ..reports.runs import Runs
from .aborts import Aborts
from .hard_limits import HardLimits

logger = logging.getLogger(__name__)

#: Middleware whose failure would lose a record that follows from a message. Dramatiq logs the failure and
#: acks.
_FOLLOW_UP_MIDDLEWARE = (Retries, Pipelines, Callbacks, GroupCallbacks)
#: Errors that end a run which does not count as an attempt.
_NO_ATTEMPT = (Shutdown, NotNow)
#: The pause of a thread that cannot prepare a keyed message, before it gives the message back.
FREE_PAUSE_S = 0.5
_HOOK_FAILED = "Unexpected failure in %s of %r."


class HookListeners:
    """Finds the middleware that has a method of its own for a hook such as ``before_ack``.

    Dramatiq calls every middleware at every signal, and most of these calls end in the empty method of the
    base class: 27 of the 36 that a task costs with the default middleware. Changes of the list take effect; a
    method that is added later to a middleware without one does not.

    Attributes:
      always: Middleware that is called also when an application has removed it from its list.
    """

    def __init__(self) -> None:
        self.always: list[Middleware] = []
        self._known: tuple[list[Middleware], dict[str, list[Middleware]]] = ([], {})

    def of(self, middleware: Sequence[Middleware], hook: str) -> list[Middleware]:
        """The middleware to call for ``hook``, in the order of ``middleware``."""
        seen, by_hook = self._known
        if seen != middleware:
            seen, by_hook = self._known = (list(middleware), {})
        listeners = by_hook.get(hook)
        if listeners is None:
            empty = getattr(Middleware, hook, None)
            removed = [m for m in self.always if m not in seen]
            listeners = [
                m for m in (*seen, *removed) if hook in vars(m) or getattr(type(m), hook, None) is not empty
            ]
            by_hook[hook] = listeners
        return listeners


class HookCaller:
    """Emits the signals of a broker to its middleware.

    It differs from Dramatiq's own broker in three points. No hook is called for a withdrawn delivery. A hook
    whose failure would lose a record that follows from a message fails that message. Only one Retries decides
    about a failure; without one the message fails for good.

    Parameters:
      broker: Passed to the hooks, as Dramatiq does.
      runs: Is told of the beginning and the end of each run.
      aborts: Is told of the same, and ends the runs of aborted messages.
      hard_limits: Is told of the same, for the reaper.
      key_paces: Notes the runs of keys with a rate.
      unique_marks: Frees the keys of unique messages.
      requeue: Adds the message to the outbox of the current delivery, as its retry without a delay.
    """

    def __init__(
        self,
        broker: Broker,
        in_flight: InFlightDeliveries,
        current: CurrentDelivery,
        runs: Runs,
        aborts: Aborts,
        hard_limits: HardLimits,
        unique_marks: UniqueMarks,
        key_paces: KeyPaces,
        *,
        requeue: Callable[[MessageProxy], object],
    ) -> None:
        self.listeners = HookListeners()
        self._broker = broker
        self._in_flight = in_flight
        self._current = current
        self._runs = runs
        self._aborts = aborts
        self._hard_limits = hard_limits
        self._requeue = requeue
        self._unique_marks = unique_marks
        self._key_paces = key_paces

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        hook = f"before_{signal}"
        listeners = self.listeners.of(self._broker.middleware, hook)
        if signal == "process_message":
            message = args[0]
            self._begin(message)
            self._call_before(listeners, hook, message, **kwargs)
            if self._in_flight.gate.aborted:
                self._refuse_aborted(message)
            if EXPIRES_AT in message.options and is_expired(message.options):
                self._refuse_expired(message)
        elif listeners and signal in ("ack", "nack"):
            if not _is_withdrawn(args[0]):
                with self._current.of(args[0]):
                    self._call_before(listeners, hook, *args, **kwargs)
        else:
            self._call_before(listeners, hook, *args, **kwargs)

    def _refuse_aborted(self, message: MessageProxy) -> None:
        """Skip a message that was aborted. The hooks before it were called, as those after it will be."""
        if self._in_flight.gate.is_aborted(message.message_id):
            if isinstance(message, Delivery):
                message.is_aborted = True
            raise SkipMessage("the message was aborted")

    def _refuse_expired(self, message: MessageProxy) -> None:
        """Skip a message whose time is over, as a failed one: a caller may wait for its result."""
        if isinstance(message, Delivery):
            message.is_expired = True
        expired_at = shown_expiry(message.options)
        logger.info("Message %r of %r does not run: it expired at %s.",
            message.message_id, message.actor_name, expired_at,
        )  # fmt: skip
        message.fail()
        raise MessageExpired(f"the message expired at {expired_at}, before it ran")

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        if signal in ("process_message", "skip_message"):
            self._end(signal, args[0], **kwargs)
            return
        hook = f"after_{signal}"
        listeners = self.listeners.of(self._broker.middleware, hook)
        if listeners and signal in ("ack", "nack") and _is_withdrawn(args[0]):
            return
        for middleware in reversed(listeners):
            try:
                getattr(middleware, hook)(self._broker, *args, **kwargs)
            except Exception:
                logger.critical(_HOOK_FAILED, hook, middleware, exc_info=True)

    def _end(self, signal: str, message: MessageProxy, **kwargs: Any) -> None:
        """Call the hooks after a run, or after a message that was skipped, and note the end."""
        delivery = message if isinstance(message, Delivery) else None
        error = kwargs.get("exception")
        if delivery is not None:
            self._aborts.end(delivery)
            if delivery.limit_number is not None:
                self._hard_limits.end(delivery)
            if isinstance(error, Abort):
                # Nothing follows from it, and no attempt is counted.
                delivery.is_aborted = True
                signal, kwargs, error = "skip_message", {}, None
            if delivery.withdrawn:
                return
        hook = f"after_{signal}"
        try:
            with self._current.of(message):
                self._call_following(
                    self.listeners.of(self._broker.middleware, hook), hook, message, **kwargs
                )
        finally:
            if delivery is not None:
                self._runs.end(delivery, error, skipped=signal == "skip_message")

    def _begin(self, message: MessageProxy) -> None:
        if not isinstance(message, Delivery):
            return
        if message.lane_entry is not None and self._in_flight.admits(message):
            self._prepare_keyed(message)
        if not self._in_flight.begin(message):
            # The partition's new owner runs it and calls the hooks. For a flushed one no hook is called.
            message.withdrawn = True
            raise SkipMessage("its partition was revoked, or it was flushed, before it began")
        self._runs.begin(message)
        if self._hard_limits.limits_ms:
            self._hard_limits.begin(message)
        self._aborts.begin(message)

    def _prepare_keyed(self, delivery: Delivery) -> None:
        """Write what must be in Kafka before the run of a keyed message. Without Kafka's answer its partition
        gets the record back.

        No hook was called yet, so no middleware interrupts this thread.
        """
        try:
            if self._key_paces.has_pace(delivery):
                self._key_paces.begin(delivery)
            if self._unique_marks.is_due_at_start(delivery):
                self._unique_marks.free_at_start(delivery)
        except (BrokerConnectionError, KafkaError) as e:
            logger.warning(
                "Message %r of %r does not begin yet, as its key needs Kafka: %r",
                delivery.message_id, delivery.actor_name, e,
            )  # fmt: skip
            clock.sleep(FREE_PAUSE_S)
            self._in_flight.give_back(delivery)

    def _call_before(self, listeners: list[Middleware], hook: str, *args: Any, **kwargs: Any) -> None:
        for middleware in listeners:
            try:
                getattr(middleware, hook)(self._broker, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                logger.critical(_HOOK_FAILED, hook, middleware, exc_info=True)

    def _call_following(
        self, listeners: list[Middleware], hook: str, message: MessageProxy, **kwargs: Any
    ) -> None:
        error = kwargs.get("exception")
        is_decided = False
        for middleware in reversed(listeners):
            decides = error is not None and isinstance(middleware, Retries)
            if decides and is_decided:
                continue  # a second Retries would retry it again, or give it up, too
            try:
                getattr(middleware, hook)(self._broker, message, **kwargs)
            except (Exception, Interrupt) as e:
                # An interrupt that comes too late for the task is raised in a hook. If it left this method,
                # Dramatiq would ack.
                logger.critical(_HOOK_FAILED, hook, middleware, exc_info=True)
                if isinstance(middleware, _FOLLOW_UP_MIDDLEWARE):
                    self._current.failure = e
            if decides:
                is_decided = message.failed or _is_retried(message)
        if error is not None and self._is_undecided(message):
            self._decide(message, error)
        if (failure := self._current.failure) is not None:
            if isinstance(message, Delivery):
                # Its dead letter replaces the outbox: a message is retried or given up, never both.
                message.drop_outbox()
            message.stuff_exception(failure)
            message.fail()

    def _is_undecided(self, message: MessageProxy) -> bool:
        """Whether a failed message was neither given up nor retried, and no Retries is there to decide.

        A Retries also decides by doing neither. Without one, Dramatiq would ack the message.
        """
        return (
            isinstance(message, Delivery)
            and not message.failed
            and not _is_retried(message)
            and not any(isinstance(m, Retries) for m in self._broker.middleware)
        )

    def _decide(self, message: MessageProxy, error: BaseException) -> None:
        if not isinstance(error, _NO_ATTEMPT):
            logger.warning(
                "Message %r fails for good, since there is no Retries middleware: %s",
                message.message_id,
                one_line(error_text(error)),
            )
            message.fail()
            return
        try:
            self._requeue(message)
        except (Exception, Interrupt) as e:  # noqa: BLE001 - any error; the dead letter has it
            self._current.failure = e


def _is_retried(message: MessageProxy) -> bool:
    return isinstance(message, Delivery) and message.is_retried


def _is_withdrawn(message: MessageProxy) -> bool:
    return isinstance(message, Delivery) and message.withdrawn
