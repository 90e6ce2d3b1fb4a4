"""Shares one attempt among all threads that need it at the same time."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ..errors import KafkaUnavailable, NotAuthorized
from ..process import clock, forks
from ..process.delegated_call import DelegatedCall
from ..process.threads import start_unwaited

T = TypeVar("T")

#: The time in which a new thread must begin. After it, the thread counts as ended by an interrupt, and
#: another one is started.
THREAD_START_TIMEOUT_S = 0.5
#: The interval in which a caller checks whether it must still wait.
POLL_INTERVAL_S = 0.1


class SingleFlight:
    """Makes one attempt at a time, and shares its failure with the threads that wait for their turn.

    While Kafka is unreachable, an attempt ends only at its deadline. Threads that tried one after the other
    would each wait for all threads before them.

    An attempt runs on a thread of its own. It constructs a Kafka client, which starts a thread, and a thread
    that Dramatiq may interrupt must not do that (see ``process.threads``).
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Return the turn that a thread of the parent had at the fork."""
        self._turn = threading.Lock()
        self._failed: tuple[float, KafkaUnavailable | NotAuthorized] | None = None

    def run(self, attempt: Callable[[], T], *, deadline_s: float, unless: threading.Event | None = None) -> T:
        """Call ``attempt``, which ends by ``deadline_s`` (of ``clock.monotonic_s()``).

        It first checks whether the thread before it has done the work already.

        Parameters:
          unless: No caller waits once it is set. An attempt that has begun continues.

        Raises:
          KafkaUnavailable: When the attempt failed, when the attempt of another thread failed that began
            after this call, when ``deadline_s`` passed before the turn, or when ``unless`` was set first.
            NotAuthorized likewise.
        """
        forks.check_for_fork()
        asked_s = clock.monotonic_s()
        turn = self._turn
        while not turn.acquire(timeout=max(0.0, min(POLL_INTERVAL_S, deadline_s - clock.monotonic_s()))):
            _check(unless)
            if clock.monotonic_s() >= deadline_s:
                raise KafkaUnavailable("Kafka was not reached in time; another thread still tries to.")
        call = DelegatedCall(partial(contextvars.copy_context().run, attempt))
        began_s = clock.monotonic_s()
        try:
            if self._failed is not None and self._failed[0] >= asked_s:
                failure = self._failed[1]
                raise type(failure)(str(failure)) from failure
            _check(unless)
            return _made_elsewhere(call, partial(self._make, call, turn, began_s), unless)
        finally:
            # Without a waiting caller, the turn lasts until the attempt has ended.
            if call.take():
                turn.release()

    def _make(self, call: DelegatedCall[T], turn: threading.Lock, began_s: float) -> None:
        if not call.take():
            return
        try:
            call.make()
        finally:
            if isinstance(call.error, KafkaUnavailable | NotAuthorized):
                self._failed = began_s, call.error
            turn.release()
            call.end()


def _made_elsewhere(call: DelegatedCall[T], make: Callable[[], None], unless: threading.Event | None) -> T:
    """Start a thread that calls ``make``, and wait for the end of ``call``."""
    started_s = -THREAD_START_TIMEOUT_S
    while not call.wait(0.0):
        if not call.is_taken and clock.monotonic_s() - started_s >= THREAD_START_TIMEOUT_S:
            if not start_unwaited(make, name="dramatiq-kafka-attempt"):
                make()  # the process ends, and Dramatiq interrupts no thread any more
            started_s = clock.monotonic_s()
        if call.wait(POLL_INTERVAL_S):
            break
        _check(unless)
    return call.result()


def _check(unless: threading.Event | None) -> None:
    if unless is not None and unless.is_set():
        raise KafkaUnavailable("Kafka was not reached before this was to stop.")
