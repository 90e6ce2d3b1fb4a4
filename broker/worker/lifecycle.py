"""What a worker process does at its boot and at its end, the hasty one included."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from dramatiq.broker import Broker
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from ..delays import Forwarder
from ..kafka.log_filter import drop_info_logs

if TYPE_CHECKING:
    from ..broker import KafkaBroker

#: How long each part of a hasty goodbye may take, and after how long no other part is begun.
EXIT_GUARD_TIMEOUT_S = 2.0
#: How soon it is noticed that the main thread has ended.
MAIN_THREAD_POLL_S = 0.25


class WorkerLifecycle(Middleware):
    """Runs, in each worker process, the thread that forwards delayed messages, and sees to its end."""

    def __init__(self) -> None:
        self._forwarder: Forwarder | None = None
        self._exit_guard: ExitGuard | None = None

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        drop_info_logs()

    def after_worker_boot(self, broker: KafkaBroker, worker: Worker) -> None:  # type: ignore[override]
        broker.begin_working()
        self._exit_guard = ExitGuard(broker)
        self._forwarder = broker.delays.forwarder(broker.consumer_settings)
        self._forwarder.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._forwarder is not None:
            self._forwarder.stop()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._exit_guard is not None:
            self._exit_guard.disarm()


class ExitGuard:
    """Commits what is done, and leaves the groups, when a process ends before its worker has stopped.

    Dramatiq answers a second SIGTERM with SystemExit in the main thread, which runs no hook any more: what
    was acked since the last commit would run again, and the next owner would wait for the session to end. But
    a process waits for its threads that are no daemons. This one sleeps until the main thread has ended.
    """

    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker
        self._disarmed = threading.Event()
        threading.Thread(target=self._run, name="dramatiq-kafka-last-words", daemon=False).start()

    def disarm(self) -> None:
        """The worker has stopped in good order: there is nothing left to say."""
        self._disarmed.set()

    def _run(self) -> None:
        main_thread = threading.main_thread()
        while main_thread.is_alive():
            if self._disarmed.wait(MAIN_THREAD_POLL_S):
                return
        self._broker.logger.warning("The worker ends before it has stopped; what is done is committed.")
        consumers = list(self._broker.consumers)
        self._broker.hurry(EXIT_GUARD_TIMEOUT_S)
        deadline_s = time.monotonic() + EXIT_GUARD_TIMEOUT_S
        for consumer in consumers:
            if time.monotonic() < deadline_s:
                consumer.close()
