"""Rows of messages that a search has found, and the condition on their arguments. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dramatiq.message import Message

from .. import DeadLetter, DelayedMessage, FoundRecord, HistoryEvent, RecordState
from . import texts
from .documents import RunningRow, TaskRow
from .output import Column

#: The statuses that a search knows, and those of them that the history has.
PAST = (
    "succeeded",
    "retried",
    "failed",
    "skipped",
    "interrupted",
    "aborted",
    "expired",
    "duplicate",
    "started",
    "dead_lettered",
)
PRESENT = ("running", "waiting", "taken", "delayed", "dead")
STATUSES = (*PRESENT, *PAST)
UNDECODABLE = "this message cannot be decoded"


def argument_condition(text: str) -> Callable[[Message[Any]], bool]:
    """The condition of ``--arg``: ``value`` is any argument, ``name=value`` a keyword argument.

    A value is compared as JSON, and as text: ``--arg 42`` finds 42 and "42".
    """
    name, equals, value = text.partition("=")
    if equals and name.isidentifier():
        return lambda message: name in message.kwargs and _is(message.kwargs[name], value)
    return lambda message: any(_is(one, text) for one in (*message.args, *message.kwargs.values()))


def _is(argument: Any, text: str) -> bool:
    if isinstance(argument, str) and argument == text:
        return True
    try:
        return bool(argument == json.loads(text))
    except ValueError:
        return False


def task_row(**fields: Any) -> TaskRow:
    empty = dict.fromkeys(TaskRow.__annotations__)
    return TaskRow(**{**empty, **fields})  # type: ignore[typeddict-item]


def of_event(event: HistoryEvent) -> TaskRow:
    return task_row(
        message_id=event.message_id,
        actor=event.actor_name,
        queue=event.queue_name,
        status=str(event.kind),
        attempt=event.attempt,
        at_ms=event.at_ms,
        worker=event.worker_id,
        run_s=event.run_s,
        error_type=event.error_type,
        error=event.error,
        due_ms=event.retry_at_ms,
    )


def of_running(row: RunningRow) -> TaskRow:
    return task_row(
        message_id=row["message_id"],
        actor=row["actor"],
        queue=row["queue"],
        status="running",
        attempt=row["attempt"],
        at_ms=row["since_ms"],
        worker=row["worker"],
        run_s=row["for_s"],
    )


def of_dead_letter(dead_letter: DeadLetter) -> TaskRow:
    message = dead_letter.message
    return task_row(
        message_id=message.message_id if message else "",
        actor=message.actor_name if message else "",
        queue=dead_letter.queue_name,
        status="dead",
        attempt=dead_letter.retry_count + 1,
        at_ms=dead_letter.timestamp,
        error_type=dead_letter.error_type,
        error=dead_letter.error,
    )


def of_record(record: FoundRecord) -> TaskRow:
    return task_row(
        message_id=record.message.message_id,
        actor=record.message.actor_name,
        queue=record.queue_name,
        status="waiting" if record.state is RecordState.WAITING else "taken",
        at_ms=record.written_ms,
    )


def of_delayed(delayed: DelayedMessage, message: Message[Any] | None) -> TaskRow:
    """The row of a delayed message.

    Parameters:
      message: None when it cannot be decoded, so that nobody knows its actor.
    """
    due_ms = int(delayed.due.timestamp() * 1000)
    return task_row(
        message_id=delayed.message_id,
        actor=message.actor_name if message else "",
        queue=delayed.queue_name,
        status="delayed",
        error=None if message else UNDECODABLE,
        at_ms=due_ms,
        due_ms=due_ms,
    )


def latest(rows: Iterable[TaskRow]) -> list[TaskRow]:
    """The last row of each message, by time. A present state follows all past ones."""
    found: dict[tuple[str, str], TaskRow] = {}
    for row in sorted(rows, key=lambda row: (row["status"] in PRESENT, row["at_ms"])):
        found[row["queue"], row["message_id"]] = row
    return sorted(found.values(), key=lambda row: row["at_ms"])


TASK_COLUMNS: Sequence[Column] = (
    Column("AT", lambda r: texts.moment(r["at_ms"])),
    Column("STATUS", lambda r: r["status"], style=lambda r: "red" if r["status"] == "dead" else ""),
    Column("ACTOR", lambda r: r["actor"] or texts.NONE),
    Column("QUEUE", lambda r: r["queue"]),
    Column("MESSAGE", lambda r: r["message_id"] or texts.NONE, is_id=True),
    Column("ATTEMPT", lambda r: texts.number(r["attempt"]), is_number=True),
    Column("RUN", lambda r: texts.short(r["run_s"]), is_number=True),
    Column(
        "ERROR",
        lambda r: (
            f"{r['error_type']}: {texts.line(r['error'])}" if r["error_type"] else texts.line(r["error"])
        ),
    ),
)
