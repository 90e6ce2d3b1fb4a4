"""What a worker process does besides tasks: it loads the model before the first one, runs the outbox, and
takes no tasks while PostgreSQL is away."""

import gc
import logging
from typing import Any

import dramatiq

from scoring import ModelRefused, Verdict
from tasks.batching import Batcher
from tasks.intake import Intake
from tasks.outbox import Outbox
from tasks.resources import model, shadow_model
from tasks.verdicts import Job

logger = logging.getLogger(__name__)

#: The worker's exit code when its model is refused.
MODEL_REFUSED_EXIT_CODE = 78  # EX_CONFIG of sysexits.h


class WorkerLife(dramatiq.Middleware):
    """Loads the model, and runs what runs beside the tasks for as long as the worker lives."""

    def __init__(self, outbox: Outbox, intake: Intake, moderator: Batcher[Job, Verdict]) -> None:
        self._outbox = outbox
        self._intake = intake
        self._moderator = moderator

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Load the model, or end the process: Dramatiq logs an Exception from a hook and carries on, but a
        worker without its model would fail every task. SystemExit is not an Exception."""
        try:
            loaded = model()
        except ModelRefused as refused:
            logger.critical("The worker does not start: %s", refused)
            raise SystemExit(MODEL_REFUSED_EXIT_CODE) from refused
        logger.info("Model %s is loaded", loaded.version)
        shadow_model()  # now, so that no task waits for it
        gc.collect()
        gc.freeze()  # models and modules stay: no need to look through them again and again
        self._intake.start()
        self._moderator.start()
        self._outbox.start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        self._outbox.stop()
        self._intake.stop()
