"""The errors that ``join(fail_fast=True)`` raises: those of messages that became dead letters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from ..errors import MessageFailed, MessageOfUnknownActor, UnknownActor
from ..process import clock
from ..process.forks import reset_on_fork
from . import DeadLetter, DeadLetterQueue

#: The number of errors of this process's own messages that are kept for a join, by queue. A join raises the
#: error of the first dead letter, which may be one of a few: two threads may fail at the same time.
MAX_KEPT = 4


class Failures:
    """The dead letters of each queue that no join has reported yet.

    Only dead letters count that were written after this object was created, by the clocks of their writers.

    Parameters:
      wanted: Whether errors are kept before the first join that fails fast, too.
    """

    def __init__(self, dead_letters: DeadLetterQueue, *, wanted: Callable[[], bool]) -> None:
        self._dead_letters = dead_letters
        self._wanted = wanted
        self.reset_after_fork()
        reset_on_fork(self)
        self._created_ms = clock.wall_ms()
        self._flushed_ms: dict[str, int] = {}
        #: By queue and partition: the offset after the last reported dead letter.
        self._seen: dict[tuple[str, int], int] = {}
        #: By queue and message id.
        self._errors: dict[str, dict[str, BaseException]] = {}

    def reset_after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held during the fork."""
        self._lock = threading.Lock()

    def keep_from_now_on(self) -> None:
        """Keep errors: a join of this process fails fast."""
        self._wanted = lambda: True

    def keep(self, queue_name: str, message_id: str, error: BaseException | None) -> None:
        """Keep the error of a message that failed in this process, without the frames of its traceback.

        No error is kept before a join that fails fast, since an error may hold large objects. The frames
        would keep the task's objects alive. The text of the traceback is in the dead letter.
        """
        if error is None or not self._wanted():
            return
        with self._lock:
            errors = self._errors.setdefault(queue_name, {})
            if len(errors) >= MAX_KEPT:
                return
            _drop_frames(error)
            errors[message_id] = error

    def forget(self, queue_name: str) -> None:
        """Treat all failures so far as reported."""
        self._flushed_ms[queue_name] = clock.wall_ms()
        self._take(queue_name)

    def _take(self, queue_name: str) -> dict[str, BaseException]:
        """Remove and return the kept errors of a queue, by message id."""
        with self._lock:
            return self._errors.pop(queue_name, {})

    def first(self, queue_name: str) -> BaseException | None:
        """The error of the first message that failed since the last call; None when none failed.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        # All of them: each belongs to a dead letter that is reported, or skipped, below.
        own = self._take(queue_name)
        since_ms = max(self._created_ms, self._flushed_ms.get(queue_name, 0))
        dead_letters = []
        for dead_letter in self._dead_letters.read(queue_name):
            assert dead_letter.dlq_origin is not None
            place = queue_name, dead_letter.dlq_origin.partition
            if dead_letter.timestamp >= since_ms and dead_letter.dlq_origin.offset >= self._seen.get(
                place, 0
            ):
                dead_letters.append(dead_letter)
        for dead_letter in dead_letters:
            assert dead_letter.dlq_origin is not None
            self._seen[queue_name, dead_letter.dlq_origin.partition] = dead_letter.dlq_origin.offset + 1
        return (
            _error_of(min(dead_letters, key=lambda dead_letter: dead_letter.timestamp), own)
            if dead_letters
            else None
        )


def _error_of(dead_letter: DeadLetter, own: Mapping[str, BaseException]) -> BaseException:
    """The error of a dead letter: the task's own error, if ``own`` has it by message id."""
    message_id = None if dead_letter.message is None else dead_letter.message.message_id
    error = None if message_id is None else own.get(message_id)
    if error is None or type(error).__name__ != dead_letter.error_type:
        kind = MessageOfUnknownActor if dead_letter.error_type == UnknownActor.__name__ else MessageFailed
        error = kind(
            message_id,
            error_type=dead_letter.error_type,
            error=dead_letter.error,
            traceback=dead_letter.traceback,
        )
    if dead_letter.traceback:
        error.add_note(f"Where it failed:\n{dead_letter.traceback}")
    return error


def _drop_frames(error: BaseException) -> None:
    met: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in met:
            met.add(id(each))
            each.__traceback__ = None
            left += [each.__cause__, each.__context__]
