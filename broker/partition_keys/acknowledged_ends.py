"""Up to where this process has written into the lanes topics, as Kafka has acknowledged it."""

from __future__ import annotations

import threading
from collections.abc import Mapping


class AcknowledgedEnds:
    """The offset after the last acknowledged record, by topic and partition. Thread-safe.

    A leader that stood still, and does not know yet that another one leads, answers with the log as it was.
    Whoever reads must therefore reach what was acknowledged to this process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[str, dict[int, int]] = {}

    def note(self, topic: str, partition: int, offset: int) -> None:
        with self._lock:
            ends = self._ends.setdefault(topic, {})
            ends[partition] = max(ends.get(partition, 0), offset + 1)

    def ends(self, topic: str) -> dict[int, int]:
        with self._lock:
            return dict(self._ends.get(topic, {}))

    def restart(self, topic: str, ends: Mapping[int, int]) -> None:
        """Note where a topic ends that is another one than before: it was recreated, or cut off."""
        with self._lock:
            self._ends[topic] = dict(ends)
