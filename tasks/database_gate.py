"""The gate closes while PostgreSQL is unreachable: otherwise each task would fail and use up its attempts."""

import logging
import threading
from collections.abc import Callable

from broker import KafkaBroker
from db.errors import DatabaseError

logger = logging.getLogger(__name__)

#: The pause between two pings of an unreachable PostgreSQL.
PING_INTERVAL_S = 1.0


class DatabaseGate:
    """Decides whether this worker process takes tasks. Thread-safe.

    It is open until a task finds PostgreSQL unreachable. A thread then pings until PostgreSQL answers.

    Parameters:
      ping: Asks PostgreSQL for a sign of life and raises DatabaseError without one. It logs changes.
    """

    def __init__(self, broker: KafkaBroker, ping: Callable[[], None]) -> None:
        self._broker = broker
        self._ping = ping
        self._stopped = threading.Event()
        self._stopped.set()

    @property
    def is_closed(self) -> bool:
        return self._broker.consumption_paused

    def start(self) -> None:
        """Let the gate close and open. Before this call, and after :meth:`stop`, it stays as it is."""
        self._stopped.clear()

    def stop(self) -> None:
        self._stopped.set()

    def close_if_unreachable(self) -> bool:
        """Ping PostgreSQL; without an answer, close the gate until there is one.

        Returns:
          Whether the gate is closed, also by an earlier call.
        """
        if self._stopped.is_set() or self.is_closed or self._answers():
            return self.is_closed
        self._broker.consumption_paused = True
        threading.Thread(target=self._reopen, name="database-gate", daemon=True).start()
        return True

    def _reopen(self) -> None:
        while not self._stopped.wait(PING_INTERVAL_S):
            if self._answers():
                break
        self._broker.consumption_paused = False

    def _answers(self) -> bool:
        try:
            self._ping()
        except DatabaseError:  # the ping has logged it
            return False
        return True
