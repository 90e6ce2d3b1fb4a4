"""A question to a cluster in memory that is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ...kafka.errors import KafkaError, KafkaTimeoutError
from ...process import clock

T = TypeVar("T")


class PendingAnswer(Generic[T]):
    """A question that is answered once the cluster can be reached.

    Parameters:
      ask: Asks, and raises a KafkaTimeoutError when the cluster is not reached at once.
    """

    def __init__(self, ask: Callable[[float], T], timeout_ms: float) -> None:
        self._ask = ask
        self._deadline_s = clock.monotonic_s() + timeout_ms / 1000
        self._answers: list[T] = []
        self._failure: KafkaError | None = None

    @property
    def is_done(self) -> bool:
        self._look(0.0)
        return bool(self._answers) or self._failure is not None

    def succeeded(self) -> bool:
        return self.is_done and self._failure is None

    @property
    def value(self) -> T:
        return self._answers[0]

    def wait(self) -> T:
        self._look(max(0.0, self._deadline_s - clock.monotonic_s()))
        if self._failure is not None:
            raise self._failure
        return self._answers[0]

    def _look(self, timeout_s: float) -> None:
        if self._answers or self._failure is not None:
            return
        try:
            self._answers.append(self._ask(timeout_s))
        except KafkaTimeoutError as e:
            if clock.monotonic_s() >= self._deadline_s:
                self._failure = e
        except KafkaError as e:
            self._failure = e
