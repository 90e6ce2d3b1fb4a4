"""Refuses, when an actor is declared, the tenacity policies that cannot be run durably.

A message belongs to no process between two attempts: the policy is asked once after each failed attempt, and
its answer becomes a delay in Kafka. A policy that needs the process, the task's result, or an event loop is
therefore refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import tenacity
from tenacity import AsyncRetrying, Retrying

from ..errors import RetryPolicyRefused

_RESULT_PREDICATES = (tenacity.retry_if_result, tenacity.retry_if_not_result)
_AFTER_THE_RESULT = "a success is stored and its callbacks are sent at once, so it is never retried"
#: The attributes in which tenacity's composites have their parts.
_PARTS = ("retries", "stops", "wait_funcs", "strategies")


def check_policy(policy: object) -> Retrying:
    """Return ``policy`` when it can be run durably.

    Raises:
      RetryPolicyRefused: When it cannot. The text names the part and an alternative.
    """
    if not isinstance(policy, Retrying):
        raise RetryPolicyRefused(_why_no_policy(policy))
    reason = (
        _why_not_the_hooks(policy)
        or _why_not_the_stop(policy)
        or _why_not_the_predicate(policy)
        or _why_not_async(policy)
    )
    if reason is None:
        reason = _why_not_copied(policy)
    if reason is not None:
        raise RetryPolicyRefused(reason)
    return policy


def _why_no_policy(policy: object) -> str:
    if isinstance(policy, AsyncRetrying):
        return (
            "it is an AsyncRetrying, which waits in an event loop. Use tenacity.Retrying, also for an async "
            "task: nothing waits in the process"
        )
    if isinstance(policy, type) and issubclass(policy, Retrying):
        return (
            f"it is the class {policy.__name__} itself. Pass an instance of it: Retrying(stop=..., wait=...)"
        )
    return f"{policy!r} is no tenacity.Retrying. Pass Retrying(stop=..., wait=..., retry=...)"


def _why_not_the_hooks(policy: Retrying) -> str | None:
    if policy.retry_error_callback is not None:
        return (
            "retry_error_callback makes a result out of the last failure, and it would come too late to be "
            "stored. Use the actor's on_retry_exhausted, or the broker's on_dead_letter"
        )
    if policy.sleep is not tenacity.sleep:
        return "a custom sleep is never called: nothing sleeps, the wait is a delay in Kafka. Leave sleep out"
    return None


def _why_not_the_stop(policy: Retrying) -> str | None:
    if any(isinstance(part, tenacity.stop_when_event_set) for part in _walk(policy.stop)):
        return (
            "stop_when_event_set looks at an event of one process, and the next attempt may run in another. "
            "Leave it out: a worker that shuts down hands its tasks to the others and counts no attempt"
        )
    return None


def _why_not_the_predicate(policy: Retrying) -> str | None:
    for part in _walk(policy.retry):
        if isinstance(part, _RESULT_PREDICATES):
            return (
                f"{type(part).__name__} looks at the result: {_AFTER_THE_RESULT}. Raise TemporaryError in "
                "the task instead"
            )
    if _retries_a_success(policy.retry):
        return (
            f"its retry= is also true of a task that succeeded: {_AFTER_THE_RESULT}. Say which errors "
            "to retry: retry_if_exception_type(...), retry_if_not_exception_type(...), or "
            "retry_if_exception_type() & ..."
        )
    return None


def _retries_a_success(predicate: object) -> bool:
    """Whether one of tenacity's predicates is true for every success. Other callables are not checked."""
    if isinstance(predicate, tenacity.retry_any):
        return any(_retries_a_success(part) for part in predicate.retries)
    if isinstance(predicate, tenacity.retry_all):
        return all(_retries_a_success(part) for part in predicate.retries)
    if predicate is tenacity.retry_always:
        return True
    return isinstance(
        predicate, tenacity.retry_unless_exception_type | tenacity.retry_if_not_exception_message
    )


def _why_not_async(policy: Retrying) -> str | None:
    for name in ("stop", "wait", "retry", "before", "after", "before_sleep"):
        for part in _walk(getattr(policy, name)):
            if inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(type(part).__call__):
                return f"{name}= has {part!r}, a coroutine function, which no event loop is there to run"
    return None


def _why_not_copied(policy: Retrying) -> str | None:
    try:
        policy.copy()
    except Exception as e:  # noqa: BLE001 - any error of a subclass's constructor is the reason
        return f"its copy() raised {e!r}. A subclass has to keep the parameters of Retrying's constructor"
    return None


def _walk(strategy: object) -> Iterator[object]:
    yield strategy
    for name in _PARTS:
        for part in getattr(strategy, name, ()):
            yield from _walk(part)
