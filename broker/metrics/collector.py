"""Makes Prometheus metrics of the state."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .. import KafkaBroker, QueueState, Schedule, WorkerInfo, WorkerState
from ..process import clock
from .distribution import Distribution
from .families import FAMILIES, MetricKind
from .state import SCHEDULES, State
from .totals import MAX_ACTORS, OTHERS, ActorTotals, QueueTotals, bounded_error

T = TypeVar("T")
Labels = Sequence[str]
Sample = tuple[Labels, float]

_MILLISECOND_S = 0.001
#: The causes of crashes that are exported before the first one, so that its increase is seen.
_CAUSES = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "exit", "unknown")
#: The states of a worker that is not gone.
_ALIVE = (WorkerState.BUSY, WorkerState.IDLE, WorkerState.STUCK, WorkerState.SILENT)
#: Whether the workers that a metric counts by queue are quiet.
_QUEUE_WORKERS = {"dramatiq_kafka_queue_workers": False, "dramatiq_kafka_queue_quiet_workers": True}


class StateCollector(Collector):
    """Serves the state at the last refresh; a scrape waits for nothing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._metrics: tuple[Metric, ...] = ()

    def refresh(self) -> None:
        """Make the metrics of the present state."""
        self._metrics = tuple(self._of_state())

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would compare names, and collect for that."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
        sources = {n: source for n, source in self._state.sources.items() if not source.is_left_out}
        yield _plain("dramatiq_kafka_up", (((n,), float(s.is_up or False)) for n, s in sources.items()))
        yield _plain("dramatiq_kafka_state_age_seconds", _of(sources, lambda source: source.age_s))
        yield _plain("dramatiq_kafka_read_seconds", _of(sources, lambda source: source.took_s))
        yield _plain("dramatiq_kafka_read_failures_total", _of(sources, lambda source: source.failures))
        yield _plain("dramatiq_kafka_exporter_info", [((KafkaBroker.version,), 1.0)])

    def _of_state(self) -> Iterator[Metric]:
        totals, workers, queues = self._state.totals, self._state.workers, self._state.queues
        yield from _of_actors(totals.actors)
        yield from _of_consumption(totals.queues)
        yield from _of_queues(queues)
        yield from _of_partitions(queues)
        yield from _of_workers(workers, queues)
        if not self._state.sources[SCHEDULES].is_left_out:
            yield from _of_schedules(self._state.schedules)
        yield _plain("dramatiq_kafka_run_errors_total", totals.run_errors.items())
        yield _plain("dramatiq_kafka_dead_lettered_total", totals.dead_letter_errors.items())
        yield _histogram("dramatiq_kafka_forward_lateness_seconds", [((), totals.forward_lateness)])
        crashes = dict.fromkeys(_CAUSES, 0) | totals.crashes
        yield _plain("dramatiq_kafka_worker_crashes_total", (((n,), count) for n, count in crashes.items()))
        yield _plain("dramatiq_kafka_worker_cpu_seconds_total", [((), totals.cpu_s)])
        yield _plain("dramatiq_kafka_history_dropped_total", [((), totals.history_dropped)])


def _of_actors(actors: dict[tuple[str, str], ActorTotals]) -> Iterator[Metric]:
    for name, value_of in _ACTOR_COUNTERS.items():
        yield _plain(name, ((key, value_of(found)) for key, found in actors.items()))
    runs = ((key, found.run_time) for key, found in actors.items())
    yield _histogram("dramatiq_message_duration_milliseconds", runs, _MILLISECOND_S)
    waits = ((key, found.queue_time) for key, found in actors.items())
    yield _histogram("dramatiq_kafka_queue_time_seconds", waits)


def _of_consumption(queues: dict[str, QueueTotals]) -> Iterator[Metric]:
    yield _plain("dramatiq_kafka_redelivered_total", _of(queues, lambda found: found.redelivered))
    yield _plain("dramatiq_kafka_commit_failures_total", _of(queues, lambda found: found.failed_commits))
    moves = (
        ((name, event), getattr(found, event))
        for name, found in queues.items()
        for event in ("assigned", "revoked", "lost")
    )
    yield _plain("dramatiq_kafka_rebalanced_partitions_total", moves)
    commits = (((name,), found.commit_time) for name, found in queues.items())
    yield _histogram("dramatiq_kafka_commit_seconds", commits)


def _of_queues(queues: Sequence[QueueState]) -> Iterator[Metric]:
    for name, value_of in _QUEUE_METRICS.items():
        yield _plain(name, (((state.name,), value_of(state)) for state in queues))
    paused = (((state.name,), float(state.is_paused)) for state in queues if state.is_paused is not None)
    yield _plain("dramatiq_kafka_queue_paused", paused)
    dead: Counter[tuple[str, str]] = Counter()
    for state in queues:
        dead[bounded_error(dead, state.name, "")] += 0  # a queue without dead letters has the value 0
        for error_type, count in sorted(state.dead_by_error.items()):
            dead[bounded_error(dead, state.name, error_type)] += count
    yield _plain("dramatiq_kafka_dead_letters", dead.items())


def _of_partitions(queues: Sequence[QueueState]) -> Iterator[Metric]:
    partitions = [((q.group, q.topic, str(p.partition)), p) for q in queues for p in q.partitions]
    yield _plain("kafka_consumergroup_lag", ((labels, p.lag + p.holes) for labels, p in partitions))
    ages = ((labels, max(p.lag_s or 0.0, p.oldest_incomplete_s or 0.0)) for labels, p in partitions)
    yield _plain("kafka_consumergroup_lag_seconds", ages)
    offsets = ((labels, p.next_offset) for labels, p in partitions if p.next_offset is not None)
    yield _plain("kafka_consumergroup_current_offset", offsets)


