"""Lets threads that send at the same moment share a request."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ..errors import KafkaUnavailable
from ..kafka.protocol import SendFuture
from ..process.forks import reset_on_fork

#: How long a round waits for callers that were just answered and may send again.
BATCH_LINGER_S = 0.001
#: How long the next round waits for the answer to the one before. A Kafka that takes longer gets several at
#: once, so that nobody's time runs out in somebody else's round.
MAX_BATCH_WAIT_S = 0.02
#: The thread that sends for others ends when nobody has needed it for so long.
IDLE_S = 5.0
#: A caller whose records nobody has taken for so long sends them itself: the thread is slow, or is no more.
THREAD_START_TIMEOUT_S = 0.5


class _Current(threading.local):
    """The number of the round that this thread sends; None for a thread that sends for itself."""

    batch: int | None = None


_current = _Current()


def current_batch() -> int | None:
    """The number of the batch that this thread sends; None for a thread that sends for itself."""
    return _current.batch


@dataclass(slots=True)
class Sent:
    """What became of one caller's records so far, by their index.

    Attributes:
      pending: Those that are on their way.
      failures: Why the others could not be sent.
      watched: Those of which somebody wants to know where they are: who, the partition and the answer.
    """

    pending: list[tuple[int, SendFuture]] = field(default_factory=list)
    failures: dict[int, BaseException] = field(default_factory=dict)
    watched: list[tuple[Callable[[int, int | None], None], int, SendFuture]] = field(default_factory=list)


T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _QueuedSend:
    send: Callable[[], Sent]
    #: Whoever gets it sends.
    taken: threading.Lock = field(default_factory=threading.Lock)
    #: Free once Kafka has answered, or the sending has failed.
    answered: threading.Lock = field(default_factory=threading.Lock)
    sent: Sent | None = None
    error: Exception | None = None

    def run(self) -> None:
        try:
            self.sent = self.send()
        except Exception as e:  # noqa: BLE001
            # It is the caller's, who raises it.
            self.error = e


class SendBatcher:
    """Sends for all threads that send at the same time, in rounds: while one is on its way, the next gathers.

    A request costs kafka-python about a millisecond of processor time, and as it sends a record as soon as it
    has one, sixteen threads paid for a request every six to seven sends. A thread that is alone sends by
    itself and waits for nothing.

    No caller does anything for another one: an interrupt that Dramatiq raises in a worker's thread ends its
    own call, and neither holds up a round nor loses one.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Begin without callers, and without the thread, which stays with the parent of a fork."""
        # Thread ids, and not a count: an interrupt that skips the end of a call leaves an entry that the
        # thread's next call takes away, and that costs the others BATCH_LINGER_S at most.
        self._callers: set[int] = set()
        self._calls: list[_QueuedSend] = []
        # Callers take the lock itself: a Condition's own `with` is Python, and an interrupt that ends it
        # halfway leaves the lock taken.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._running = False

    def produce(self, send: Callable[[], Sent], wait: Callable[[Sent], T], *, timeout_s: float) -> T:
        """Call ``send``, here or on the thread that does so for all, and give ``wait`` what it returned.

        Parameters:
          timeout_s: How long the sending, which waits for nothing, may take at most.

        Raises:
          KafkaUnavailable: When it took longer.
        """
        caller = threading.get_ident()
        self._callers.add(caller)
        try:
            alone = len(self._callers) == 1
            return wait(send() if alone else self._send_with_others(send, timeout_s))
        finally:
            self._callers.discard(caller)

    def _send_with_others(self, send: Callable[[], Sent], timeout_s: float) -> Sent:
        call = _QueuedSend(send)
        call.answered.acquire()
        with self._lock:
            self._calls.append(call)
            if not self._running:
                self._running = True
                # Thread.start() waits for the new thread, which has this one's id until it runs: an interrupt
                # that is meant for this one may end the new one before it says that it runs.
                try:
                    _thread.start_new_thread(self._run, ())
                except RuntimeError:
                    self._running = False  # the process ends: each sends by itself, after PATIENCE_S
            elif len(self._calls) == 1 or self._all_have_come():
                self._changed.notify()
        if not call.answered.acquire(timeout=min(THREAD_START_TIMEOUT_S, timeout_s)):
            if call.taken.acquire(blocking=False):
                self._running = False
                return send()
            call.answered.acquire(timeout=max(0.0, timeout_s - THREAD_START_TIMEOUT_S))
        if call.error is not None:
            raise call.error
        if call.sent is None:
            raise KafkaUnavailable(f"What other threads send did not get away within {timeout_s:.1f} s.")
        return call.sent

    def _run(self) -> None:
        _current.batch = 0
        while calls := self._next_batch():
            taken = [call for call in calls if call.taken.acquire(blocking=False)]
            for call in taken:
                call.run()
            _when_answered(taken).acquire(timeout=MAX_BATCH_WAIT_S)
            _current.batch += 1

    def _next_batch(self) -> list[_QueuedSend]:
        """Whatever waits, and what comes within BATCH_LINGER_S; nothing once the thread is to end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._calls, IDLE_S):
                self._running = False
                return []
            self._changed.wait_for(self._all_have_come, BATCH_LINGER_S)
            calls, self._calls = self._calls, []
            return calls

    def _all_have_come(self) -> bool:
        """Whether everybody who is in here waits to be sent for."""
        return len(self._calls) >= len(self._callers)


def _when_answered(calls: list[_QueuedSend]) -> threading.Lock:
    """Let each call go on once Kafka has answered it; the lock that is returned is free once the last may.

    kafka-python's thread does that, which has the answer. A thread in between would be one more to wake up.
    """
    over = threading.Lock()
    last = None
    for call in calls:
        if call.sent is None or not call.sent.pending:
            call.answered.release()
            continue
        _, last = call.sent.pending[-1]
        last.add_both(partial(_release, call.answered))
    if last is not None:
        over.acquire()
        last.add_both(partial(_release, over))
    return over


def _release(lock: threading.Lock, _answer: object) -> None:
    lock.release()
