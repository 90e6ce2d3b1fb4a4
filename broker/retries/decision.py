"""Asks a tenacity policy for the consequence of one failed attempt. Pure, except for the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tenacity import DoSleep, RetryCallState, Retrying

from ..process import clock


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt.

    Attributes:
      wait_s: The wait before it, in seconds.
      idle_for_s: The sum of all waits so far, this one included.
    """

    wait_s: float
    idle_for_s: float


class GiveUp(Enum):
    """No further attempt: the policy has stopped, or its predicate is false for this error."""

    STOPPED = "stopped"
    NOT_RETRIED = "not retried"


def call_state(
    policy: Retrying,
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    attempt_number: int,
    age_s: float,
    idle_for_s: float,
    error: BaseException | None = None,
) -> RetryCallState:
    """The call state that tenacity would have if one process had made all attempts.

    Parameters:
      attempt_number: 1 for the first.
      age_s: The age of the message in seconds: ``seconds_since_start`` begins when it was sent.
      idle_for_s: The sum of its waits, in seconds.
      error: The error of the attempt; None before an attempt.
    """
    state = RetryCallState(policy, fn, tuple(args), dict(kwargs))
    state.attempt_number = attempt_number
    state.idle_for = idle_for_s
    if error is not None:
        state.set_exception((type(error), error, error.__traceback__))
    now_s = clock.monotonic_s() if state.outcome_timestamp is None else state.outcome_timestamp
    state.start_time = now_s - age_s
    return state


def decide(policy: Retrying, state: RetryCallState) -> Again | GiveUp:
    """Run one step of ``policy`` on a failed attempt.

    Parameters:
      policy: A copy that nothing else uses.
      state: The call state, with the error of the attempt.

    Raises:
      ValueError: When the wait is not finite.
      Exception: Any error of the policy's own callables.
    """
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    # tenacity before 9.2 has no policies that are disabled.
    if not getattr(policy, "enabled", True):
        return GiveUp.NOT_RETRIED
    policy.begin()
    policy.statistics.update(
        start_time=state.start_time, attempt_number=state.attempt_number, idle_for=state.idle_for
    )
    traceback = error.__traceback__
    try:
        action = policy.iter(state)
    except BaseException as e:
        # tenacity gives up by raising; the iteration's state names the step that did.
        if policy.iter_state.stop_run_result:
            return GiveUp.STOPPED
        if e is error:
            return GiveUp.NOT_RETRIED
        raise
    finally:
        # tenacity raised the error again, which has added frames that are not the task's.
        error.__traceback__ = traceback
    assert isinstance(action, DoSleep), f"a policy answered {action!r} to a failed attempt"
    if not math.isfinite(action):
        raise ValueError(f"the policy's wait is {float(action)} s, which is no time to wait")
    return Again(max(0.0, float(action)), state.idle_for)
