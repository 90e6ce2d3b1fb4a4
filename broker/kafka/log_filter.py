"""Keeps kafka-python from drowning an application's log."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

from ..process import clock
from ..process.forks import reset_on_fork

#: So many lines of each place in kafka-python's code are let through in so many seconds. Each client tries to
#: connect once a second, and an attempt that fails is worth five lines of a warning or worse.
LINES = 3
INTERVAL_S = 60.0


class RateLimitFilter(logging.Filter):
    """Lets the first few warnings of each line of code through, and the rest only after a while.

    Parameters:
      clock: Seconds that only ever go up.
    """

    def __init__(self, clock: Callable[[], float] = clock.monotonic_s) -> None:
        super().__init__()
        self._clock = clock
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Give up the lock, which another thread of the parent may have held when this process was forked."""
        self._lock = threading.Lock()
        self._began_s = self._clock()
        self._said: Counter[tuple[str, int]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged; the last one that is says that it is the last."""
        if record.levelno < logging.WARNING:
            return True
        place = record.name, record.lineno
        with self._lock:
            if self._clock() - self._began_s >= INTERVAL_S:
                self._said.clear()
                self._began_s = self._clock()
            self._said[place] += 1
            said = self._said[place]
        if said == LINES:
            record.msg = f"{record.getMessage()} (more of this is left out for up to {INTERVAL_S:g} s)"
            record.args = None
        return said <= LINES


_quiet = RateLimitFilter()


def drop_info_logs() -> None:
    """In a worker, let nothing below a warning of kafka-python's into the log, unless the application has
    said what it wants to see of it. Dramatiq's command line logs what is worth INFO.
    """
    logger = logging.getLogger("kafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def limit_kafka_python_logs() -> None:
    """Put the filter on each of kafka-python's loggers: one on their parent would not see their records."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("kafka.") and isinstance(logger, logging.Logger):
            logger.addFilter(_quiet)
