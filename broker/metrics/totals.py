"""Counters that outlive the workers: the sums of the increases of all workers' counters.

A worker counts from 0 at its boot, and its report disappears after its end. A sum of reports would fall then,
which Prometheus takes for a restart of the counter. So the increases are added. Counting begins with the
exporter: the counts of a worker that booted before are a baseline.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .. import ActorCounters, WorkerInfo, WorkerReport, WorkerState
from .distribution import Distribution

#: The limits of labels. Names beyond them share one entry.
MAX_ACTORS = 300
MAX_ERROR_TYPES = 50
OTHERS = "(others)"
#: A worker that was silent for so long is forgotten; Kafka keeps its report as long.
FORGET_AFTER_S = 24 * 3600.0
#: Signals by which a process is asked to end.
_ORDERLY = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class ActorTotals:
    """The runs of one actor. The attributes are those of ActorCounters."""

    ended: int = 0
    failed: int = 0
    retried: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    interrupted: int = 0
    run_time: Distribution = field(default_factory=Distribution)
    queue_time: Distribution = field(default_factory=Distribution)


@dataclass(slots=True)
class QueueTotals:
    """The consumption of one queue. The attributes are those of a report's ``consumption``."""

    assigned: int = 0
    revoked: int = 0
    lost: int = 0
    redelivered: int = 0
    failed_commits: int = 0
    commit_time: Distribution = field(default_factory=Distribution)


@dataclass(slots=True)
class _Known:
    """A worker that was seen.

    Attributes:
      report: Its last counted report; None when nothing of it is known but its end.
      ended: Whether its end was counted.
    """

    report: WorkerReport | None
    seen_s: float
    ended: bool = False


