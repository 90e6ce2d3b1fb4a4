"""Makes batches of the events that wait, and counts what the history lacks. It does not publish them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .history_format import MAX_BATCH, encode_batch
from .runs import MAX_EVENTS, Runs

#: The batches of one write. With more, the write of a long backlog would delay the next report.
MAX_BATCHES = 5
#: The interval of batches that contain only counts.
COUNTS_INTERVAL_S = 2.0


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that is not written yet.

    Attributes:
      value: Its record's.
      count: The number of its events.
      unrecorded, dropped: The counters since the boot that the batch covers.
    """

    value: bytes
    count: int
    unrecorded: dict[str, int]
    dropped: int


class HistoryWriter:
    """The history of this process's worker. The reports thread alone uses it.

    Parameters:
      successes_per_s: The successful runs that are recorded each second; -1 for no history.
    """

    def __init__(self, runs: Runs, *, successes_per_s: int) -> None:
        self._runs = runs
        self._successes_per_s = successes_per_s
        self.begin(0.0)

    @property
    def is_on(self) -> bool:
        return self._successes_per_s >= 0

    def begin(self, now_s: float) -> None:
        """Begin with the counters of a boot, and with the quota of one second."""
        self._quota_set_s = now_s
        self._runs.successes_left = max(0, self._successes_per_s)
        self._quota_rest = 0.0
        self._written_s = now_s
        self._written = PendingBatch(b"", 0, {}, 0)
        self._lost = 0

    @property
    def dropped(self) -> int:
        """The number of events since the boot that are in no batch, and will not be."""
        return self._runs.dropped + self._lost

    def set_quota(self, now_s: float) -> None:
        """Let further successes become events."""
        passed_s, self._quota_set_s = now_s - self._quota_set_s, now_s
        if self._runs.is_recording:
            added = self._successes_per_s * passed_s + self._quota_rest
            self._quota_rest = added % 1
            left = max(0, self._runs.successes_left) + int(added)
            self._runs.successes_left = min(left, self._successes_per_s)

    def batches(self, now_s: float, *, is_last: bool) -> list[PendingBatch]:
        """The batches of the events that wait. Each covers the counters up to now.

        Parameters:
          is_last: Whether the worker ends.
        """
        if not self._runs.is_recording:
            return []
        if not is_last:
            self._runs.announce()
        events = self._runs.first_events(MAX_EVENTS if is_last else MAX_BATCH * MAX_BATCHES)
        unrecorded, dropped = self._runs.unrecorded(), self.dropped
        before = self._written.unrecorded
        new = {name: n - before.get(name, 0) for name, n in unrecorded.items() if n != before.get(name)}
        new_drops = dropped - self._written.dropped
        counts_are_due = is_last or now_s - self._written_s >= COUNTS_INTERVAL_S
        if not events and not ((new or new_drops) and counts_are_due):
            return []
        found = []
        for start in range(0, max(1, len(events)), MAX_BATCH):
            some = events[start : start + MAX_BATCH]
            value = encode_batch(
                self._runs.worker_id,
                some,
                unrecorded={} if start else new,
                dropped=0 if start else new_drops,
            )
            found.append(PendingBatch(value, len(some), unrecorded, dropped))
        return found

    def note(
        self,
        batches: Sequence[PendingBatch],
        now_s: float,
        *,
        failed: Collection[int],
        refused: Collection[int],
    ) -> None:
        """Note which of ``batches`` Kafka has. The events of the others wait, unless Kafka refuses them.

        Parameters:
          failed: The indices of those that are not written.
          refused: The indices of those for which another try would fail as well: a missing right, or a
            topic's settings.
        """
        for index, batch in enumerate(batches):
            if index in failed and index not in refused:
                return
            self._runs.forget(batch.count)
            if index in refused:
                self._lost += batch.count
            else:
                self._written, self._written_s = batch, now_s
