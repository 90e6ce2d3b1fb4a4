"""Asks a tenacity policy what follows from one failed attempt. Pure but for the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tenacity import DoSleep, RetryCallState, Retrying


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt.

    Attributes:
      wait_s: After so many seconds.
      idle_for_s: The sum of all waits so far, this one included.
    """

    wait_s: float
    idle_for_s: float


class GiveUp(Enum):
    """No further attempt: the policy has stopped, or its predicate is not true of this error."""

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
    """What tenacity would know of a call, had one process made all its attempts.

    Parameters:
      attempt_number: 1 for the first.
      age_s: How long ago the message was sent: ``seconds_since_start`` covers its whole life.
      idle_for_s: The sum of its waits.
      error: What the attempt failed with; None before an attempt.
    """
    state = RetryCallState(policy, fn, tuple(args), dict(kwargs))
    state.attempt_number = attempt_number
    state.idle_for = idle_for_s
    if error is not None:
        state.set_exception((type(error), error, error.__traceback__))
    now_s = time.monotonic() if state.outcome_timestamp is None else state.outcome_timestamp
    state.start_time = now_s - age_s
    return state


def decide(policy: Retrying, state: RetryCallState) -> Again | GiveUp:
    """Run one step of ``policy``, a copy that nothing else uses, on a failed attempt.

    Raises:
      ValueError: When its wait is not finite.
      Exception: Whatever its own parts raise.
    """
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    if not policy.enabled:
        return GiveUp.NOT_RETRIED
    policy.begin()
    policy.statistics.update(
        start_time=state.start_time, attempt_number=state.attempt_number, idle_for=state.idle_for
    )
    traceback = error.__traceback__
    try:
        action = policy.iter(state)
    except BaseException as e:
        # tenacity gives up by raising; which of its steps said so is in the iteration's state.
        if policy.iter_state.stop_run_result:
            return GiveUp.STOPPED
        if e is error:
            return GiveUp.NOT_RETRIED
        raise
    finally:
        # Raised once more in there, it has collected frames that have nothing to do with the task.
        error.__traceback__ = traceback
    assert isinstance(action, DoSleep), f"a policy answered {action!r} to a failed attempt"
    if not math.isfinite(action):
        raise ValueError(f"the policy's wait is {float(action)} s, which is no time to wait")
    return Again(max(0.0, float(action)), state.idle_for)