def _of_workers(workers: Sequence[WorkerInfo], queues: Sequence[QueueState]) -> Iterator[Metric]:
    alive = [w for w in workers if w.state is not WorkerState.GONE]
    reports = [w.report for w in alive if w.report is not None]
    states = Counter(worker.state for worker in workers)
    yield _plain("dramatiq_kafka_workers", (((str(state),), states[state]) for state in _ALIVE))
    names = {state.name for state in queues}.union(*(report.queues for report in reports))
    for metric, is_quiet in _QUEUE_WORKERS.items():
        of_queue = Counter(n for w in alive if w.report and w.is_quiet == is_quiet for n in w.report.queues)
        yield _plain(metric, (((name,), of_queue[name]) for name in sorted(names)))
    yield _plain("dramatiq_kafka_worker_threads", [((), sum(r.threads for r in reports))])
    yield _plain("dramatiq_kafka_running_tasks", [((), sum(r.running_count for r in reports))])
    overdue = Counter(task.queue_name for worker in workers for task in worker.overdue)
    names |= overdue.keys()
    yield _plain("dramatiq_kafka_overdue_tasks", (((name,), overdue[name]) for name in sorted(names)))
    yield _plain("dramatiq_kafka_worker_memory_bytes", [((), sum(r.rss_bytes or 0 for r in reports))])
    unknown = sum(r.control.pauses_unknown for r in reports)
    yield _plain("dramatiq_kafka_pauses_unknown_workers", [((), unknown)])
    # The counters have no limit of 200 tasks, which `running` has.
    running: Counter[tuple[str, str]] = Counter()
    for report in reports:
        for name, counters in report.actors.items():
            running[counters.queue_name, name] += max(0, counters.started - counters.run_time.count)
    yield _plain("dramatiq_messages_inprogress", _bounded(running))


def _of_schedules(schedules: Sequence[Schedule]) -> Iterator[Metric]:
    paused = sum(schedule.is_paused for schedule in schedules)
    states = (("active", len(schedules) - paused), ("paused", paused))
    yield _plain("dramatiq_kafka_schedules", (((state,), count) for state, count in states))
    now_s = clock.wall_ms() / 1000
    overdue_s = max(
        (now_s - s.next_run.timestamp() for s in schedules if s.next_run is not None), default=0.0
    )
    yield _plain("dramatiq_kafka_schedule_overdue_seconds", [((), max(0.0, overdue_s))])
    missed = sum(schedule.missed for schedule in schedules)
    yield _plain("dramatiq_kafka_schedule_missed_occurrences", [((), missed)])


def _bounded(counts: Counter[tuple[str, str]]) -> Iterable[Sample]:
    ordered = counts.most_common()
    yield from ordered[:MAX_ACTORS]
    if rest := ordered[MAX_ACTORS:]:
        yield ("", OTHERS), sum(count for _, count in rest)


_ACTOR_COUNTERS: dict[str, Callable[[ActorTotals], int]] = {
    "dramatiq_messages_total": lambda found: found.ended + found.skipped,
    "dramatiq_message_errors_total": lambda found: found.failed,
    "dramatiq_message_retries_total": lambda found: found.retried,
    "dramatiq_message_rejects_total": lambda found: found.dead_lettered,
    "dramatiq_kafka_skipped_total": lambda found: found.skipped,
    "dramatiq_kafka_interrupted_total": lambda found: found.interrupted,
}
_QUEUE_METRICS: dict[str, Callable[[QueueState], float]] = {
    "dramatiq_kafka_written_records_total": lambda state: state.counts.written,
    "dramatiq_kafka_waiting_messages": lambda state: state.waiting,
    "dramatiq_kafka_incomplete_messages": lambda state: state.incomplete,
    "dramatiq_delayed_messages_inprogress": lambda state: state.delayed,
    "dramatiq_kafka_delay_overdue_seconds": lambda state: state.overdue_s or 0.0,
    "dramatiq_kafka_lane_messages": lambda state: state.in_lanes,
    "dramatiq_kafka_oldest_waiting_seconds": lambda state: state.lag_s or 0.0,
    "dramatiq_kafka_oldest_incomplete_seconds": lambda state: state.oldest_incomplete_s or 0.0,
    "dramatiq_kafka_ledger_difference": lambda state: state.counts.difference,
    "dramatiq_kafka_suspect_records": lambda state: sum(len(p.suspects) for p in state.partitions),
    "dramatiq_kafka_probation_partitions": lambda state: sum(p.is_on_probation for p in state.partitions),
}


def _of(found: dict[str, T], value_of: Callable[[T], float]) -> Iterator[Sample]:
    return (((name,), value_of(one)) for name, one in found.items())


def _plain(name: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    """A counter or gauge of the table of families."""
    family = FAMILIES[name]
    metric: CounterMetricFamily | GaugeMetricFamily
    if family.kind is MetricKind.COUNTER:
        metric = CounterMetricFamily(name.removesuffix("_total"), family.text, labels=family.labels)
    else:
        metric = GaugeMetricFamily(name, family.text, labels=family.labels)
    for labels, value in samples:
        metric.add_metric(labels, value)
    return metric


def _histogram(
    name: str, samples: Iterable[tuple[Labels, Distribution]], unit_s: float = 1.0
) -> HistogramMetricFamily:
    family = FAMILIES[name]
    metric = HistogramMetricFamily(name, family.text, labels=family.labels)
    for labels, distribution in samples:
        buckets = [(_bound(bound), count) for bound, count in distribution.cumulative(unit_s)]
        metric.add_metric(labels, buckets, sum_value=distribution.sum_s / unit_s)
    return metric


def _bound(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else repr(bound)
