"""Rows about queues. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .. import PartitionState, PauseResult, Pauses, QueueState, WorkerInfo, WorkerState
from . import texts
from .documents import PartitionRow, QueueRow
from .output import Column
from .worker_rows import running_rows


@dataclass(frozen=True, slots=True)
class Sample:
    """The states of queues at one moment.

    Attributes:
      at_ms: The moment, in milliseconds since 1970.
    """

    at_ms: int
    states: Sequence[QueueState]


@dataclass(slots=True)
class LedgerWatch:
    """Remembers when the difference of a queue's ledger has changed, while a command watches it."""

    _differences: dict[str, int] = field(default_factory=dict)
    _changed_ms: dict[str, int | None] = field(default_factory=dict)

    def since_ms(self, state: QueueState, at_ms: int) -> int | None:
        """The time of the change that was seen; None without one."""
        name, difference = state.name, state.counts.difference
        if name in self._differences and self._differences[name] != difference:
            self._changed_ms[name] = at_ms
        self._differences[name] = difference
        return self._changed_ms.get(name)


def queue_rows(
    before: Sample | None,
    now: Sample,
    workers: Iterable[WorkerInfo],
    ledgers: LedgerWatch,
    pauses: Pauses[PauseResult] | None,
) -> list[QueueRow]:
    """The rows of ``status``.

    Parameters:
      before: An earlier sample, for the rates; None for no rates.
      pauses: The pauses, by queue; None when they are not known.
    """
    served = Served(workers)
    earlier = {state.name: state for state in before.states} if before else {}
    elapsed_s = (now.at_ms - before.at_ms) / 1000 if before else 0.0
    rows = []
    for state in now.states:
        rate_in = rate_out = None
        if (old := earlier.get(state.name)) is not None and elapsed_s > 0:
            rate_in = max(0, state.counts.written - old.counts.written) / elapsed_s
            rate_out = max(0, state.counts.completed - old.counts.completed) / elapsed_s
        found = served.of_queue(state)
        rows.append(
            QueueRow(
                queue=state.name,
                waiting=found.waiting,
                running=found.running,
                delayed=state.delayed,
                in_lanes=state.in_lanes,
                delay_overdue_s=state.overdue_s,
                dead=state.dead,
                oldest_waiting_s=oldest_waiting_s(state, found.waiting),
                oldest_running_s=found.oldest_running_s,
                in_per_s=rate_in,
                out_per_s=rate_out,
                drain_s=time_to_drain(found.waiting, rate_in, rate_out),
                workers=served.workers[state.name],
                paused=None if pauses is None or state.name in pauses.unreadable else state.name in pauses,
                disobeying=None
                if pauses is None
                else list(pauses[state.name].unknown)
                if state.name in pauses
                else [],
                purged=state.counts.purged,
                ledger_difference=state.counts.difference,
                ledger_since_ms=ledgers.since_ms(state, now.at_ms),
                ledger_before_ms=None
                if state.removed_before_s is None
                else now.at_ms - round(state.removed_before_s * 1000),
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class OpenMessages:
    """The messages of a queue, or of a partition, that wait and that run.

    Attributes:
      oldest_running_s: The age of the oldest running task, in seconds; None without one.
    """

    waiting: int
    running: int
    oldest_running_s: float | None


class Served:
    """What the workers that are not gone say of the queues.

    Attributes:
      workers: The number of those that take work, by queue: a quiet worker takes none.
    """

    def __init__(self, workers: Iterable[WorkerInfo]) -> None:
        alive = [w for w in workers if w.state is not WorkerState.GONE and w.report]
        self.workers = Counter(name for w in alive if w.report and not w.is_quiet for name in w.report.queues)
        self._reported = {name for w in alive if w.report for name in w.report.queues}
        self._running: defaultdict[tuple[str, int | None], list[float]] = defaultdict(list)
        for row in running_rows(alive):
            self._running[row["queue"], row["partition"]].append(row["for_s"])

    def of_queue(self, state: QueueState) -> OpenMessages:
        """The waiting and running messages of a queue: the sums of those of its partitions."""
        found = self.of_partitions(state).values()
        ages_s = [one.oldest_running_s for one in found if one.oldest_running_s is not None]
        return OpenMessages(
            sum(one.waiting for one in found), sum(one.running for one in found), max(ages_s, default=None)
        )

    def of_partitions(self, state: QueueState) -> dict[int, OpenMessages]:
        """The waiting and running messages of a queue's partitions, by their numbers.

        A commit is made when something completes, so that a first long task is not in it; and it counts
        messages that a worker has only read ahead. Reports know what runs.
        """
        if state.name not in self._reported:
            return {
                p.partition: OpenMessages(p.counts.waiting, p.counts.incomplete, p.oldest_incomplete_s)
                for p in state.partitions
            }
        # The reports of an earlier version do not name the partition: its tasks run where commits have most
        # records that are taken.
        unplaced_s = sorted(self._running.get((state.name, None), ()))
        found = {}
        for p in sorted(state.partitions, key=lambda p: -p.counts.incomplete):
            # A running message may have lost its record to a purge.
            room, purged = p.lag + p.counts.purged, p.counts.purged
            ages_s = self._running.get((state.name, p.partition), [])[:room]
            while unplaced_s and len(ages_s) < room:
                ages_s.append(unplaced_s.pop())
            running = len(ages_s)
            found[p.partition] = OpenMessages(
                p.lag - max(0, running - purged), running, max(ages_s, default=None)
            )
        return found


def oldest_waiting_s(state: QueueState | PartitionState, waiting: int) -> float | None:
    """The age of the oldest waiting message, in seconds; None when none waits.

    Where a worker has read ahead all that waits, it is the age of the oldest record that is not complete.
    That one may run: the true age is not known.
    """
    if not waiting:
        return None
    return state.oldest_incomplete_s if state.lag_s is None else state.lag_s


def time_to_drain(lag: int, rate_in: float | None, rate_out: float | None) -> float | None:
    """The seconds until nothing waits, at the present rates; None when unknown, or when it grows."""
    if lag == 0:
        return 0.0
    if rate_in is None or rate_out is None or rate_out <= rate_in:
        return None
    return lag / (rate_out - rate_in)


def drain_text(row: QueueRow) -> str:
    """The time to drain, or the reason for which there is none."""
    if row["paused"]:
        return "paused"
    if row["drain_s"] is not None or row["in_per_s"] is None or row["out_per_s"] is None:
        return texts.age(row["drain_s"])
    if row["out_per_s"] == 0:
        return "stands still"
    return "grows" if row["in_per_s"] > row["out_per_s"] else "never"


def partition_rows(states: Iterable[QueueState], workers: Iterable[WorkerInfo]) -> list[PartitionRow]:
    """The rows of ``queues``.

    Parameters:
      workers: The workers, as far as they are known. Their reports have their partitions and tasks.
    """
    workers = list(workers)
    served = Served(workers)
    owners: dict[tuple[str, int], WorkerInfo] = {}
    for worker in sorted(workers, key=_ownership):
        for queue, numbers in (worker.report.partitions if worker.report else {}).items():
            owners.update(((queue, number), worker) for number in numbers)
    return [
        PartitionRow(
            queue=state.name,
            partition=p.partition,
            waiting=found.waiting,
            running=found.running,
            oldest_waiting_s=oldest_waiting_s(p, found.waiting),
            oldest_running_s=found.oldest_running_s,
            next_offset=p.next_offset,
            highest=p.highest,
            holes=p.holes,
            written=p.counts.written,
            removed=p.counts.removed,
            purged=p.counts.purged,
            lost_tail=p.lost_tail,
            handed_over=p.was_handed_over,
            owner=owner.worker_id if (owner := owners.get((state.name, p.partition))) else None,
            owner_state=str(owner.state) if owner else None,
            on_probation=p.is_on_probation,
            suspects=[
                {"offset": s.offset, "crashes": s.crashes, "running": s.is_running} for s in p.suspects
            ],
        )
        for state in states
        for messages in [served.of_partitions(state)]
        for p in state.partitions
        for found in [messages[p.partition]]
    ]


def _ownership(worker: WorkerInfo) -> tuple[bool, float]:
    """The order in which one of several workers that report a partition has it: the last one."""
    return worker.state is not WorkerState.GONE, -worker.silent_s


def _owner(row: PartitionRow) -> str:
    if row["owner"] is not None and row["owner_state"] != WorkerState.GONE:
        return row["owner"]
    if row["next_offset"] is None:
        return "none"
    if row["handed_over"]:
        return "left"
    return f"gone: {row['owner']}" if row["owner"] is not None else "not known"


def _warns(row: QueueRow) -> str:
    if row["workers"] == 0 and row["waiting"]:
        return "bold red"
    return "yellow" if row["waiting"] else ""


QUEUE_COLUMNS: Sequence[Column] = (
    Column("QUEUE", lambda r: r["queue"] + (" (paused)" if r["paused"] else "")),
    Column("WAITING", lambda r: texts.number(r["waiting"]), is_number=True, style=_warns),
    Column("RUNNING", lambda r: texts.number(r["running"]), is_number=True),
    Column("DELAYED", lambda r: texts.number(r["delayed"] + r["in_lanes"]), is_number=True),
    Column(
        "DEAD",
        lambda r: texts.number(r["dead"]),
        is_number=True,
        style=lambda r: "red" if r["dead"] else "",
    ),
    Column("OLDEST", lambda r: texts.age(r["oldest_waiting_s"]), is_number=True),
    Column("IN/S", lambda r: texts.rate(r["in_per_s"]), is_number=True),
    Column("OUT/S", lambda r: texts.rate(r["out_per_s"]), is_number=True),
    Column("DRAIN", drain_text, is_number=True),
    Column(
        "WORKERS",
        lambda r: texts.number(r["workers"]),
        is_number=True,
        style=lambda r: "bold red" if not r["workers"] else "",
    ),
    Column(
        "LEDGER",
        lambda r: "ok" if not r["ledger_difference"] else f"{r['ledger_difference']:,} lost",
        style=lambda r: "bold red" if r["ledger_difference"] else "",
    ),
)

PARTITION_COLUMNS: Sequence[Column] = (
    Column("QUEUE", lambda r: r["queue"]),
    Column("PARTITION", lambda r: str(r["partition"]), is_number=True),
    Column("WAITING", lambda r: texts.number(r["waiting"]), is_number=True),
    Column("RUNNING", lambda r: texts.number(r["running"]), is_number=True),
    Column("OLDEST WAITING", lambda r: texts.age(r["oldest_waiting_s"]), is_number=True),
    Column("OLDEST RUNNING", lambda r: texts.age(r["oldest_running_s"]), is_number=True),
    Column(
        "NEXT", lambda r: texts.NONE if r["next_offset"] is None else str(r["next_offset"]), is_number=True
    ),
    Column("HOLES", lambda r: texts.number(r["holes"]), is_number=True),
    Column("WRITTEN", lambda r: texts.number(r["written"]), is_number=True),
    Column("LOST", lambda r: texts.number(max(0, r["removed"] - r["purged"])), is_number=True),
    Column("OWNER", _owner, style=lambda r: "red" if r["owner_state"] in ("gone", "silent") else ""),
    Column("PROBATION", lambda r: f"{len(r['suspects'])} suspects" if r["on_probation"] else texts.NONE),
)
