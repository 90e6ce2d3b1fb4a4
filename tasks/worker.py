"""The life of a worker process: it loads the models, and runs the outbox and the database gate."""

import gc
import logging
from typing import Any

import dramatiq

from scoring import ModelRefused, Verdict
from submissions.models import Models
from submissions.outbox import Outbox
from tasks.database_gate import DatabaseGate
from tasks.moderator import Job
from tasks.thread_batcher import ThreadBatcher

logger = logging.getLogger(__name__)

#: The worker's exit code when its model is refused.
MODEL_REFUSED_EXIT_CODE = 78  # EX_CONFIG of sysexits.h


class WorkerLife(dramatiq.Middleware):
    """Loads the models before the first task, and starts and stops the worker's background threads."""

    def __init__(
        self, models: Models, outbox: Outbox, gate: DatabaseGate, moderator: ThreadBatcher[Job, Verdict]
    ) -> None:
        self._models = models
        self._outbox = outbox
        self._gate = gate
        self._moderator = moderator

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Load the model, or end the process.

        A worker without its model would fail every task. Dramatiq logs an Exception of a hook and continues;
        SystemExit is not an Exception.
        """
        try:
            loaded = self._models.current()
        except ModelRefused as refused:
            logger.critical("The worker does not start: %s", refused)
            raise SystemExit(MODEL_REFUSED_EXIT_CODE) from refused
        logger.info("Model %s is loaded", loaded.version)
        self._models.shadow()  # now, so that no task waits for it
        gc.collect()
        gc.freeze()  # models and modules stay: later collections skip them
        self._gate.start()
        self._moderator.start()
        self._outbox.start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        self._outbox.stop()
        self._gate.stop()
