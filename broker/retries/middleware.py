"""The Retries middleware: Dramatiq's, with tenacity's policies added."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, cast

import tenacity
from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import Retry
from dramatiq.message import Message
from dramatiq.middleware import Interrupt, Retries, TimeLimitExceeded
from tenacity import RetryCallState, Retrying

from ..error_text import MAX_TRACEBACK_CHARS, error_text, excerpt, traceback_text
from ..errors import NotNow, PermanentError, RetryPolicyRefused
from .decision import Again, GiveUp, call_state, decide
from .policy_check import check_policy

#: Dramatiq's own way of saying when and how often, which a policy replaces.
_DRAMATIQS_POLICY = frozenset({"max_retries", "min_backoff", "max_backoff", "retry_when"})


class TenacityRetries(Retries):
    """Dramatiq's ``Retries``, plus the actor option ``retry``, a ``tenacity.Retrying`` that is run durably.

    After a failed attempt the policy is asked, with a true ``RetryCallState``, and its wait becomes a delay
    in Kafka: no thread waits, and a restart of anything forgets nothing. ``attempt_number`` counts over the
    message's whole life, and ``seconds_since_start`` runs from ``message_timestamp``, a first delay
    included. ::

        @dramatiq.actor(retry=Retrying(stop=stop_after_attempt(3), wait=wait_random_exponential(max=60),
                                       retry=retry_if_temporary))

    What ends a message, or not, in this order:

    - NotNow: no attempt was made, and the message goes back to its queue at once;
    - an error in the actor's ``throws``, and PermanentError: no further attempt, whatever the policy says;
    - under a policy, ``Shutdown`` and other interrupts except TimeLimitExceeded: the message goes back to
      its queue at once and no attempt is counted;
    - under a policy, Dramatiq's ``Retry``: another attempt unless the policy *stops*; its predicate is not
      asked, and ``delay``, when given, takes the place of its wait;
    - the policy. When it stops, the actor's ``on_retry_exhausted`` is sent; not when its predicate says no;
    - without a policy: Dramatiq's rules.

    On one message, ``max_retries`` takes the place of the policy's stop (None: never). The policy's
    callbacks are called in the worker, ``before`` included. What a policy keeps in itself between attempts
    is not carried: only what is in the RetryCallState is.

    The message's options say how far it is: ``retries`` (how often it was tried again), ``last_error``,
    ``traceback`` and ``requeue_timestamp`` of the last failure, ``idle_for_s`` (the sum of its waits),
    ``first_sent_timestamp``. Timestamps are milliseconds since 1970.

    Parameters:
      retry: The policy of actors that have neither ``retry`` nor one of Dramatiq's ``max_retries``,
        ``min_backoff``, ``max_backoff`` and ``retry_when``. An actor with ``retry=None`` keeps to
        Dramatiq's rules.
      max_retries, min_backoff, max_backoff, retry_when: As in Dramatiq, for actors without a policy.

    Raises:
      RetryPolicyRefused: When ``retry`` cannot be run durably. An actor's is refused when it is declared.
    """

    def __init__(
        self,
        *,
        retry: Retrying | None = None,
        max_retries: int = 20,
        min_backoff: int | None = None,
        max_backoff: int | None = None,
        retry_when: Callable[[int, BaseException], bool] | None = None,
    ) -> None:
        super().__init__(
            max_retries=max_retries, min_backoff=min_backoff, max_backoff=max_backoff, retry_when=retry_when
        )
        self.retry = None if retry is None else check_policy(retry)

    @property
    def actor_options(self) -> set[str]:
        inherited: set[str] = super().actor_options
        return inherited | {"retry"}

    # Dramatiq's signals

    def before_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        policy = actor.options.get("retry")
        if policy is None:
            return
        try:
            check_policy(policy)
        except RetryPolicyRefused as e:
            raise RetryPolicyRefused(f"The retry= of actor {actor.actor_name!r} is refused: {e}.") from None
        if both := sorted(_DRAMATIQS_POLICY.intersection(actor.options)):
            raise RetryPolicyRefused(
                f"The actor {actor.actor_name!r} has retry= and also {', '.join(both)}, which the policy "
                "replaces: keep one."
            )

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        if "retry" in message.options:
            raise RetryPolicyRefused(
                f"retry= was given to one message of {message.actor_name!r}; a policy is no JSON and cannot "
                "travel. Declare it on the actor, and give the message max_retries if it is to differ."
            )
        if isinstance(text := message.options.get("traceback"), str):
            # Dramatiq bounds its frames and not the error's text.
            message.options["traceback"] = excerpt(text, MAX_TRACEBACK_CHARS)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        actor = broker.get_actor(message.actor_name)
        policy = self.policy_of(actor)
        if policy is not None and policy.before is not tenacity.before_nothing:
            policy.before(_state_of(policy.copy(), message, actor))

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is None:
            return
        try:
            self._follow(broker, message, exception)
        except Interrupt:
            # A shutdown or a time limit that hit this thread in here, and not the task.
            if not message.failed and not getattr(message, "is_retried", False):
                broker.enqueue(_as_message(message))
        except Exception as e:
            # Dramatiq would log it and ack the message, which then is gone.
            self.logger.critical(
                "Message %r is failed: its retry could not be decided.", message.message_id, exc_info=True
            )
            message.stuff_exception(e)
            message.fail()

    def policy_of(self, actor: Actor[Any, Any]) -> Retrying | None:
        """The policy an actor runs under; None when it keeps to Dramatiq's rules."""
        if "retry" in actor.options or _DRAMATIQS_POLICY.intersection(actor.options):
            own: Retrying | None = actor.options.get("retry")
            return own
        return self.retry

    # What follows from a failure

    def _follow(self, broker: Broker, message: MessageProxy, error: BaseException) -> None:
        actor = broker.get_actor(message.actor_name)
        policy = self.policy_of(actor)
        throws = message.options.get("throws") or actor.options.get("throws")
        if isinstance(error, NotNow):
            broker.enqueue(_as_message(message))
        elif isinstance(error, PermanentError) or (throws and isinstance(error, throws)):
            self.logger.info("Message %r fails for good: %s", message.message_id, error_text(error))
            _note(message, error)
            message.fail()
        elif policy is None:
            self._follow_dramatiq(broker, message, error)
        elif isinstance(error, Interrupt) and not isinstance(error, TimeLimitExceeded):
            self.logger.info(
                "Message %r goes back to its queue: %s.", message.message_id, type(error).__name__
            )
            broker.enqueue(_as_message(message))
        else:
            self._follow_policy(broker, message, actor, policy, error)

    def _follow_dramatiq(self, broker: Broker, message: MessageProxy, error: BaseException) -> None:
        _retries_of(message)  # or it would fail with an error that explains nothing
        _note(message, error)
        noted = message.options["traceback"]
        super().after_process_message(broker, message, exception=error)  # type: ignore[no-untyped-call]
        # Dramatiq's bounds its frames and not the error's text.
        message.options["traceback"] = noted

    def _follow_policy(
        self,
        broker: Broker,
        message: MessageProxy,
        actor: Actor[Any, Any],
        policy: Retrying,
        error: BaseException,
    ) -> None:
        policy = _for_this_failure(policy, message, error)
        decision = decide(policy, _state_of(policy, message, actor, error))
        _note(message, error)
        if isinstance(decision, Again):
            delay_ms = math.ceil(decision.wait_s * 1000)
            message.options["retries"] = _retries_of(message) + 1
            message.options["idle_for_s"] = decision.idle_for_s
            self.logger.info("Retrying message %r in %d milliseconds.", message.message_id, delay_ms)
            broker.enqueue(_as_message(message), delay=delay_ms or None)
            return
        message.fail()
        if decision is GiveUp.STOPPED:
            self.logger.warning("Retries exceeded for message %r.", message.message_id)
            self._send_exhausted(broker, message, actor)
        else:
            self.logger.warning(
                "The policy does not retry message %r: %s", message.message_id, error_text(error)
            )

    def _send_exhausted(self, broker: Broker, message: MessageProxy, actor: Actor[Any, Any]) -> None:
        name = message.options.get("on_retry_exhausted") or actor.options.get("on_retry_exhausted")
        if name:
            counts = {"retries": _retries_of(message), "max_retries": message.options.get("max_retries")}
            broker.get_actor(name).send(message.asdict(), counts)


