"""The ends of the lanes topics, as Kafka has acknowledged them to this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ..offsets.committed_lanes import LogEnd
from ..process.forks import reset_on_fork


class AcknowledgedEnds:
    """The offset after the last acknowledged record, by topic and partition. Thread-safe.

    A former leader that was frozen, and has not learnt of its successor, answers with an earlier end of the
    log. A reader must therefore reach the ends that were acknowledged to this process.
    """

    def __init__(self) -> None:
        self._ends: dict[str, dict[int, int]] = {}
        self._log_ends: dict[str, dict[int, LogEnd]] = {}
        self._restarts: dict[str, int] = {}
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may hold. The ends stay valid in the child."""
        self._lock = threading.Lock()

    def note(self, topic: str, partition: int, offset: int, leader_epoch: int = -1) -> None:
        """Note that Kafka has acknowledged the record at ``offset``.

        Parameters:
          leader_epoch: The leader epoch of that record; -1 when it is not known.
        """
        with self._lock:
            ends = self._ends.setdefault(topic, {})
            ends[partition] = max(ends.get(partition, 0), offset + 1)
            if leader_epoch >= 0:
                log_ends = self._log_ends.setdefault(topic, {})
                end = LogEnd(offset + 1, leader_epoch)
                log_ends[partition] = max(log_ends.get(partition, end), end)

    def ends(self, topic: str) -> dict[int, int]:
        with self._lock:
            return dict(self._ends.get(topic, {}))

    def log_ends(self, topic: str) -> dict[int, LogEnd]:
        """The highest ends with a known leader epoch."""
        with self._lock:
            return dict(self._log_ends.get(topic, {}))

    def restart(self, topic: str, ends: Mapping[int, int]) -> None:
        """Replace the ends of a topic that was recreated or truncated."""
        with self._lock:
            self._ends[topic] = dict(ends)
            self._log_ends.pop(topic, None)
            self._restarts[topic] = self._restarts.get(topic, 0) + 1

    def restarts(self, topic: str) -> int:
        """The number of times that a reader of this process has replaced the ends of a topic."""
        with self._lock:
            return self._restarts.get(topic, 0)
