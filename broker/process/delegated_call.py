"""A call that another thread makes for a caller that may be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class DelegatedCall(Generic[T]):
    """One call of a function, and its end.

    The first thread that takes the call makes it. Any thread ends it: the one that made it, or another one
    that learns of the end. The caller waits, and can be interrupted by Dramatiq at any instruction. It waits
    on a plain lock for that reason: an interrupt within a Condition, of which an Event or a Future consists,
    can leave the lock of the Condition acquired for ever.

    Parameters:
      function: Called once at most.

    Attributes:
      is_made: Whether the function has returned or raised. The call may end later.
      error: The error of the function.
    """

    __slots__ = ("_ended", "_function", "_result", "_taken", "error", "is_made")

    #: Set once the function has returned.
    _result: T

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._taken = threading.Lock()
        #: Released by the end of the call.
        self._ended = threading.Lock()
        self._ended.acquire()
        self.is_made = False
        self.error: Exception | None = None

    def take(self) -> bool:
        """Take the call: whether this thread is the first to do so. The others leave it alone."""
        return self._taken.acquire(blocking=False)

    @property
    def is_taken(self) -> bool:
        """Whether a thread has taken the call."""
        return self._taken.locked()

    def make(self) -> None:
        """Call the function, and keep its result or its error for :meth:`result`."""
        try:
            self._result = self._function()
        except Exception as e:  # noqa: BLE001
            # The caller raises it.
            self.error = e
        self.is_made = True

    def end(self, *_: object) -> None:
        """Let the caller continue. To be called once; arguments, as a future passes them, are ignored."""
        self._ended.release()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end, ``timeout_s`` at most; whether the call has ended. One thread waits, and no more
        after the end.
        """
        return self._ended.acquire(timeout=timeout_s)

    def result(self) -> T:
        """The result of the function, once the call is made.

        Raises:
          Exception: The error of the function.
          RuntimeError: When the call is not made.
        """
        if self.error is not None:
            raise self.error
        if not self.is_made:
            raise RuntimeError("The call is not made: its thread has ended, or is still in it.")
        return self._result
