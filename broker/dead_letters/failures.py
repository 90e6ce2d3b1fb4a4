"""What ``join(fail_fast=True)`` raises: the error of a message that ended as a dead letter."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from ..errors import MessageFailed
from ..process.forks import reset_on_fork
from . import DeadLetter, DeadLetterQueue

#: How many errors of this process's own messages are kept for a join; of others only their text is known.
MAX_KEPT = 64


class Failures:
    """The dead letters of each queue that nobody has been told of yet.

    Those count that were written since this was made, by the clocks of the processes that wrote them.
    """

    def __init__(self, dead_letters: DeadLetterQueue) -> None:
        self._dead_letters = dead_letters
        self.reset_after_fork()
        reset_on_fork(self)
        self._made_ms = _now_ms()
        self._flushed_ms: dict[str, int] = {}
        #: By queue and partition: the offset after the last dead letter that was seen.
        self._seen: dict[tuple[str, int], int] = {}
        self._errors: OrderedDict[str, BaseException] = OrderedDict()

    def reset_after_fork(self) -> None:
        """Give up the lock, which another thread of the parent may have held when this process was forked."""
        self._lock = threading.Lock()

    def keep(self, message_id: str, error: BaseException | None) -> None:
        """Remember the error that a message of this process has ended with, without what it refers to.

        The frames of its traceback would keep alive whatever the task had in its hands. The text of the
        traceback is in the dead letter.
        """
        if error is None:
            return
        _drop_frames(error)
        with self._lock:
            self._errors[message_id] = error
            self._errors.move_to_end(message_id)
            while len(self._errors) > MAX_KEPT:
                self._errors.popitem(last=False)

    def forget(self, queue_name: str) -> None:
        """Take all that has failed so far for known."""
        self._flushed_ms[queue_name] = _now_ms()

    def first(self, queue_name: str) -> BaseException | None:
        """The error of the first message that failed since this was last asked; None when none did.

        Raises:
          KafkaUnavailable: When Kafka does not answer.
        """
        since_ms = max(self._made_ms, self._flushed_ms.get(queue_name, 0))
        dead_letters = []
        for dead_letter in self._dead_letters.read(queue_name):
            assert dead_letter.position is not None
            place = queue_name, dead_letter.position.partition
            if dead_letter.timestamp >= since_ms and dead_letter.position.offset >= self._seen.get(place, 0):
                dead_letters.append(dead_letter)
        for dead_letter in dead_letters:
            assert dead_letter.position is not None
            self._seen[queue_name, dead_letter.position.partition] = dead_letter.position.offset + 1
        return (
            self._error_of(min(dead_letters, key=lambda dead_letter: dead_letter.timestamp))
            if dead_letters
            else None
        )

    def _error_of(self, dead_letter: DeadLetter) -> BaseException:
        with self._lock:
            own = (
                None
                if dead_letter.message is None
                else self._errors.pop(dead_letter.message.message_id, None)
            )
        if own is not None and type(own).__name__ == dead_letter.error_type:
            error = own
        else:
            error = MessageFailed(
                None if dead_letter.message is None else dead_letter.message.message_id,
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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
