"""Reports of workers that are not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from broker.reaper.death_note import DeathNote
from broker.reports.consumption import Consumption
from broker.reports.counters import ActorCounters
from broker.reports.histogram import Histogram
from broker.reports.report import (
    ControlState,
    HistoryCounters,
    Kind,
    RunningTask,
    TaskProgress,
    WorkerReport,
)

counts = st.integers(0, 2**40)
texts = st.text(max_size=30)
histograms = st.builds(
    Histogram,
    st.integers(-40, 43),
    st.lists(counts, max_size=10).map(tuple),
    st.floats(0, 1e9).map(lambda seconds: round(seconds, 6)),
)
counters = st.builds(
    ActorCounters,
    started=counts,
    succeeded=counts,
    failed=st.dictionaries(texts, counts, max_size=3),
    retried=counts,
    dead_lettered=counts,
    skipped=counts,
    interrupted=counts,
    run_time=histograms,
    queue_time=histograms,
    dead_letter_errors=st.dictionaries(texts, counts, max_size=3),
    queue_name=texts,
)
consumptions = st.builds(Consumption, histograms, counts, counts, counts, counts, counts)
running = st.builds(
    RunningTask,
    texts,
    texts,
    texts,
    st.integers(1, 100),
    counts,
    limit_ms=st.none() | counts,
    progress=st.none() | st.builds(TaskProgress, st.floats(0, 1), texts, counts),
    partition=st.none() | counts,
)
controls = st.builds(
    ControlState,
    st.lists(texts, max_size=3).map(tuple),
    st.booleans(),
    st.lists(texts, max_size=3).map(tuple),
    st.booleans(),
)
reports = st.builds(
    WorkerReport,
    worker_id=texts,
    host=texts,
    pid=counts,
    at_ms=counts,
    booted_ms=counts,
    next_s=st.sampled_from([2.0, 10.0]),
    kind=st.sampled_from([Kind.REPORT, Kind.GOODBYE]),
    versions=st.dictionaries(texts, texts, max_size=3),
    queues=st.lists(texts, max_size=3).map(tuple),
    threads=st.integers(0, 1000),
    running=st.lists(running, max_size=5).map(tuple),
    running_count=counts,
    ended_ms=counts,
    actors=st.dictionaries(texts, counters, max_size=3),
    rss_bytes=st.none() | counts,
    cpu_s=st.floats(0, 1e9).map(lambda seconds: round(seconds, 2)),
    partitions=st.dictionaries(texts, st.lists(counts, max_size=3).map(tuple), max_size=3),
    members=st.dictionaries(texts, texts, max_size=3),
    history=st.builds(HistoryCounters, counts, counts, counts),
    control=controls,
    consumption=st.dictionaries(texts, consumptions, max_size=3),
    forward_lateness=histograms,
)
death_notes = st.builds(DeathNote, texts, counts, signal=st.none() | counts, exit_code=st.none() | counts)


def report(**fields: Any) -> WorkerReport:
    """A report of an idle worker at the time 1,000,000 ms."""
    defaults: dict[str, Any] = {
        "worker_id": "host:1:aa",
        "host": "host",
        "pid": 1,
        "at_ms": 1_000_000,
        "booted_ms": 900_000,
        "next_s": 10.0,
        "threads": 8,
        "members": {"dramatiq.default": "member-1"},
    }
    return WorkerReport(**(defaults | fields))
