"""What several threads need at once, and one of them tries for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from .errors import KafkaUnavailable

T = TypeVar("T")


class SharedAttempts:
    """Makes one attempt at a time, and shares its failure with those who wait for their turn.

    While Kafka is away an attempt ends only with its time, and so many threads that tried one after the other
    would each wait for all before them.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._failed: tuple[float, KafkaUnavailable] | None = None

    def run(self, attempt: Callable[[], T], *, deadline_s: float) -> T:
        """Call ``attempt``, which ends by ``deadline_s`` (of ``time.monotonic()``).

        It is to look first whether what it is for has been done meanwhile, by the thread before.

        Raises:
          KafkaUnavailable: When it failed, when another thread's failed that began after this call, or when
            it was nobody's turn by ``deadline_s``.
        """
        asked_s = time.monotonic()
        if not self._turn.acquire(timeout=max(0.0, deadline_s - asked_s)):
            raise KafkaUnavailable("Kafka was not reached in time; another thread still tries to.")
        try:
            if self._failed is not None and self._failed[0] >= asked_s:
                raise KafkaUnavailable(str(self._failed[1])) from self._failed[1]
            began_s = time.monotonic()
            try:
                return attempt()
            except KafkaUnavailable as e:
                self._failed = began_s, e
                raise
        finally:
            self._turn.release()
