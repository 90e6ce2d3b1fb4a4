"""The thread that writes a worker's reports and its history. No other thread waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ..deliveries.delivery import Delivery
from ..errors import RECORD_ERRORS, NotAuthorized, TopicMisconfigured
from ..kafka.rights import Denials
from ..kafka.topic_names import TopicNames
from ..process import clock, usage
from ..process.backoff import Backoff
from ..process.forks import reset_on_fork
from ..produce.publisher import Publisher
from ..produce.record import Record
from .consumption import ConsumptionCounters
from .history_writer import HistoryWriter, PendingBatch
from .report import (
    MAX_RUNNING,
    HistoryCounters,
    Kind,
    RunningTask,
    TaskProgress,
    WorkerReport,
    encode_report,
)
from .runs import Runs
from .sources import ControlStatus, Sources, limit_ms

logger = logging.getLogger(__name__)

#: The interval of the writes of the history, and of the checks whether a report is due.
FLUSH_INTERVAL_S = 0.25
#: The interval of reports while something changes, and otherwise.
BUSY_INTERVAL_S = 2.0
IDLE_INTERVAL_S = 10.0
#: The first report waits for the first assigned partition, so that it does not delay the consumers' requests.
FIRST_REPORT_TIMEOUT_S = 2.0
#: The timeout of the connection to Kafka, and again of an acknowledgement.
PUBLISH_TIMEOUT_MS = 5_000
#: The pauses after a failed write. What is written later says how much was dropped.
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
#: The time for which the end of a worker waits for its goodbye.
GOODBYE_TIMEOUT_S = 2.0
#: Failures after which the same record would fail again.
_REFUSALS = (NotAuthorized, TopicMisconfigured, *RECORD_ERRORS)


class _Change(NamedTuple):
    """What makes a report due before the long interval has passed."""

    ended_ms: int
    running: tuple[tuple[str, tuple[float, str, int] | None], ...]
    assigned: frozenset[object]


class Reporter:
    """Writes the reports of this process's worker.

    The thread lives from :meth:`start` to :meth:`stop`. A process that is no worker has none.

    Parameters:
      publisher: The application's, so that reports add no producer with its thread.
      own_publisher: Used instead after Kafka has refused a record: a refusal ends the producer of all records
        in flight, and the messages of the application must not be sent again at each attempt.
      is_on: Whether reports are written.
      successes_per_s: The successful runs that the history records each second; -1 for no history.

    Attributes:
      is_on: The same.
      control: What the worker knows of the control commands.
    """

    def __init__(
        self,
        publisher: Publisher,
        own_publisher: Publisher,
        topics: TopicNames,
        runs: Runs,
        consumption: ConsumptionCounters,
        sources: Sources,
        denials: Denials,
        *,
        is_on: bool,
        successes_per_s: int,
    ) -> None:
        self._publisher = publisher
        self._own_publisher = own_publisher
        self._topics = topics
        self._history = HistoryWriter(runs, successes_per_s=successes_per_s)
        self._runs = runs
        self._consumption = consumption
        self._sources = sources
        self._denials = denials
        self.is_on = is_on
        self.control = ControlStatus(self.report_soon)
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Have no thread: it belongs to the parent."""
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._queues: Callable[[], Sequence[str]] = tuple
        self._beside: Callable[[], None] = lambda: None
        self._worker_threads = 0
        self._report_backoff = Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S)
        self._history_backoff = Backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S)
        self._started_s = 0.0
        self._reported_s: float | None = None
        self._promised_s = 0.0
        self._last_change: _Change | None = None

    def begin_boot(self) -> None:
        """Begin to count runs, before the first one."""
        self._runs.begin_boot(self._sources.identity.worker_id)
        self._consumption.begin_boot()
        self._runs.is_counting = self.is_on
        self._runs.is_recording = self.is_on and self._history.is_on
        self._history.begin(clock.monotonic_s())

    def start(
        self,
        queues: Callable[[], Sequence[str]],
        worker_threads: int,
        *,
        beside: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread.

        Parameters:
          queues: Returns the queues that the worker consumes; an application may declare more of them later.
          worker_threads: The number of its worker threads.
          beside: Called by the thread four times a second. It may wait for Kafka, as the thread does.
        """
        self.reset_after_fork()
        self._beside = beside
        self._queues, self._worker_threads = queues, worker_threads
        self._started_s = clock.monotonic_s()
        self._thread = threading.Thread(target=self._run, name="dramatiq-kafka-reports", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the goodbye and end the thread, within GOODBYE_TIMEOUT_S."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._wake.set()
            thread.join(GOODBYE_TIMEOUT_S)

    def report_soon(self) -> None:
        """Let the next report be written at once. Any thread may call this."""
        self._reported_s = None if self._reported_s is None else float("-inf")
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping:
            clock.wait(self._wake, FLUSH_INTERVAL_S)
            self._wake.clear()
            try:
                self.step()
                if not self._stopping:
                    self._beside()
            except Exception:
                # A fault here must end neither the reports nor the worker.
                logger.exception("The worker's report could not be written; the next one will be.")
                self._report_backoff.fail()

    def step(self) -> None:
        """Write what is due. It waits for Kafka."""
        now_s = clock.monotonic_s()
        self._runs.set_clocks()
        self._history.set_quota(now_s)
        batches: list[PendingBatch] = []
        if self._stopping or self._history_backoff.is_over:
            batches = self._history.batches(now_s, is_last=self._stopping)
        records = [Record(self._topics.history, batch.value) for batch in batches]
        change = self._change()
        is_busy = bool(change.running) or change != self._last_change
        interval_s = BUSY_INTERVAL_S if is_busy else IDLE_INTERVAL_S
        is_due = self._stopping or (self._report_backoff.is_over and self._is_due(now_s, change))
        if is_due:
            report = self._report(Kind.GOODBYE if self._stopping else Kind.REPORT, interval_s)
            key = report.worker_id.encode()
            records.append(Record(self._topics.workers, encode_report(report), key=key))
        failures = self._publisher.publish(records)
        if batches:
            failed = {index: failures[index] for index in range(len(batches)) if index in failures}
            self._note_result("history", self._history_backoff, failed.values())
            refused = {index for index, e in failed.items() if isinstance(e, _REFUSALS)}
            self._history.note(batches, now_s, failed=failed.keys(), refused=refused)
        if is_due:
            failure = failures.get(len(batches))
            self._note_result("reports", self._report_backoff, () if failure is None else (failure,))
            if failure is None:
                self._reported_s, self._promised_s, self._last_change = now_s, interval_s, change

    def _note_result(self, activity: str, backoff: Backoff, failures: Collection[BaseException]) -> None:
        """Note whether an activity has succeeded. After a failure it pauses."""
        if not failures:
            backoff.reset()
            self._denials.is_over(activity)
            return
        backoff.fail()
        failure = next(iter(failures))
        if isinstance(failure, _REFUSALS):
            self._publisher = self._own_publisher
            self._denials.note(activity, failure)
        else:
            logger.debug("The worker's %s could not be written: %r", activity, failure)

    def _change(self) -> _Change:
        running = tuple((delivery.message_id, delivery.progress) for _, delivery in self._runs.running())
        return _Change(self._runs.ended_ms, running, frozenset(self._sources.assigned()))

    def _is_due(self, now_s: float, change: _Change) -> bool:
        if self._reported_s is None:
            return bool(change.assigned) or now_s - self._started_s >= FIRST_REPORT_TIMEOUT_S
        passed_s = now_s - self._reported_s
        if passed_s >= self._promised_s:
            return True
        return passed_s >= BUSY_INTERVAL_S and change != self._last_change

    def _report(self, kind: Kind, next_s: float) -> WorkerReport:
        sources, identity, runs = self._sources, self._sources.identity, self._runs
        running = runs.running()
        queues = sorted(self._queues())
        topics = {sources.topic_of(queue): queue for queue in queues}
        partitions: dict[str, tuple[int, ...]] = dict.fromkeys(queues, ())
        for topic, number in sorted(sources.assigned()):
            if topic in topics:
                partitions[topics[topic]] += (number,)
        return WorkerReport(
            worker_id=identity.worker_id,
            host=identity.host,
            pid=identity.pid,
            at_ms=clock.wall_ms(),
            booted_ms=identity.booted_ms,
            next_s=next_s,
            kind=kind,
            versions=sources.versions,
            queues=tuple(queues),
            threads=self._worker_threads,
            running=tuple(self._running_task(*run) for run in running[:MAX_RUNNING]),
            running_count=len(running),
            ended_ms=runs.ended_ms,
            actors=runs.counters(),
            rss_bytes=usage.rss_bytes(),
            cpu_s=usage.cpu_s(),
            partitions=partitions,
            members=dict(sources.memberships()),
            group_id=sources.group_id,
            history=HistoryCounters(runs.recorded, sum(runs.unrecorded().values()), self._history.dropped),
            control=self.control.state,
            consumption=self._consumption.read(),
            forward_lateness=self._consumption.forward_lateness,
        )

    def _running_task(self, began_s: float, delivery: Delivery) -> RunningTask:
        progress = delivery.progress
        return RunningTask(
            delivery.message_id,
            delivery.actor_name,
            delivery.queue_name,
            delivery.attempt,
            self._runs.wall_ms(began_s),
            limit_ms=limit_ms(self._sources.actors, delivery),
            progress=None if progress is None else TaskProgress(*progress),
            partition=delivery.origin.partition,
        )
