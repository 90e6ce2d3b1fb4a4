"""Computes the sizes of a queue from its load. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import texts
from .documents import SizeRow

#: The processor time of the broker and Dramatiq for one task, as measured (docs/performance.md, ``noop``).
OVERHEAD_MS = 0.041
#: The bytes of a message in the log beside its arguments: ids, options, headers.
RECORD_BYTES = 350
#: The incomplete records that a partition may have before its consumption pauses (docs/scale.md).
MAX_INCOMPLETE = 1_600
#: Processes beyond the partitions are idle, and some more partitions let processes be added.
PARTITIONS_PER_PROCESS = 2
MIN_PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a queue.

    Attributes:
      rate: Messages per second, at the peak.
      task_ms: The duration of a task.
      cpu_ms: Its processor time in Python; None when unknown, and assumed to be none.
      threads: The threads of a process.
      utilization: The share of threads and cores that is planned to be busy.
      message_bytes: The bytes of a message's arguments.
      retention_s: The time for which the log keeps messages.
      replication: The copies of the log.
    """

    rate: float
    task_ms: float
    cpu_ms: float | None
    threads: int
    utilization: float
    message_bytes: int
    retention_s: float
    replication: int


def plan(load: Load) -> list[SizeRow]:
    """The sizes, each with its reason."""
    busy = load.rate * load.task_ms / 1000
    threads = math.ceil(busy / load.utilization)
    cores = load.rate * ((load.cpu_ms or 0.0) + OVERHEAD_MS) / 1000
    by_threads, by_cores = math.ceil(threads / load.threads), math.ceil(cores / load.utilization)
    processes = max(1, by_threads, by_cores)
    partitions = max(MIN_PARTITIONS, PARTITIONS_PER_PROCESS * processes)
    log_bytes = load.rate * load.retention_s * (load.message_bytes + RECORD_BYTES)
    limit = "threads" if by_threads >= by_cores else "cores, as Python runs on one core of a process"
    return [
        _row("threads", threads, f"{busy:,.1f} tasks run at once, and {load.utilization:.0%} are to be busy"),
        _row(
            "cores",
            math.ceil(cores * 10) / 10,
            f"{_cpu_text(load.cpu_ms)} and {OVERHEAD_MS} ms of the broker",
        ),
        _row("processes", processes, f"the {limit} decide; {load.threads} threads in each"),
        _row(
            "partitions", partitions, f"{PARTITIONS_PER_PROCESS} for each process, at least {MIN_PARTITIONS}"
        ),
        _row("retention_s", load.retention_s, "the longest time for which a message may wait"),
        _row(
            "disk_bytes",
            math.ceil(log_bytes * load.replication),
            f"{load.rate:g}/s for {texts.age(load.retention_s)}, {load.message_bytes + RECORD_BYTES} bytes "
            f"each, {load.replication} copies, all of it at the peak's rate",
        ),
        _row(
            "stall_s",
            math.floor(MAX_INCOMPLETE * partitions / load.rate),
            f"a task that hangs for longer stops its partition: {MAX_INCOMPLETE:,} records may be complete "
            "behind it. Give the actor a time_limit",
        ),
    ]


def time_to_drain_s(backlog: int, rate: float, load: Load) -> float | None:
    """The time in which the planned threads work a backlog off while messages arrive; None for never.

    Parameters:
      rate: The messages per second that arrive meanwhile.
    """
    capacity = math.ceil(load.rate * load.task_ms / 1000 / load.utilization) * 1000 / load.task_ms
    return drain_time_s(backlog, rate, capacity)


def drain_time_s(backlog: int, rate: float, capacity: float) -> float | None:
    """The time in which a backlog is worked off; None for never.

    Parameters:
      rate, capacity: The messages per second that arrive, and that can be run.
    """
    if backlog == 0:
        return 0.0
    return backlog / (capacity - rate) if capacity > rate else None


def _cpu_text(cpu_ms: float | None) -> str:
    if cpu_ms is None:
        return "0 ms of a task (an assumption, as of one that only waits: see --cpu-ms)"
    return f"{cpu_ms:g} ms of a task"


def _row(name: str, value: float, why: str) -> SizeRow:
    return SizeRow(size=name, value=value, why=why)
