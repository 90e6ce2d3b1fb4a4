"""What a worker process does besides tasks: it loads the model before the first one and runs the outbox."""

import logging
from typing import Any

import dramatiq

from scoring import ModelRefused
from tasks.outbox import Outbox
from tasks.resources import model, shadow_model

logger = logging.getLogger(__name__)

#: The worker's exit code when its model is refused.
MODEL_REFUSED_EXIT_CODE = 78  # EX_CONFIG of sysexits.h


class WorkerLife(dramatiq.Middleware):
    """Loads the model and runs the outbox for as long as the worker lives."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

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
        self._outbox.start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        self._outbox.stop()
