"""What several threads need at once, and one of them tries for all."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from ..errors import KafkaUnavailable, NotAuthorized
from ..process import clock, forks
from ..process.threads import start_unwaited

T = TypeVar("T")

#: A thread that has not begun after so long was ended before it could, and another one is started.
THREAD_START_TIMEOUT_S = 0.5
#: How soon a caller notices that it need not wait any more.
POLL_INTERVAL_S = 0.1


class SingleFlight:
    """Makes one attempt at a time, and shares its failure with those who wait for their turn.

    While Kafka is away an attempt ends only with its time, and so many threads that tried one after the other
    would each wait for all before them.

    An attempt is made on a thread of its own: it makes a Kafka client, which starts a thread, and that had
    better be started by one that nobody interrupts (see ``threads``).
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        forks.reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Give the turn back that a thread of the parent had when this process was forked."""
        self._turn = threading.Lock()
        self._failed: tuple[float, KafkaUnavailable | NotAuthorized] | None = None

    def run(self, attempt: Callable[[], T], *, deadline_s: float, unless: threading.Event | None = None) -> T:
        """Call ``attempt``, which ends by ``deadline_s`` (of ``clock.monotonic_s()``).

        It is to look first whether what it is for has been done meanwhile, by the thread before.

        Parameters:
          unless: Nobody waits once it is set; an attempt that has begun goes on.

        Raises:
          KafkaUnavailable: When it failed, when another thread's failed that began after this call, when it
            was nobody's turn by ``deadline_s``, or when ``unless`` was set first. NotAuthorized likewise.
        """
        forks.check_for_fork()
        asked_s = clock.monotonic_s()
        turn = self._turn
        while not turn.acquire(timeout=max(0.0, min(POLL_INTERVAL_S, deadline_s - clock.monotonic_s()))):
            _check(unless)
            if clock.monotonic_s() >= deadline_s:
                raise KafkaUnavailable("Kafka was not reached in time; another thread still tries to.")
        call = _Flight(partial(contextvars.copy_context().run, attempt), partial(self._end_turn, turn))
        try:
            if self._failed is not None and self._failed[0] >= asked_s:
                failure = self._failed[1]
                raise type(failure)(str(failure)) from failure
            _check(unless)
            return call.made_elsewhere(unless)
        finally:
            # When nobody waits any more, the turn lasts until the attempt has ended.
            if call.taken.acquire(blocking=False):
                turn.release()

    def _end_turn(self, turn: threading.Lock, began_s: float, error: Exception | None) -> None:
        if isinstance(error, KafkaUnavailable | NotAuthorized):
            self._failed = began_s, error
        turn.release()


class _Flight(Generic[T]):
    """One attempt, made by whichever thread takes it first."""

    def __init__(self, attempt: Callable[[], T], on_end: Callable[[float, Exception | None], None]) -> None:
        self.taken = threading.Lock()
        self._began_s = clock.monotonic_s()
        self._attempt = attempt
        self._on_end = on_end
        self._ended = threading.Lock()
        self._ended.acquire()
        self._result: list[T] = []
        self._error: Exception | None = None

    def made_elsewhere(self, unless: threading.Event | None) -> T:
        """Start a thread that makes the attempt, and wait for it."""
        started_s = -THREAD_START_TIMEOUT_S
        while not self._ended.acquire(blocking=False):
            if not self.taken.locked() and clock.monotonic_s() - started_s >= THREAD_START_TIMEOUT_S:
                if not start_unwaited(self._make, name="dramatiq-kafka-attempt"):
                    self._make()  # nobody is interrupted any more
                started_s = clock.monotonic_s()
            if self._ended.acquire(timeout=POLL_INTERVAL_S):
                break
            _check(unless)
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _make(self) -> None:
        if not self.taken.acquire(blocking=False):
            return
        try:
            self._result.append(self._attempt())
        except Exception as e:  # noqa: BLE001
            self._error = e  # it is the caller's, who raises it
        finally:
            self._on_end(self._began_s, self._error)
            self._ended.release()


def _check(unless: threading.Event | None) -> None:
    if unless is not None and unless.is_set():
        raise KafkaUnavailable("Kafka was not reached before this was to stop.")
