"""One log line when a server becomes unreachable and one when it answers again."""

import logging
import math
import threading
import time


class OutageLog:
    """Records whether a server can be used, and logs each change once. Thread-safe."""

    def __init__(self, name: str, logger: logging.Logger) -> None:
        self._name = name
        self._logger = logger
        self._lock = threading.Lock()
        self._away_since_s: float | None = None
        self._back_since_s = -math.inf

    @property
    def is_away(self) -> bool:
        return self._away_since_s is not None

    def went_away(self, reason: object, *, asked_at_s: float = math.inf) -> None:
        """Record that the server cannot be used, and why.

        Parameters:
          asked_at_s: The start of the failed call (time.monotonic). A call that started before the server's
            last return is ignored.
        """
        with self._lock:
            if self._away_since_s is None and asked_at_s > self._back_since_s:
                self._away_since_s = time.monotonic()
                self._logger.warning("%s cannot be used: %s", self._name, reason)

    def came_back(self) -> None:
        """Record that the server can be used."""
        if self._away_since_s is None:
            return
        with self._lock:
            if self._away_since_s is not None:
                self._back_since_s = time.monotonic()
                away_s = self._back_since_s - self._away_since_s
                self._away_since_s = None
                self._logger.info("%s can be used again, after %.0f s", self._name, away_s)
