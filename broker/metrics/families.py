"""The metrics: their names, kinds, labels and meanings. ``docs/metrics.md`` has the same table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MetricKind(StrEnum):
    """The kind of a metric, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Attributes:
      name: Its name in an exposition; that of a counter ends with ``_total``.
      text: Its meaning.
      labels: The names of its labels.
    """

    name: str
    kind: MetricKind
    text: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its time series."""
        if self.kind is MetricKind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))
        return (self.name,)


ACTOR = ("queue_name", "actor_name")
QUEUE = ("queue_name",)
ERROR = ("queue_name", "error_type")
PARTITION = ("consumergroup", "topic", "partition")

_COUNTERS = {
    # The names of Dramatiq's own middleware
    "dramatiq_messages_total": ("Runs of messages that have ended, and skipped messages.", ACTOR),
    "dramatiq_message_errors_total": ("Runs that ended with an error.", ACTOR),
    "dramatiq_message_retries_total": ("Runs after which the message is tried again.", ACTOR),
    "dramatiq_message_rejects_total": ("Messages that became dead letters.", ACTOR),
    # The broker's
    "dramatiq_kafka_skipped_total": ("Messages that a middleware skipped.", ACTOR),
    "dramatiq_kafka_interrupted_total": ("Runs that were ended from outside and count no attempt.", ACTOR),
    "dramatiq_kafka_run_errors_total": ("Runs that ended with an error, by its class.", ERROR),
    "dramatiq_kafka_dead_lettered_total": ("Messages that became dead letters, by the error's class.", ERROR),
    "dramatiq_kafka_redelivered_total": (
        "Dispatched records that an earlier owner of the partition had dispatched, too.",
        QUEUE,
    ),
    "dramatiq_kafka_rebalanced_partitions_total": (
        "Partitions that rebalances have assigned, revoked, or taken from a worker that was no member any "
        "more (lost).",
        ("queue_name", "event"),
    ),
    "dramatiq_kafka_commit_failures_total": ("Commits that Kafka has not accepted.", QUEUE),
    "dramatiq_kafka_written_records_total": ("Records ever written to the queue: the end of its log.", QUEUE),
    "dramatiq_kafka_worker_crashes_total": (
        "Workers that ended without a goodbye, by the signal; exit: with an exit code; unknown: they are "
        "silent and in none of their consumer groups.",
        ("cause",),
    ),
    "dramatiq_kafka_worker_cpu_seconds_total": ("Processor seconds of all workers.", ()),
    "dramatiq_kafka_history_dropped_total": ("Events of the history that were lost.", ()),
    "dramatiq_kafka_read_failures_total": ("Failed reads of the exporter.", ("source",)),
}
_GAUGES = {
    "dramatiq_messages_inprogress": ("Messages that run.", ACTOR),
    "dramatiq_delayed_messages_inprogress": ("Messages in the delayed topic, retries included.", QUEUE),
    "dramatiq_kafka_waiting_messages": ("Records that no commit calls dispatched.", QUEUE),
    "dramatiq_kafka_incomplete_messages": ("Dispatched records that are not complete.", QUEUE),
    "dramatiq_kafka_delay_overdue_seconds": (
        "The time since the most overdue delayed message was due; 0 without one.",
        QUEUE,
    ),
    "dramatiq_kafka_lane_messages": ("Messages that wait for others of their key.", QUEUE),
    "dramatiq_kafka_dead_letters": (
        "Dead letters that were neither redriven nor discarded, by the error's class.",
        ERROR,
    ),
    "dramatiq_kafka_oldest_waiting_seconds": ("The age of the oldest waiting record; 0 without one.", QUEUE),
    "dramatiq_kafka_oldest_incomplete_seconds": (
        "The age of the oldest incomplete record; 0 without one.",
        QUEUE,
    ),
    "dramatiq_kafka_ledger_difference": (
        "Records that were deleted before they were known to be complete, other than by a purge.",
        QUEUE,
    ),
    "dramatiq_kafka_queue_paused": ("Whether an operator has paused the queue.", QUEUE),
    "dramatiq_kafka_queue_workers": ("Workers of the queue that take work: neither gone nor quiet.", QUEUE),
    "dramatiq_kafka_queue_quiet_workers": (
        "Workers of the queue that are quiet: they take no more work, and their running tasks continue.",
        QUEUE,
    ),
    "dramatiq_kafka_suspect_records": ("Records that may have killed a worker.", QUEUE),
    "dramatiq_kafka_probation_partitions": ("Partitions whose last owner ended without a handover.", QUEUE),
    "kafka_consumergroup_lag": (
        "Records between the committed offset and the end of the log; completed ones between them count.",
        PARTITION,
    ),
    "kafka_consumergroup_lag_seconds": ("The age of the oldest record that is not complete.", PARTITION),
    "kafka_consumergroup_current_offset": ("The committed offset.", PARTITION),
    "dramatiq_kafka_workers": ("Workers by state.", ("state",)),
    "dramatiq_kafka_worker_threads": ("Worker threads of the workers that are not gone.", ()),
    "dramatiq_kafka_running_tasks": ("Tasks that run on the workers that are not gone.", ()),
    "dramatiq_kafka_overdue_tasks": ("Tasks that run past their time limits, by more than 3 s.", QUEUE),
    "dramatiq_kafka_worker_memory_bytes": ("Resident memory of all workers that are not gone.", ()),
    "dramatiq_kafka_pauses_unknown_workers": ("Workers that cannot read commands.", ()),
    "dramatiq_kafka_schedules": ("Schedules that are active, and paused ones.", ("state",)),
    "dramatiq_kafka_schedule_overdue_seconds": (
        "The time since the most overdue occurrence of an active schedule; 0 without one.",
        (),
    ),
    "dramatiq_kafka_schedule_missed_occurrences": (
        "How often the present schedules have left occurrences out, because they were overdue.",
        (),
    ),
    "dramatiq_kafka_up": ("Whether the last read of the source has succeeded.", ("source",)),
    "dramatiq_kafka_state_age_seconds": ("The age of the exported state of the source.", ("source",)),
    "dramatiq_kafka_read_seconds": ("The duration of the last read of the source.", ("source",)),
    "dramatiq_kafka_exporter_info": ("The exporter's version.", ("version",)),
}
_HISTOGRAMS = {
    "dramatiq_message_duration_milliseconds": ("The durations of runs.", ACTOR),
    "dramatiq_kafka_queue_time_seconds": (
        "The times from the append of a record to its topic until its run.",
        ACTOR,
    ),
    "dramatiq_kafka_commit_seconds": ("The durations of accepted commits.", QUEUE),
    "dramatiq_kafka_forward_lateness_seconds": (
        "The times from the due time of delayed messages until they were in their queues.",
        (),
    ),
}

FAMILIES: dict[str, Family] = {
    name: Family(name, kind, text, labels)
    for kind, families in (
        (MetricKind.COUNTER, _COUNTERS),
        (MetricKind.GAUGE, _GAUGES),
        (MetricKind.HISTOGRAM, _HISTOGRAMS),
    )
    for name, (text, labels) in families.items()
}
