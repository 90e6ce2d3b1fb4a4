"""Formats log lines. Each line of a task names it; no line has the arguments of a message.

A formatter runs on the thread that logs, so it finds the running task there. Code that hands records to
another thread formats them first, as ``logging.handlers.QueueHandler`` does when it has a formatter.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from ..deliveries.delivery import Delivery
from ..process.strict_json import dumps
from ..reports.runs import current_delivery

#: The attributes of a record that the module ``logging`` sets; any other was passed with ``extra=``.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_STDERR = 2


def fields_of_task() -> dict[str, Any]:
    """The task that this thread, or this asyncio task, runs; empty where none runs."""
    delivery = current_delivery.get()
    return {} if delivery is None or delivery.began_s is None else fields_of(delivery)


def fields_of(delivery: Delivery) -> dict[str, Any]:
    """The fields of a delivery: whose it is, where its record is, and the attempt."""
    return {
        "message_id": delivery.message_id,
        "actor": delivery.actor_name,
        "queue": delivery.queue_name,
        "partition": delivery.origin.partition,
        "offset": delivery.origin.offset,
        "attempt": delivery.attempt,
    }


class _Formatter(logging.Formatter):
    """Parameters:
    worker_id: Returns the id of this process's worker; empty without one.
    """

    def __init__(self, worker_id: Callable[[], str] = str) -> None:
        super().__init__()
        self._worker_id = worker_id

    def _text(self, record: logging.LogRecord) -> str:
        """The message. A Dramatiq message in it is named, and its arguments are left out."""
        args = record.args
        if isinstance(args, tuple) and any(isinstance(arg, Message | MessageProxy) for arg in args):
            return str(record.msg) % tuple(map(_named, args))
        return record.getMessage()

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The task, the trace, the worker, and what was passed with ``extra=`` under other names."""
        fields = {name: value for name, value in vars(record).items() if name not in _OWN}
        fields |= fields_of_task() | _trace()
        if worker_id := self._worker_id():
            fields["worker"] = worker_id
        return fields


class JSONFormatter(_Formatter):
    """One JSON object for each line: ``time``, ``level``, ``logger``, ``text``, the fields of the task, and
    ``error`` with ``type``, ``text`` and ``traceback``.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            **self._fields(record),
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": self._text(record),
            "process": record.process,
            "thread": record.threadName,
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _error(record.exc_info[1])
        if record.stack_info:
            line["stack"] = record.stack_info
        return dumps(line)


class TextFormatter(_Formatter):
    """A line for people: time, level, logger and message, with the fields of the task behind it."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = "".join(f" {name}={value}" for name, value in self._fields(record).items())
        line = f"{time} {record.levelname} {record.name}: {self._text(record)}{fields}"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def formatter_for_stderr(worker_id: Callable[[], str] = str) -> logging.Formatter:
    """Text when a person reads the standard error stream on a terminal, and JSON otherwise.

    Dramatiq's workers write to a pipe, whose other end the parent copies to the stream that all inherit.
    """
    try:
        is_terminal = os.isatty(_STDERR)
    except OSError:  # it is closed
        is_terminal = False
    return TextFormatter(worker_id) if is_terminal else JSONFormatter(worker_id)


def _named(arg: object) -> object:
    if isinstance(arg, Message | MessageProxy):
        return f"{arg.message_id} of {arg.actor_name}"
    return arg


def _error(error: BaseException) -> dict[str, str]:
    lines = traceback.format_exception(error)
    return {"type": type(error).__name__, "text": str(error), "traceback": "".join(lines)}


def _trace() -> dict[str, str]:
    """The present trace, if the application uses OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": format(found.trace_id, "032x"), "span_id": format(found.span_id, "016x")}
