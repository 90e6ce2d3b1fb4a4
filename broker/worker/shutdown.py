"""The stop of a worker process, and the timeouts of its steps."""

from __future__ import annotations

import threading

from ..process import clock
from ..process.forks import reset_on_fork

#: The time in which Kafka may accept the outboxes of a stopping worker's last tasks.
SETTLE_TIMEOUT_S = 10.0
#: The time for which a consumer may wait for Kafka while it closes.
CLOSE_TIMEOUT_S = 5.0
#: The same after other consumers have waited for Kafka until their timeout.
SHORT_CLOSE_TIMEOUT_S = 0.25


class Shutdown:
    """The stop of one process's workers. Thread-safe; one object serves all consumers of a broker.

    Attributes:
      asked: Set while the process stops, for threads that wait for Kafka.
      stopping: The same, for those that ask at every message. Nothing more is dispatched then, and each
        completed offset is committed immediately.
      close_timeout_s: The time for which each consumer may wait for Kafka while it closes.
    """

    def __init__(self) -> None:
        self.close_timeout_s = CLOSE_TIMEOUT_S
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Forget a stop: the workers belong to the parent of a fork."""
        self.asked = threading.Event()
        self.stopping = False
        self._spent_on_closing_s = 0.0
        self._settle_deadline_s: float | None = None

    def begin_working(self) -> None:
        """Let a worker run, also after an earlier worker of this process has stopped."""
        self.stopping = False
        self.asked.clear()

    def begin_stopping(self, *, timeout_s: float | None = None) -> None:
        """Begin the stop.

        Parameters:
          timeout_s: The timeout of each step; by default the constants of this module.
        """
        self._settle_deadline_s = None
        self._spent_on_closing_s = 0.0
        if timeout_s is not None:
            self._settle_deadline_s = clock.monotonic_s() + timeout_s
            self.close_timeout_s = timeout_s
        self.stopping = True
        self.asked.set()

    def leave_group_timeout_s(self) -> float:
        """The time for which the next consumer may wait for Kafka while it closes.

        The consumers of a stopping worker are closed one after another. Their timeouts share one budget:
        without it, the stop of a worker with many queues would take many timeouts while Kafka is unreachable.
        """
        return max(SHORT_CLOSE_TIMEOUT_S, self.close_timeout_s - self._spent_on_closing_s)

    def note_close_timeout(self, waited_s: float) -> None:
        """Note that a consumer has closed without an answer from Kafka."""
        if self.stopping:
            self._spent_on_closing_s += waited_s

    def settle_time_left_s(self) -> float:
        """The time left for the outboxes of the last tasks; 0.0 in a process that does not stop.

        All queues of a worker share one SETTLE_TIMEOUT_S, which begins with the first call.
        """
        if not self.stopping:
            return 0.0
        if self._settle_deadline_s is None:
            self._settle_deadline_s = clock.monotonic_s() + SETTLE_TIMEOUT_S
        return max(0.0, self._settle_deadline_s - clock.monotonic_s())
