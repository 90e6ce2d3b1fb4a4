"""Batches the sends of concurrent threads, so that they share a request."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import KafkaUnavailable
from ..kafka.protocol import SendFuture
from ..kafka.types import TopicPartition
from ..process.delegated_call import DelegatedCall
from ..process.forks import reset_on_fork

#: The time for which a batch waits for callers that just received their responses and may send again.
BATCH_LINGER_S = 0.001
#: The time for which the next batch waits for the response to the previous one. A slower Kafka gets several
#: batches at once, so that no caller times out behind another caller's batch.
MAX_BATCH_WAIT_S = 0.02
#: The sending thread ends after this idle time.
IDLE_S = 5.0
#: A caller sends its records itself when no thread has taken them for this time: the sending thread is slow
#: or has ended.
THREAD_START_TIMEOUT_S = 0.5


class _Current(threading.local):
    """The number of the batch that this thread sends; None for a thread that sends its own records."""

    batch: int | None = None


_current = _Current()


def current_batch() -> int | None:
    """The number of the batch that this thread sends; None for a thread that sends its own records."""
    return _current.batch


@dataclass(slots=True)
class Sent:
    """The records that one caller sent, by their index.

    Attributes:
      pending: The futures of the records in flight.
      failures: Why the other records could not be sent.
      watched: The ``watch`` callbacks of records, each with the partition, the future and the
        leader epoch of the partition at that time.
    """

    pending: list[tuple[int, SendFuture]] = field(default_factory=list)
    failures: dict[int, BaseException] = field(default_factory=dict)
    watched: list[tuple[Callable[..., None], TopicPartition, SendFuture, int | None]] = field(
        default_factory=list
    )


T = TypeVar("T")


class SendBatcher:
    """Sends for all concurrent threads in batches: while one batch is in flight, the next one collects.

    A request costs kafka-python about a millisecond of processor time. Without batches kafka-python sends a
    record at once, and sixteen threads need a request for every six to seven sends. A single thread sends
    directly and does not wait.

    No caller works for another one. So an interrupt that Dramatiq raises in a worker's thread ends only that
    thread's own call, and neither delays nor loses a batch.
    """

    def __init__(self) -> None:
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Start without callers and without the sending thread, which stays in the parent."""
        # Thread ids instead of a count: an interrupt that skips the end of a call leaves an entry. The next
        # call of the thread removes it; until then it costs the others at most BATCH_LINGER_S.
        self._callers: set[int] = set()
        self._calls: list[DelegatedCall[Sent]] = []
        # Callers acquire the lock directly: a Condition's `with` is Python code, and an interrupt within it
        # leaves the lock acquired.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._running = False

    def produce(self, send: Callable[[], Sent], wait: Callable[[Sent], T], *, timeout_s: float) -> T:
        """Call ``send`` on this thread or on the sending thread, and pass its result to ``wait``.

        Parameters:
          timeout_s: The time limit of ``send``, which must not block.

        Raises:
          KafkaUnavailable: When ``send`` took longer.
        """
        caller = threading.get_ident()
        self._callers.add(caller)
        try:
            alone = len(self._callers) == 1
            return wait(send() if alone else self._send_with_others(send, timeout_s))
        finally:
            self._callers.discard(caller)

    def _send_with_others(self, send: Callable[[], Sent], timeout_s: float) -> Sent:
        call = DelegatedCall(send)
        with self._lock:
            self._calls.append(call)
            if not self._running:
                self._running = True
                # Thread.start() waits for the new thread, which has this thread's id until it runs. An
                # interrupt for this thread could end the new one before it reports that it runs.
                try:
                    _thread.start_new_thread(self._run, ())
                except RuntimeError:
                    self._running = False  # the process ends: callers send directly after the timeout
            elif len(self._calls) == 1 or self._all_callers_wait():
                self._changed.notify()
        if not call.wait(min(THREAD_START_TIMEOUT_S, timeout_s)):
            if call.take():
                self._running = False
                return send()
            call.wait(max(0.0, timeout_s - THREAD_START_TIMEOUT_S))
        if not call.is_made:
            raise KafkaUnavailable(f"The sends of other threads took longer than {timeout_s:.1f} s.")
        return call.result()

    def _run(self) -> None:
        _current.batch = 0
        while calls := self._next_batch():
            taken = [call for call in calls if call.take()]
            for call in taken:
                call.make()
            _when_answered(taken).acquire(timeout=MAX_BATCH_WAIT_S)
            _current.batch += 1

    def _next_batch(self) -> list[DelegatedCall[Sent]]:
        """The waiting calls, and those that arrive within BATCH_LINGER_S; none once the thread must end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._calls, IDLE_S):
                self._running = False
                return []
            self._changed.wait_for(self._all_callers_wait, BATCH_LINGER_S)
            calls, self._calls = self._calls, []
            return calls

    def _all_callers_wait(self) -> bool:
        """Whether all callers in `produce` have a waiting call."""
        return len(self._calls) >= len(self._callers)


def _when_answered(calls: list[DelegatedCall[Sent]]) -> threading.Lock:
    """End each call once Kafka has responded to it. The returned lock is released with the last call.

    kafka-python's I/O thread, which receives the response, ends the calls. A thread in between would be one
    more to wake up.
    """
    all_answered = threading.Lock()
    last = None
    for call in calls:
        pending = call.result().pending if call.error is None else []
        if not pending:
            call.end()
            continue
        _, last = pending[-1]
        last.add_both(call.end)
    if last is not None:
        all_answered.acquire()
        last.add_both(lambda _: all_answered.release())
    return all_answered
