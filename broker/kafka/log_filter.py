"""Limits the number of log lines of kafka-python."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from kafka.errors import Cancelled

from ..process import clock
from ..process.forks import reset_on_fork

#: The number of lines that each place in kafka-python's code may log in INTERVAL_S. Each client tries to
#: connect once a second, and a failed attempt logs five lines of level WARNING or above.
LINES = 3
INTERVAL_S = 60.0


class RateLimitFilter(logging.Filter):
    """Passes the first LINES warnings of each line of code, and further ones after INTERVAL_S.

    Parameters:
      clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = lambda: clock.monotonic_s()) -> None:
        super().__init__()
        self._clock = clock
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held at the fork."""
        self._lock = threading.Lock()
        self._began_s = self._clock()
        self._counts: Counter[tuple[str, int]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged. The last logged record announces the pause."""
        if record.levelno < logging.WARNING:
            return True
        if isinstance(record.args, tuple) and any(isinstance(arg, Cancelled) for arg in record.args):
            return False  # a request of a client that this process has just closed
        place = record.name, record.lineno
        with self._lock:
            if self._clock() - self._began_s >= INTERVAL_S:
                self._counts.clear()
                self._began_s = self._clock()
            self._counts[place] += 1
            count = self._counts[place]
        if count == LINES:
            record.msg = f"{record.getMessage()} (more of this is left out for up to {INTERVAL_S:g} s)"
            record.args = None
        return count <= LINES


_filter = RateLimitFilter()


def drop_info_logs() -> None:
    """In a worker, log nothing of kafka-python below WARNING, unless the application has set a level for it.
    Dramatiq's command line logs at INFO.
    """
    logger = logging.getLogger("kafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def limit_kafka_python_logs() -> None:
    """Add the filter to each logger of kafka-python: a filter of their parent would not see their records."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("kafka.") and isinstance(logger, logging.Logger):
            logger.addFilter(_filter)
