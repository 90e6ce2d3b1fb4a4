"""The boot and the end of a worker process, also an end without a shutdown."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable

from dramatiq.broker import Broker, Consumer
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from ..control.notices import NoticeReader
from ..control.standing import StandingCommands
from ..delays import Forwarder
from ..kafka.log_filter import drop_info_logs
from ..kafka.topics import Topics
from ..process import clock
from ..process.forks import reset_on_fork
from ..reaper.death_note_reader import READ_BACK_MS, DeathNoteReader
from ..reaper.process import run_reaper
from ..reaper.registrar import Registrar
from ..reports.reporter import Reporter
from ..schedules import Scheduler
from .hard_limits import HardLimits
from .identity import WorkerIdentity
from .policy_watch import PolicyWatch
from .shutdown import Shutdown

logger = logging.getLogger(__name__)

#: The timeout of each consumer's close at such an end, and the time after which no further one is closed.
EXIT_GUARD_TIMEOUT_S = 2.0
#: The time to wait for the forwarder and the scheduler, each.
STOP_TIMEOUT_S = 10.0
#: The interval in which the end of the main thread is noticed.
MAIN_THREAD_POLL_S = 0.25


NewDeathNoteReader = Callable[
    [Callable[[], Forwarder | None], Callable[[], Scheduler | None]], DeathNoteReader
]


class WorkerLifecycle(Middleware):
    """Starts and stops the threads of a worker process: the notice reader, the forwarder, the scheduler, the
    reporter, the policy watch and the exit guard. Registers the process with the reaper of its command.

    Attributes:
      death_notes: The reactions to the deaths of other workers.
    """

    def __init__(
        self,
        shutdown: Shutdown,
        topics: Topics,
        identity: WorkerIdentity,
        reporter: Reporter,
        *,
        control: StandingCommands,
        notices: NoticeReader,
        new_forwarder: Callable[[], Forwarder],
        new_scheduler: Callable[[], Scheduler],
        has_schedules: Callable[[], bool],
        consumers: Callable[[], Iterable[Consumer]],
        registrar: Registrar,
        hard_limits: HardLimits,
        new_death_note_reader: NewDeathNoteReader,
    ) -> None:
        self._registrar = registrar
        self._hard_limits = hard_limits
        self.death_notes = new_death_note_reader(lambda: self._forwarder, lambda: self._scheduler)
        self._shutdown = shutdown
        self._control = control
        self._notices = notices
        notices.follow(
            topics.workers, lambda record: self.death_notes.read(record.value), back_ms=READ_BACK_MS
        )
        # Without a schedule, there is neither the topic nor the scheduler's thread.
        notices.await_topic(topics.schedules, self._start_scheduler)
        self._topics = topics
        self._identity = identity
        self._reporter = reporter
        self._new_forwarder = new_forwarder
        self._new_scheduler = new_scheduler
        self._has_schedules = has_schedules
        self._scheduler: Scheduler | None = None
        self._consumers = consumers
        self._is_working = False
        self._forwarder: Forwarder | None = None
        self._policy_watch: PolicyWatch | None = None
        self._exit_guard: ExitGuard | None = None
        self.reset_after_fork()
        reset_on_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock: another thread of the parent may have held it."""
        self._lock = threading.Lock()

    @property
    def forks(self) -> list[Callable[[], int]]:
        """The reaper, which Dramatiq's command line starts after its workers."""
        if refusal := self._registrar.transfer_refusal():
            logger.warning(
                "This command has no reaper: %s. The partitions of a killed worker move only after the "
                "session timeout.",
                refusal,
            )
            return []
        return [run_reaper]

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        drop_info_logs()
        self._identity.begin_boot()
        self._reporter.begin_boot()
        logger.info("This worker's id is %s.", self._identity.worker_id)
        self._control.on_quiet = self._be_quiet
        self._control.on_stop = end_process
        with self._lock:
            self._is_working, self._scheduler = True, None
        self._notices.start()  # beside the consumers, which wait for their groups meanwhile
        self.death_notes.start()
        self._registrar.start()
        if (actors := self._hard_limits.actors) and (reason := self._registrar.absence()):
            logger.error("The hard_time_limit= of %s is not enforced in this worker: %s.", actors, reason)
        self._shutdown.begin_working()  # before the worker's consumers read it

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        self._exit_guard = ExitGuard(self._shutdown, self._consumers, beside=self._registrar.notice_end)
        self._forwarder = self._new_forwarder()
        self._forwarder.start()
        if self._has_schedules():
            self._start_scheduler()
        self._policy_watch = PolicyWatch(self._topics)
        if self._reporter.is_on:
            self._reporter.start(
                lambda: list(worker.consumers), worker.worker_threads, beside=self._policy_watch.step
            )
        else:
            self._policy_watch.start()

    def _start_scheduler(self) -> None:
        """Start the scheduler. A second call does nothing."""
        with self._lock:
            if self._scheduler is None and self._is_working:
                self._scheduler = self._new_scheduler()
                self._scheduler.start()

    def _be_quiet(self) -> None:
        """Leave the groups of the forwarders and of the schedules' owners; the consumers leave theirs when
        their last tasks are done.
        """
        with self._lock:
            self._is_working = False
        self._stop_threads(timeout_s=0.0)

    def _stop_threads(self, *, timeout_s: float) -> None:
        for thread in (self._scheduler, self._forwarder):
            if thread is not None:
                thread.stop(timeout_s=timeout_s)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self.death_notes.stop()
        self._notices.stop()
        if self._policy_watch is not None:
            self._policy_watch.stop()
        with self._lock:
            self._is_working = False
        self._stop_threads(timeout_s=0.0)  # all of them at once, and then wait for each
        self._stop_threads(timeout_s=STOP_TIMEOUT_S)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self._notices.join()
        self._control.let_go()
        self._reporter.stop()
        if self._exit_guard is not None:
            self._exit_guard.disarm()
        self._registrar.stop()


def end_process() -> None:
    """End this process as its supervisor does: with SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


class ExitGuard:
    """Commits completed offsets and leaves the groups when a process ends before its worker has stopped.

    Dramatiq answers a second SIGTERM with SystemExit in the main thread, and no hook runs after that. Tasks
    that were acked since the last commit would run again, and the next owner would wait for the session
    timeout. But a process waits for its non-daemon threads. This one sleeps until the main thread has ended.

    Parameters:
      beside: Called every MAIN_THREAD_POLL_S. It does not wait, and saves a thread of its own.
    """

    def __init__(
        self,
        shutdown: Shutdown,
        consumers: Callable[[], Iterable[Consumer]],
        *,
        beside: Callable[[], object] = lambda: None,
    ) -> None:
        self._shutdown = shutdown
        self._consumers = consumers
        self._beside = beside
        self._disarmed = threading.Event()
        threading.Thread(target=self._run, name="dramatiq-kafka-exit-guard", daemon=False).start()

    def disarm(self) -> None:
        """End the thread: the worker has stopped, and its consumers are closed."""
        self._disarmed.set()

    def _run(self) -> None:
        main_thread = threading.main_thread()
        while main_thread.is_alive():
            if self._disarmed.wait(MAIN_THREAD_POLL_S):
                return
            self._beside()
        logger.warning("The worker ends before it has stopped; completed offsets are committed.")
        consumers = list(self._consumers())
        self._shutdown.begin_stopping(timeout_s=EXIT_GUARD_TIMEOUT_S)
        deadline_s = clock.monotonic_s() + EXIT_GUARD_TIMEOUT_S
        for consumer in consumers:
            if clock.monotonic_s() < deadline_s:
                consumer.close()