def _as_message(message: MessageProxy) -> Message[Any]:
    """A proxy passes for its message, as it does in Dramatiq's own Retries."""
    return cast("Message[Any]", message)


def _for_this_failure(policy: Retrying, message: MessageProxy, error: BaseException) -> Retrying:
    """A copy of the policy, with what the message and the error ask for in its place."""
    instead: dict[str, Any] = {}
    if "max_retries" in message.options:
        at_most = message.options["max_retries"]
        instead["stop"] = tenacity.stop_never if at_most is None else tenacity.stop_after_attempt(at_most + 1)
    if isinstance(error, Retry):
        instead["retry"] = tenacity.retry_always
        if error.delay is not None:
            instead["wait"] = tenacity.wait_fixed(error.delay / 1000)
    return policy.copy(**instead)


def _state_of(
    policy: Retrying, message: MessageProxy, actor: Actor[Any, Any], error: BaseException | None = None
) -> RetryCallState:
    idle_for_s = float(message.options.get("idle_for_s", 0.0))
    return call_state(
        policy,
        actor.fn,
        message.args,
        message.kwargs,
        attempt_number=_retries_of(message) + 1,
        age_s=_age_s(message.message_timestamp, at_least_s=idle_for_s),
        idle_for_s=idle_for_s,
        error=error,
    )


def _age_s(sent_at_ms: object, *, at_least_s: float) -> float:
    """How long ago a message was sent, as far as it says so: another producer may write any time, or none.

    Parameters:
      at_least_s: The sum of its waits. It is never younger, though another machine's clock may be ahead of
        ours, and a policy that stops after a time does stop.
    """
    if not isinstance(sent_at_ms, int | float):
        return at_least_s
    try:
        age_s = time.time() - sent_at_ms / 1000
    except OverflowError:  # an integer that no float can hold
        return at_least_s
    return max(at_least_s, age_s) if math.isfinite(age_s) else at_least_s


def _retries_of(message: MessageProxy) -> int:
    retries = message.options.get("retries", 0)
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ValueError(f"the message's option retries is {retries!r}, not a count")
    return retries


def _note(message: MessageProxy, error: BaseException) -> None:
    """Write down, in what the next attempt or the dead letter carries, how this one ended."""
    options = message.options
    options.setdefault("first_sent_timestamp", message.message_timestamp)
    options["last_error"] = f"{type(error).__name__}: {error_text(error)}"
    options["traceback"] = traceback_text(error)
    options["requeue_timestamp"] = time.time_ns() // 1_000_000
