"""Whether the tasks of a queue may begin in this process."""

from __future__ import annotations

import math

from ..process import clock


class Gate:
    """The state that a task must pass before it begins. ``InFlightDeliveries.lock`` guards all fields.

    A process that is no worker has an open gate. In a worker ``control`` sets the fields.

    Attributes:
      paused: The paused queues.
      is_quiet: Whether the worker takes no more work.
      aborted: The ids of the messages that an operator has aborted, with the times until which that holds, in
        milliseconds since 1970. Their tasks do not run.
      open_until_s: The end of the control lease (``clock.monotonic_s()``). After it no task begins: a pause
        may stand that this process has not read, as it was frozen, or Kafka does not answer it.
    """

    def __init__(self) -> None:
        self.paused: frozenset[str] = frozenset()
        self.is_quiet = False
        self.aborted: dict[str, int] = {}
        self.open_until_s = math.inf

    def is_aborted(self, message_id: str) -> bool:
        """Whether the task of a message is not to run. It takes no lock."""
        expires_at_ms = self.aborted.get(message_id)
        return expires_at_ms is not None and clock.wall_ms() < expires_at_ms

    def admits(self, queue_name: str) -> bool:
        """Whether a task of the queue may begin now."""
        return queue_name not in self.paused and not self.is_quiet and clock.monotonic_s() < self.open_until_s
