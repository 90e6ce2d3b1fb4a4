"""The Retries middleware: Dramatiq's, with tenacity policies added."""

from __future__ import annotations

import math
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
from ..process import clock
from ..process.one_line import one_line
from .decision import Again, GiveUp, call_state, decide
from .policy_check import check_policy

#: Dramatiq's options for the number and the times of retries, which a policy replaces.
_DRAMATIQS_POLICY = frozenset({"max_retries", "min_backoff", "max_backoff", "retry_when"})


class TenacityRetries(Retries):
    """Dramatiq's ``Retries``, plus the actor option ``retry``, a ``tenacity.Retrying`` that is run durably.

    After a failed attempt the policy is asked with a real ``RetryCallState``, and its wait becomes a delay in
    Kafka: no thread waits, and no restart loses a retry. ``attempt_number`` counts all attempts of the
    message, and ``seconds_since_start`` begins at ``message_timestamp``, so it includes a first delay. ::

        @dramatiq.actor(retry=Retrying(stop=stop_after_attempt(3), wait=wait_random_exponential(max=60),
                                       retry=retry_if_temporary))

    The first of these rules that applies decides about a failed message:

    - NotNow: no attempt was made, and the message returns to its queue immediately, or after its ``delay``;
    - an error in the actor's ``throws``, and PermanentError: no further attempt, whatever the policy;
    - under a policy, ``Shutdown`` and other interrupts except TimeLimitExceeded: the message returns to its
      queue immediately, and no attempt is counted;
    - under a policy, Dramatiq's ``Retry``: another attempt unless the policy *stops*. The predicate is not
      asked, and ``delay``, when given, replaces the wait;
    - the policy. When it stops, the actor's ``on_retry_exhausted`` is sent; when its predicate is false, it
      is not;
    - without a policy: Dramatiq's rules.

    The option ``max_retries`` of a message replaces the policy's stop (None: never). The policy's callbacks,
    ``before`` included, are called in the worker. Only the RetryCallState is carried to the next attempt, not
    the state of the policy object.

    The options of the message contain its history: ``retries`` (the number of attempts after the first),
    ``last_error``, ``traceback`` and ``requeue_timestamp`` of the last failure, ``idle_for_s`` (the sum of
    its waits in seconds), ``first_sent_timestamp``. Timestamps are milliseconds since 1970.

    Parameters:
      retry: The policy of actors that have neither ``retry`` nor one of Dramatiq's ``max_retries``,
        ``min_backoff``, ``max_backoff`` and ``retry_when``. An actor with ``retry=None`` follows Dramatiq's
        rules.
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
            # Dramatiq limits its frames, and not the error's text.
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
            # A shutdown or a time limit that was raised in this method, after the task had ended.
            if not message.failed and not getattr(message, "is_retried", False):
                broker.enqueue(_as_message(message))
        except Exception as e:
            # Dramatiq would log it and ack the message, which would be lost.
            self.logger.critical(
                "Message %r is failed: its retry could not be decided.", message.message_id, exc_info=True
            )
            message.stuff_exception(e)
            message.fail()

    def policy_of(self, actor: Actor[Any, Any]) -> Retrying | None:
        """The retry policy of an actor; None when it follows Dramatiq's rules."""
        if "retry" in actor.options or _DRAMATIQS_POLICY.intersection(actor.options):
            own: Retrying | None = actor.options.get("retry")
            return own
        return self.retry

    # The consequence of a failure

    def _follow(self, broker: Broker, message: MessageProxy, error: BaseException) -> None:
        actor = broker.get_actor(message.actor_name)
        policy = self.policy_of(actor)
        throws = message.options.get("throws") or actor.options.get("throws")
        if isinstance(error, NotNow):
            broker.enqueue(_as_message(message), delay=error.delay)
        elif isinstance(error, PermanentError) or (throws and isinstance(error, throws)):
            # Dramatiq's words (Retries.after_process_message in dramatiq/middleware/retries.py).
            self.logger.info("Aborting message %r.", message.message_id)
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
        _retries_of(message)  # raises an error that names the invalid option
        _note(message, error)
        noted = message.options["traceback"]
        super().after_process_message(broker, message, exception=error)  # type: ignore[no-untyped-call]
        # Dramatiq's traceback has a limited number of frames, and an error text of any length.
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
                "The policy does not retry message %r: %s", message.message_id, one_line(error_text(error))
            )

    def _send_exhausted(self, broker: Broker, message: MessageProxy, actor: Actor[Any, Any]) -> None:
        name = message.options.get("on_retry_exhausted") or actor.options.get("on_retry_exhausted")
        if name:
            counts = {"retries": _retries_of(message), "max_retries": message.options.get("max_retries")}
            broker.get_actor(name).send(message.asdict(), counts)


def _as_message(message: MessageProxy) -> Message[Any]:
    """Use a proxy as its message, as Dramatiq's own Retries does."""
    return cast("Message[Any]", message)


def _for_this_failure(policy: Retrying, message: MessageProxy, error: BaseException) -> Retrying:
    """A copy of the policy, with the stop, wait and predicate that the message or the error replaces."""
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
    """The age of a message in seconds, by its timestamp, which another producer may have set to any value.

    Parameters:
      at_least_s: The sum of its waits, in seconds. The age is never less, also when the sender's clock is
        ahead, so a policy that stops after a time does stop.
    """
    if not isinstance(sent_at_ms, int | float):
        return at_least_s
    try:
        age_s = clock.wall_ms() / 1000 - sent_at_ms / 1000
    except OverflowError:  # an integer that no float can hold
        return at_least_s
    return max(at_least_s, age_s) if math.isfinite(age_s) else at_least_s


def _retries_of(message: MessageProxy) -> int:
    retries = message.options.get("retries", 0)
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ValueError(f"the message's option retries is {retries!r}, not a count")
    return retries


def _note(message: MessageProxy, error: BaseException) -> None:
    """Write the failure into the options, which the next attempt or the dead letter carries."""
    options = message.options
    options.setdefault("first_sent_timestamp", message.message_timestamp)
    options["last_error"] = f"{type(error).__name__}: {error_text(error)}"
    options["traceback"] = traceback_text(error)
    options["requeue_timestamp"] = clock.wall_ms()
