"""Reads Kafka in the background into the store. No page reads Kafka by itself."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from dramatiq.errors import DecodeError

from ... import (
    DeadLetter,
    KafkaBroker,
    NotAuthorized,
    PauseResult,
    Pauses,
    QueueState,
    WorkerInfo,
)
from ...process import clock
from ...process.strict_json import dumps
from ..check_verbs import Examination
from ..control_verbs import command_row
from ..dead_letter_rows import dead_letter_row, place_of, resolution_row
from ..documents import QueueRow
from ..findings import ERROR
from ..output import Output
from ..queue_rows import LedgerWatch, Sample, partition_rows, queue_rows
from ..schedule_verbs import schedule_row
from ..session import EXPECTED, Session
from ..target import Target
from ..task_search import of_delayed
from ..worker_rows import actor_rows, running_rows, worker_rows
from . import measures
from .dead_letter_groups import groups_of
from .store import StateCache
from .stored_tracebacks import stored

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: The least pause between two rounds. After a long round it is PAUSE_RATIO times the round.
INTERVAL_S = 2.0
PAUSE_RATIO = 1.0
#: The interval of delayed messages, schedules and replays.
SLOW_INTERVAL_S = 20.0
#: The interval of checks, which ask Kafka for settings and records of every queue.
CHECK_INTERVAL_S = 60.0
#: The time for which samples, and events of the history, are kept.
SAMPLES_S = 3_600
SAMPLE_STEP_MS = 5_000
HISTORY_S = 24 * 3_600
MAX_EVENTS = 1_000_000
#: The events of one round. The history of more is left out, and the pages say so.
EVENTS_PER_ROUND = 20_000
#: The readings of a day that left events out, and are remembered one by one.
MAX_GAPS = 1_000
#: The clocks of workers differ: a round reads the end of the last one again.
OVERLAP_MS = 10_000
#: The queues that are read before pages without a state show them.
QUEUES_AT_ONCE = 20
#: The number of rows that are written at once.
BATCH = 500
#: Longer texts of dead letters are cut in the cache.
MAX_ERROR_CHARS = 2_000
MAX_TRACEBACK_CHARS = 30_000
MAX_MESSAGE_CHARS = 30_000
DELAYED_SHOWN = 100


@dataclass(slots=True)
class Condition:
    """How the reading goes.

    Attributes:
      revision: Grows with each round, so that browsers know that there is something new.
      read_ms: When the last round ended well, in milliseconds since 1970; None before the first.
      as_of_ms: When that round began. All dead letters until then are in the store.
      failing_since_ms: When the first of the rounds that failed did; None while they end well.
      error: Why the last round failed.
      took_s: The duration of the last round.
    """

    revision: int = 0
    read_ms: int | None = None
    as_of_ms: int | None = None
    failing_since_ms: int | None = None
    error: str = ""
    took_s: float = 0.0


@dataclass(slots=True)
class _Before:
    """What the last round has seen."""

    sample: Sample | None = None
    counters: measures.Counters = field(default_factory=dict)
    counted_ms: int = 0
    cpu: dict[str, tuple[int, float]] = field(default_factory=dict)
    dead: Mapping[str, object] = field(default_factory=dict)
    events_ms: int | None = None
    slow_s: float | None = None
    checked_s: float | None = None


class Collector:
    """Fills a store from Kafka.

    Parameters:
      broker: A broker that nothing else closes.
    """

    def __init__(self, broker: KafkaBroker, store: StateCache) -> None:
        self._broker = broker
        self._store = store
        self._before = _Before()
        self._ledgers = LedgerWatch()
        self._stopping = threading.Event()
        self._wanted = threading.Event()
        self._round = 0
        known = store.get("condition", {})
        self.condition = Condition(read_ms=known.get("read_ms"))

    # The thread

    def run(self) -> None:
        """Read until :meth:`stop`. An error is noted, and the next round tries again."""
        while not self._stopping.is_set():
            self.read_once()
            self._wanted.wait(self.pause_s)
            self._wanted.clear()

    @property
    def pause_s(self) -> float:
        """The pause after the last round, in seconds. The first round reads what later ones do not."""
        if self.condition.revision <= 1:
            return INTERVAL_S
        return max(INTERVAL_S, PAUSE_RATIO * self.condition.took_s)

    def stop(self) -> None:
        self._stopping.set()
        self._wanted.set()

    def read_soon(self) -> None:
        """Read again now, and what changes slowly as well, but for the checks: something was changed."""
        self._before.slow_s = None
        self._wanted.set()

    def read_pauses(self) -> None:
        """Bring the pauses to the present ones, for the page that follows a change."""
        rows = {name: command_row(pause.command) for name, pause in (self._pauses() or {}).items()}
        self._store.put(clock.wall_ms(), {"paused": rows})

    def read_schedules(self) -> None:
        """Bring the schedules to the present ones. Their arguments are not kept."""
        try:
            rows: list[dict[str, Any]] = [dict(schedule_row(one)) for one in self._broker.schedules.list()]
        except NotAuthorized as e:
            self._store.put(clock.wall_ms(), {"schedules": {"rows": [], "missing": [str(e)]}})
            return
        for row in rows:
            del row["args"], row["kwargs"]
        self._store.put(clock.wall_ms(), {"schedules": {"rows": rows, "missing": []}})

    def read_once(self) -> None:
        """One round. Errors are in :attr:`condition`."""
        began_s, began_ms, condition = clock.monotonic_s(), clock.wall_ms(), self.condition
        try:
            self._read()
        except EXPECTED as e:
            self._note_failure(str(e))
        except Exception as e:
            logger.exception("The state could not be read")
            self._note_failure(f"a defect of the console: {e!r}")
        else:
            condition.read_ms, condition.failing_since_ms, condition.error = clock.wall_ms(), None, ""
            condition.as_of_ms = began_ms
            self._store.put(condition.read_ms, {"condition": {"read_ms": condition.read_ms}})
        condition.took_s = clock.monotonic_s() - began_s
        condition.revision += 1

    def _note_failure(self, text: str) -> None:
        if self.condition.failing_since_ms is None:
            self.condition.failing_since_ms = clock.wall_ms()
        self.condition.error = text

    # One round

    def _read(self) -> None:
        broker, before = self._broker, self._before
        self._round += 1
        names = broker.queue_names()
        workers = broker.workers()
        pauses = self._pauses()
        self._store.put(
            clock.wall_ms(),
            {
                "workers": worker_rows(workers, pauses or {}),
                "running": running_rows(workers),
                "actors": actor_rows(workers, broker.actors),
                "paused": {name: command_row(pause.command) for name, pause in (pauses or {}).items()},
            },
        )
        now, rows = self._read_queues(names, workers, pauses)
        before.sample = now
        self._write_samples(now.at_ms, self._samples(now.at_ms, rows, workers))
        self._read_history(now.at_ms)
        is_slow = before.slow_s is None or clock.monotonic_s() - before.slow_s >= SLOW_INTERVAL_S
        if is_slow:
            # First of all: a change meanwhile asks for one more.
            before.slow_s = clock.monotonic_s()
        dead = {state.name: state.dead_log for state in now.states}
        changed = [name for name in names if dead[name] != before.dead.get(name)]
        filled = [name for name in changed if not dead[name].is_empty]
        with broker.dead_letter_queue.up_to(dead) as dead_letters:
            for name in filled:
                self._read_dead_letters(name, dead_letters.read(name))
            if changed:
                self._read_resolutions({name: dead_letters.history(name) for name in filled}, names)
        self._forget_dead_letters_but_of([name for name in names if not dead[name].is_empty])
        if changed or is_slow:
            self._store.put(clock.wall_ms(), {"groups": groups_of(self._store, "dead_letter", "TRUE", {})})
        before.dead = dead
        if is_slow:
            self._read_slowly(now)

    def _read_queues(
        self, names: Sequence[str], workers: Sequence[WorkerInfo], pauses: Pauses[PauseResult] | None
    ) -> tuple[Sample, list[QueueRow]]:
        """Bring the queues to the present ones.

        The first time, all dead letters are counted. Meanwhile the pages show the queues that were read, if
        they know no state of an earlier process.
        """
        is_new = self._store.get("queues") is None
        at_ms, states = clock.wall_ms(), list[QueueState]()
        now, rows = Sample(at_ms, states), list[QueueRow]()
        for begin in range(0, len(names), QUEUES_AT_ONCE if is_new else max(1, len(names))):
            end = begin + QUEUES_AT_ONCE if is_new else None
            states += self._broker.queues(*names[begin:end])
            rows = queue_rows(self._before.sample, now, workers, self._ledgers, pauses)
            self._store.put(at_ms, {"queues": rows, "partitions": partition_rows(states, workers)})
        if not names:
            self._store.put(at_ms, {"queues": [], "partitions": []})
        return now, rows

    def _pauses(self) -> Pauses[PauseResult] | None:
        """The pauses; None without the right to read them."""
        try:
            return self._broker.pauses()
        except NotAuthorized:
            return None

    # Samples

    def _samples(
        self, at_ms: int, rows: Sequence[QueueRow], workers: Sequence[WorkerInfo]
    ) -> Iterator[tuple[str, float]]:
        for row in rows:
            for name in ("waiting", "running", "dead"):
                yield f"queue:{row['queue']}:{name}", float(row[name])
            for name in ("in_per_s", "out_per_s"):
                if row[name] is not None:  # type: ignore[literal-required]
                    yield f"queue:{row['queue']}:{name}", row[name]  # type: ignore[literal-required]
        rates = [(row["in_per_s"], row["out_per_s"]) for row in rows]
        if rates and all(one is not None for pair in rates for one in pair):
            yield "total:in_per_s", sum(pair[0] or 0.0 for pair in rates)
            yield "total:out_per_s", sum(pair[1] or 0.0 for pair in rates)
        yield from self._counted(at_ms, workers)
        yield from self._of_processes(workers)

    def _counted(self, at_ms: int, workers: Sequence[WorkerInfo]) -> Iterator[tuple[str, float]]:
        """What the counters of actors say of the time since the last round."""
        before, now = self._before, measures.counters_of(workers)
        elapsed_s = (at_ms - before.counted_ms) / 1000
        if before.counted_ms and elapsed_s > 0:
            by_actor = measures.ended_between(before.counters, now)
            for name, ended in [("total:", measures.total(by_actor.values())), *(
                (f"actor:{actor}:", ended) for actor, ended in by_actor.items()
            )]:  # fmt: skip
                yield f"{name}succeeded_per_s", ended.succeeded / elapsed_s
                yield f"{name}failed_per_s", ended.failed / elapsed_s
                for kind, counts in (("run", ended.run_counts), ("queue", ended.queue_counts)):
                    for share in (50, 95, 99):
                        if (value := measures.quantile_s(counts, share / 100)) is not None:
                            yield f"{name}{kind}_p{share}_s", value
        # A worker that has not reported meanwhile is compared with its next report.
        before.counters, before.counted_ms = now, at_ms

    def _of_processes(self, workers: Sequence[WorkerInfo]) -> Iterator[tuple[str, float]]:
        cpu: dict[str, tuple[int, float]] = {}
        for worker in workers:
            report = worker.report
            if report is None:
                continue
            cpu[worker.worker_id] = (report.at_ms, report.cpu_s)
            before_ms, before_s = self._before.cpu.get(worker.worker_id, (report.at_ms, 0.0))
            if report.at_ms > before_ms:
                share = (report.cpu_s - before_s) / ((report.at_ms - before_ms) / 1000)
                yield f"worker:{worker.worker_id}:cpu", max(0.0, share)
                if report.rss_bytes is not None:
                    yield f"worker:{worker.worker_id}:rss", report.rss_bytes
        self._before.cpu = cpu

    def _write_samples(self, at_ms: int, samples: Iterable[tuple[str, float]]) -> None:
        step_ms = at_ms // SAMPLE_STEP_MS * SAMPLE_STEP_MS
        rows = [(series, step_ms, value) for series, value in samples]
        with self._store.writing() as db:
            db.executemany("INSERT OR REPLACE INTO sample VALUES (?, ?, ?)", rows)
            if self._round % 60 == 1:
                db.execute("DELETE FROM sample WHERE at_ms < ?", (at_ms - SAMPLES_S * 1000,))

    # History

    def _read_history(self, now_ms: int) -> None:
        before = self._before
        if before.events_ms is None:
            ((newest,),) = (
                (row["newest"],) for row in self._store.query("SELECT max(at_ms) newest FROM event")
            )
            before.events_ms = max(newest or 0, now_ms - HISTORY_S * 1000)
        since = datetime.fromtimestamp(max(0, before.events_ms - OVERLAP_MS) / 1000, UTC)
        try:
            history = self._broker.history(since=since, limit=EVENTS_PER_ROUND)
        except NotAuthorized as e:
            self._store.put(now_ms, {"history": {"missing": [str(e)], "unrecorded": {}}})
            return
        newest, oldest = before.events_ms, now_ms
        for batch in _batches(history):
            self._store.add_events(batch)
            newest = max(newest, *(event.at_ms for event in batch))
            oldest = min(oldest, *(event.at_ms for event in batch))
        gaps = [gap for gap in self._store.get("gaps", []) if gap["until_ms"] > now_ms - HISTORY_S * 1000]
        # The others are of the part that was read before, too.
        if history.left_out and oldest > before.events_ms:
            gaps.append({"since_ms": before.events_ms, "until_ms": oldest, "count": history.left_out})
        before.events_ms = min(newest, now_ms)
        self._store.put(
            now_ms,
            {
                "history": {
                    "missing": [*history.missing, *_told(gaps)],
                    "unrecorded": dict(history.unrecorded),
                },
                "gaps": gaps[-MAX_GAPS:],
            },
        )
        if self._round % 60 == 1:
            self._forget_events(now_ms)

    def _forget_events(self, now_ms: int) -> None:
        with self._store.writing() as db:
            db.execute("DELETE FROM event WHERE at_ms < ?", (now_ms - HISTORY_S * 1000,))
            ((count,),) = db.execute("SELECT count(*) FROM event").fetchall()
            if count > MAX_EVENTS:
                limit = "SELECT at_ms FROM event ORDER BY at_ms LIMIT 1 OFFSET ?"
                db.execute(f"DELETE FROM event WHERE at_ms < ({limit})", (count - MAX_EVENTS,))

    # Dead letters

    def _read_dead_letters(self, queue: str, present: Iterable[DeadLetter]) -> None:
        """Bring the cached dead letters of a queue to the present ones."""
        for batch in _batches(present):
            rows = [_dead_letter(one, self._round) for one in batch if place_of(one) is not None]
            with self._store.writing() as db:
                db.executemany("INSERT OR IGNORE INTO frames VALUES (?, ?)", {frames for frames, _ in rows})
                db.executemany(
                    "INSERT INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET round = excluded.round",
                    [row for _, row in rows],
                )
        with self._store.writing() as db:
            db.execute("DELETE FROM dead_letter WHERE queue = ? AND round != ?", (queue, self._round))

    def _forget_dead_letters_but_of(self, names: Sequence[str]) -> None:
        known = {row["queue"] for row in self._store.query("SELECT DISTINCT queue FROM dead_letter")}
        with self._store.writing() as db:
            db.executemany("DELETE FROM dead_letter WHERE queue = ?", [(name,) for name in known - {*names}])
            if self._round % 60 == 1:
                db.execute("DELETE FROM frames WHERE id NOT IN (SELECT frames FROM dead_letter)")

    # What changes slowly

    def _read_slowly(self, sample: Sample) -> None:
        broker = self._broker
        session = Session(Target(), Output(as_json=True), 10.0, broker)
        delayed = {}
        # The states say of the others that they have none.
        for name in [state.name for state in sample.states if state.delayed]:
            # Known from the topics, which need not be listed again for each queue.
            broker.declare_queue(name)
            pending = broker.delayed(name, limit=DELAYED_SHOWN)
            shown = []
            for one in pending.messages:
                try:
                    shown.append(of_delayed(one, one.decode()))
                except DecodeError:
                    logger.debug("A delayed message of %r is not readable", name)
            delayed[name] = {"count": pending.count, "messages": shown}
        lanes = {}
        for name in [state.name for state in sample.states if state.in_lanes]:
            broker.declare_queue(name)
            lanes[name] = [asdict(one) for one in broker.lanes(name)]
        self._store.put(clock.wall_ms(), {"delayed": delayed, "lanes": lanes})
        self.read_schedules()
        self._read_replays()
        checked_s = self._before.checked_s
        if checked_s is None or clock.monotonic_s() - checked_s >= CHECK_INTERVAL_S:
            self._check(session)

    def _check(self, session: Session) -> None:
        examination = Examination(session)
        findings = sorted(examination.run(), key=lambda row: (row["severity"] != ERROR, row["check"]))
        self._store.put(clock.wall_ms(), {"findings": findings, "checked": examination.passed})
        self._before.checked_s = clock.monotonic_s()

    def _read_resolutions(self, changed: Mapping[str, Iterable[object]], names: Sequence[str]) -> None:
        """The redrives and discards that some queues have records of, beside those of all others."""
        others = {*names} - {*changed}
        resolutions = [row for row in self._store.get("resolutions", []) if row["queue"] in others]
        for name, history in changed.items():
            for one in history:
                row = resolution_row(name, one)
                row["message_ids"] = row["message_ids"][:1]
                resolutions.append(row)
        resolutions.sort(key=lambda row: row["at_ms"])
        self._store.put(clock.wall_ms(), {"resolutions": resolutions[-2_000:]})

    def _read_replays(self) -> None:
        broker = self._broker
        try:
            replays: list[dict[str, Any]] = [
                {
                    "queue": one.queue_name, "at_ms": one.at_ms, "by": one.by, "reason": one.reason,
                    "state": str(one.state.value), "count": one.sent or one.selected,
                }
                for one in broker.replays()
            ]  # fmt: skip
        except NotAuthorized:
            replays = []
        self._store.put(clock.wall_ms(), {"replays": replays[-500:]})


def _told(gaps: Sequence[Mapping[str, int]]) -> list[str]:
    """The events that the rounds of the last day have left out. Later rounds do not read them again."""
    if not gaps:
        return []
    since_ms, until_ms = min(gap["since_ms"] for gap in gaps), max(gap["until_ms"] for gap in gaps)
    begin, end = (
        datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "seconds") for ms in (since_ms, until_ms)
    )
    count = sum(gap["count"] for gap in gaps)
    return [
        f"up to {count:,} events between {begin} and {end} are not kept here, as a reading keeps "
        f"{EVENTS_PER_ROUND:,}: dkb task show reads all"
    ]


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _dead_letter(dead_letter: DeadLetter, round_: int) -> tuple[tuple[int, str], tuple[object, ...]]:
    """The rows of a dead letter in the tables ``frames`` and ``dead_letter``."""
    row, message = dead_letter_row(dead_letter), dead_letter.message
    text = None
    if message is not None:
        content = {"args": list(message.args), "kwargs": message.kwargs, "options": message.options}
        text = dumps(content)
        if len(text) > MAX_MESSAGE_CHARS:
            note = f"({len(text):,} characters: see dkb dlq show)"
            text = json.dumps({"args": [note], "kwargs": {}, "options": {}, "is_cut": True})
    partition, offset = place_of(dead_letter) or (0, 0)
    error = row["error"][:MAX_ERROR_CHARS]
    traceback = stored(dead_letter.traceback[-MAX_TRACEBACK_CHARS:], error)
    return (traceback.id, traceback.text), (
        row["queue"], partition, offset, row["message_id"], row["actor"], row["at_ms"], row["error_type"],
        error, traceback.id, traceback.last_line, traceback.ending, row["retries"], row["redrives"],
        row["not_redrivable"], row["record"], round_, text,
    )  # fmt: skip
