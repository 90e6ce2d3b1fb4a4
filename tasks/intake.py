"""No task is taken while PostgreSQL is away: each would fail, and use up the attempts of a whole backlog."""

import logging
import threading
from collections.abc import Callable

from broker import KafkaBroker
from db.errors import DatabaseError

logger = logging.getLogger(__name__)

#: Between two questions to a PostgreSQL that is away.
ASK_INTERVAL_S = 1.0


class Intake:
    """Whether this worker process takes tasks. Open until somebody has found PostgreSQL away; then a thread
    asks until it answers. Thread-safe.

    Parameters:
      ping: Asks PostgreSQL for a sign of life; raises a DatabaseError when there is none. It says in the log
        when that changes.
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
        """Have this process's intake looked after. Before, and after a stop, it stays as it is."""
        self._stopped.clear()

    def stop(self) -> None:
        self._stopped.set()

    def close_if_away(self) -> bool:
        """Ask PostgreSQL; without an answer, take no more tasks until there is one. Returns whether it is
        closed, also by an earlier call."""
        if self._stopped.is_set() or self.is_closed or self._answers():
            return self.is_closed
        self._broker.consumption_paused = True
        threading.Thread(target=self._reopen, name="intake", daemon=True).start()
        return True

    def _reopen(self) -> None:
        while not self._stopped.wait(ASK_INTERVAL_S):
            if self._answers():
                break
        self._broker.consumption_paused = False

    def _answers(self) -> bool:
        try:
            self._ping()
        except DatabaseError:  # logged where it was noticed
            return False
        return True
