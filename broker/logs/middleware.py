"""The middleware that logs each change of a task's state, and formats all lines of a worker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from ..deliveries.delivery import Delivery
from ..process import clock
from .formatters import formatter_for_stderr

if TYPE_CHECKING:
    from .. import KafkaBroker

logger = logging.getLogger(__name__)


class TaskLogs(Middleware):
    """Logs one line for each change of a task's state, and lets every line of a worker name its task.

    Put it first, so that it sees what other middleware has decided::

        KafkaBroker(middleware=[TaskLogs(), *default_middleware()])

    ``started`` is a line of the level debug, ``succeeded``, ``skipped`` and ``expired`` of info, ``retried``
    and ``interrupted`` of warning, ``failed`` and ``dead_lettered`` of error. A line has the field ``state``,
    the duration of the run in ``run_s``, and the error's type, and never an argument.

    Parameters:
      formats: Whether the handlers of the root logger get the formatter for JSON, or for a terminal, when a
        process of Dramatiq's command line has started.
    """

    def __init__(self, *, formats: bool = True) -> None:
        self._formats = formats

    def after_process_boot(self, broker: Broker) -> None:
        if not self._formats:
            return
        formatter = formatter_for_stderr(lambda: _kafka(broker).parts.identity.worker_id)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(formatter)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._note(logging.DEBUG, message, "started")

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        level, state = _change(message, exception)
        fields: dict[str, Any] = {}
        began_s = getattr(message, "began_s", None)
        if began_s is not None:
            fields["run_s"] = round(clock.monotonic_s() - began_s, 6)
        if exception is not None:
            fields["error_type"] = type(exception).__name__
        if state == "retried" and (retry_at_ms := getattr(message, "retry_at_ms", None)) is not None:
            fields["retry_in_s"] = round(max(0, retry_at_ms - clock.wall_ms()) / 1000, 3)
        self._note(level, message, state, **fields)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._note(logging.INFO, message, "expired" if getattr(message, "is_expired", False) else "skipped")

    def _note(self, level: int, message: MessageProxy, state: str, **fields: Any) -> None:
        logger.log(
            level,
            "%s %s: %s",
            message.actor_name,
            message.message_id,
            state,
            extra={"state": state, **fields},
        )


def _change(message: MessageProxy, error: BaseException | None) -> tuple[int, str]:
    """The level and the name of the state after a run."""
    if message.failed:
        return logging.ERROR, "dead_lettered"
    if error is None:
        return logging.INFO, "succeeded"
    if isinstance(message, Delivery) and message.is_retried:
        retries = message.options.get("retries")
        counts = isinstance(retries, int) and retries >= message.attempt
        return logging.WARNING, "retried" if counts else "interrupted"
    return logging.ERROR, "failed"


def _kafka(broker: Broker) -> KafkaBroker:
    from .. import KafkaBroker

    assert isinstance(broker, KafkaBroker)
    return broker
