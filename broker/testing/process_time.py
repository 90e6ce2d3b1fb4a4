"""Lets this process, and Dramatiq in it, go by a clock of the tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dramatiq.common
import dramatiq.message
import dramatiq.middleware.time_limit

from ..process import clock as process_clock
from .clock import ManualClock

#: Dramatiq's modules that wait for threads, or measure the machine: they keep the system's clock.
_REAL_TIME = ("dramatiq.worker", "dramatiq.actor", "dramatiq.cli", "dramatiq.brokers.")


class _Time:
    """Stands for the module ``time`` in Dramatiq's modules.

    Parameters:
      before_sleep: Called before each sleep, such as that of a caller who waits for a result.
    """

    def __init__(self, clock: ManualClock, before_sleep: Callable[[], None]) -> None:
        self._clock = clock
        self._before_sleep = before_sleep

    def time(self) -> float:
        return self._clock.wall_ms() / 1000

    def monotonic(self) -> float:
        return self._clock.monotonic_s()

    def sleep(self, duration_s: float) -> None:
        self._before_sleep()
        self._clock.sleep(duration_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class ProcessTime:
    """The clock that the process goes by while somebody uses it."""

    def __init__(self) -> None:
        self.clock: ManualClock | None = None
        self._users = 0
        self._undoing = ExitStack()

    @contextmanager
    def use(self, clock: ManualClock, before_sleep: Callable[[], None]) -> Iterator[None]:
        """Let the process go by ``clock``. Its users may end in any order.

        Raises:
          RuntimeError: When the process goes by another one already.
        """
        if self.clock not in (None, clock):
            raise RuntimeError(
                "a process goes by one clock, and another kit in use has its own: pass that one, or none"
            )
        if self._users == 0:
            self._undoing.enter_context(process_clock.use(clock))
            self._undoing.enter_context(_dramatiq_by(clock, before_sleep))
            self.clock = clock
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self.clock = None
                self._undoing.close()


@contextmanager
def _dramatiq_by(clock: ManualClock, before_sleep: Callable[[], None]) -> Iterator[None]:
    """Let Dramatiq's messages, middleware, results and rate limits go by the clock.

    They ask the clock in three ways, which tests/broker/testing/test_dramatiqs_private_parts.py pins.
    """
    replacements: dict[str, tuple[object, object]] = {
        "current_millis": (dramatiq.common.current_millis, clock.wall_ms),
        "time": (time, _Time(clock, before_sleep)),
    }
    undoing: list[tuple[dict[str, Any], str, object]] = []

    def replace(module: Any, name: str, new: object) -> None:
        undoing.append((vars(module), name, vars(module)[name]))
        vars(module)[name] = new

    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("dramatiq.") or module_name.startswith(_REAL_TIME):
            continue
        for name, (original, new) in replacements.items():
            if vars(module).get(name) is original:
                replace(module, name, new)
    replace(dramatiq.middleware.time_limit, "monotonic", clock.monotonic_s)
    try:
        yield
    finally:
        for names, name, original in undoing:
            names[name] = original