class Totals:
    """The sums since the exporter's start.

    Parameters:
      started_ms: The time of the start, in milliseconds since 1970.

    Attributes:
      actors: By queue and actor.
      queues: By queue.
      run_errors, dead_letter_errors: By queue and error type.
      crashes: By cause.
      cpu_s: Processor seconds.
      history_dropped: Lost events of the history.
    """

    def __init__(self, started_ms: int) -> None:
        self._started_ms = started_ms
        self._known: dict[str, _Known] = {}
        self._is_first = True
        self.actors: dict[tuple[str, str], ActorTotals] = {}
        self.queues: dict[str, QueueTotals] = {}
        self.run_errors: Counter[tuple[str, str]] = Counter()
        self.dead_letter_errors: Counter[tuple[str, str]] = Counter()
        self.crashes: Counter[str] = Counter()
        self.forward_lateness = Distribution()
        self.cpu_s = 0.0
        self.history_dropped = 0

    @property
    def known_workers(self) -> int:
        """The number of workers that are remembered."""
        return len(self._known)

    def add(self, workers: Iterable[WorkerInfo], now_s: float) -> None:
        """Add the increases since the last call.

        Parameters:
          now_s: The present time of a monotonic clock.
        """
        for worker in workers:
            known = self._known.get(worker.worker_id)
            if known is None:
                known = self._known[worker.worker_id] = self._first_sight(worker, now_s)
            if worker.report is not None:
                self._add_report(worker.report, known.report)
                known.report = worker.report
            known.seen_s = now_s
            if worker.state is WorkerState.GONE and not known.ended:
                known.ended = True
                self._note_end(worker)
        self._is_first = False
        for worker_id in [i for i, k in self._known.items() if now_s - k.seen_s > FORGET_AFTER_S]:
            del self._known[worker_id]

    def _first_sight(self, worker: WorkerInfo, now_s: float) -> _Known:
        report = worker.report
        was_before = self._is_first or (report is not None and report.booted_ms < self._started_ms)
        if not was_before:
            return _Known(None, now_s)
        if report is not None:
            self._add_names(report)
        # The end of a worker at the first look was before the exporter's start.
        return _Known(report, now_s, ended=self._is_first and worker.state is WorkerState.GONE)

    def _add_names(self, report: WorkerReport) -> None:
        """Let the counters of a worker exist, so that their first increase is seen as one."""
        for name, counters in report.actors.items():
            self._actor(counters.queue_name, name)
        for name in report.queues:
            self.queues.setdefault(name, QueueTotals())

    def _actor(self, queue_name: str, actor_name: str) -> ActorTotals:
        key = (queue_name, actor_name)
        if key not in self.actors and len(self.actors) >= MAX_ACTORS:
            key = ("", OTHERS)
        return self.actors.setdefault(key, ActorTotals())

    def _add_report(self, new: WorkerReport, old: WorkerReport | None) -> None:
        for name in new.queues:
            self.queues.setdefault(name, QueueTotals())
        for name, counters in new.actors.items():
            self._add_actor(name, counters, None if old is None else old.actors.get(name))
        for name, consumption in new.consumption.items():
            before = None if old is None else old.consumption.get(name)
            totals = self.queues.setdefault(name, QueueTotals())
            for attribute in ("assigned", "revoked", "lost", "redelivered", "failed_commits"):
                _increase(totals, attribute, consumption, before)
            totals.commit_time.add(consumption.commit_time, before.commit_time if before else None)
        self.forward_lateness.add(new.forward_lateness, old.forward_lateness if old else None)
        self.cpu_s += max(0.0, new.cpu_s - (old.cpu_s if old else 0.0))
        self.history_dropped += max(0, new.history.dropped - (old.history.dropped if old else 0))

    def _add_actor(self, name: str, new: ActorCounters, old: ActorCounters | None) -> None:
        totals = self._actor(new.queue_name, name)
        for attribute in ("retried", "dead_lettered", "skipped", "interrupted"):
            _increase(totals, attribute, new, old)
        ended = new.run_time.count - (old.run_time.count if old else 0)
        totals.ended += max(0, ended)
        totals.run_time.add(new.run_time, old.run_time if old else None)
        totals.queue_time.add(new.queue_time, old.queue_time if old else None)
        failed = _increases(new.failed, old.failed if old else {})
        totals.failed += sum(failed.values())
        _add_errors(self.run_errors, new.queue_name, failed)
        dead = _increases(new.dead_letter_errors, old.dead_letter_errors if old else {})
        _add_errors(self.dead_letter_errors, new.queue_name, dead)

    def _note_end(self, worker: WorkerInfo) -> None:
        if worker.signal is not None:
            if worker.signal not in _ORDERLY:
                self.crashes[_signal_name(worker.signal)] += 1
        elif worker.exit_code:
            self.crashes["exit"] += 1
        elif worker.exit_code is None and worker.report is not None and worker.report.kind != "goodbye":
            self.crashes["unknown"] += 1


def _increase(totals: ActorTotals | QueueTotals, attribute: str, new: object, old: object | None) -> None:
    before = 0 if old is None else getattr(old, attribute)
    setattr(totals, attribute, getattr(totals, attribute) + max(0, getattr(new, attribute) - before))


def _increases(new: dict[str, int], old: dict[str, int]) -> dict[str, int]:
    return {name: count - old.get(name, 0) for name, count in new.items() if count > old.get(name, 0)}


def _add_errors(totals: Counter[tuple[str, str]], queue_name: str, counts: dict[str, int]) -> None:
    for error_type, count in counts.items():
        totals[bounded_error(totals, queue_name, error_type)] += count


def bounded_error(
    known: Counter[tuple[str, str]] | dict[tuple[str, str], int], queue_name: str, error_type: str
) -> tuple[str, str]:
    """The labels of an error: those of MAX_ERROR_TYPES types of a queue, then those of the others."""
    key = (queue_name, error_type)
    if key not in known and sum(queue == queue_name for queue, _ in known) >= MAX_ERROR_TYPES:
        return (queue_name, OTHERS)
    return key


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
