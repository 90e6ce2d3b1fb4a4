"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_INTERVAL_S = 0.02


def wait_until(condition: Callable[[], T | None], *, deadline_s: float, what: str) -> T:
    """Call `condition` until it returns a true value, and return that value.

    Parameters:
      condition: Called about every 20 ms; its exceptions are raised here.
      deadline_s: The longest wait in seconds.
      what: The name of the condition, for the error's text.

    Raises:
      TimeoutError: Naming `what` and the last answer.
    """
    give_up_at = time.monotonic() + deadline_s
    while not (answer := condition()):
        if time.monotonic() >= give_up_at:
            raise TimeoutError(
                f"Waited {deadline_s:g} s for {what} without success; the last answer was {answer!r}"
            )
        time.sleep(POLL_INTERVAL_S)
    return answer
