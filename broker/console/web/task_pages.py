"""The pages about messages: the search, and the life of one. They read the store alone."""

from __future__ import annotations

import json
from typing import Any

from ... import DeadLetter, HistoryEvent
from ...process import clock
from ...process.strict_json import dumps
from .. import task_search, texts
from ..documents import TaskRow
from ..task_life import STATUSES, Traces, event_rows
from ..texts import BadText, parse_duration
from .collector import MAX_MESSAGE_CHARS
from .looks import Look, NotFound, Unusable, View, number_of
from .masking import masked
from .records import SCAN_LIMIT, content_of, place_of, record_of
from .related import related
from .store import Row
from .tracebacks import own_frames

DEFAULT_SINCE = "1h"
LIMIT = 100
PAST = task_search.PAST
#: The condition that an index answers; a search within ids would read every row.
BEGINS_WITH_ID = "{0} >= :id AND {0} < :id || char(1114111)"
#: The states of a message that runs, or runs later by itself.
ABORTABLE = frozenset({"running", "started", "delayed", "retried", "interrupted", "waiting", "taken"})


def _event_of(row: Row) -> HistoryEvent:
    return HistoryEvent(
        row["kind"],
        row["message_id"],
        row["actor"],
        row["queue"],
        row["attempt"],
        row["at_ms"],
        row["worker"],
        row["run_s"],
        row["queue_s"],
        row["error_type"],
        row["error"],
        row["retry_at_ms"],
    )


def tasks(look: Look) -> View:
    """Search for messages, the latest first."""
    wanted = {name: look.get(name) for name in ("id", "actor", "queue", "status", "error", "text")}
    since = look.get("since") or DEFAULT_SINCE
    try:
        since_ms = clock.wall_ms() - int(parse_duration(since).total_seconds() * 1000)
    except BadText as e:
        raise Unusable(str(e)) from e
    if wanted["status"] is not None and wanted["status"] not in task_search.STATUSES:
        raise Unusable(f"{wanted['status']!r} is no status: they are {', '.join(task_search.STATUSES)}.")
    missing = list(look.console.store.get("history", {}).get("missing", []))
    if wanted["text"] is not None:
        if not look.user.may_see_arguments:
            raise Unusable("A search for the text of an argument needs the right to see arguments.")
        look.console.audit.note(look.user.name, "search arguments", wanted["text"])
        rows = _with_text(look, wanted["text"])
        missing.append(
            "the text of an argument is searched in dead letters alone, up to "
            f"{MAX_MESSAGE_CHARS:,} characters of each; dkb tasks --arg searches the logs of queues"
        )
    else:
        rows = _rows(look, wanted, since_ms)
    shown = [row for row in task_search.latest(rows) if _matches(row, wanted)][::-1]
    document = {
        "tasks": shown[:LIMIT],
        "is_cut": len(shown) >= LIMIT,
        "filter": {**wanted, "since": since},
        "statuses": task_search.STATUSES,
        "queues": [row["queue"] for row in look.console.store.get("queues", [])],
        "actors": [row["actor"] for row in look.console.store.get("actors", [])],
        "missing": missing,
        "is_live": not look.is_set("frozen"),
    }
    return View("tasks.html", "tasks", "Tasks", document)


def _matches(row: TaskRow, wanted: dict[str, str | None]) -> bool:
    return (
        (wanted["id"] is None or (row["message_id"] or "").startswith(wanted["id"]))
        and (wanted["actor"] is None or row["actor"] == wanted["actor"])
        and (wanted["queue"] is None or row["queue"] == wanted["queue"])
        and (wanted["status"] is None or row["status"] == wanted["status"])
        and (wanted["error"] is None or row["error_type"] == wanted["error"])
    )


def _rows(look: Look, wanted: dict[str, str | None], since_ms: int) -> list[TaskRow]:
    store, status = look.console.store, wanted["status"]
    rows: list[TaskRow] = []
    if status is None or status in PAST:
        rows += [task_search.of_event(_event_of(row)) for row in _past(look, wanted, since_ms)]
    if status in (None, "running"):
        rows += [task_search.of_running(one) for one in store.get("running", [])]
    if status in (None, "dead"):
        rows += [_of_dead(row) for row in _dead(look, wanted, since_ms)]
    if status in (None, "delayed"):
        for one in store.get("delayed", {}).values():
            rows += one["messages"]
    return rows


def _past(look: Look, wanted: dict[str, str | None], since_ms: int) -> list[Row]:
    """The last events of messages."""
    conditions = [
        "e.at_ms >= :since",
        # An index of the queue would read all of its later events.
        "NOT EXISTS (SELECT 1 FROM event l INDEXED BY event_of_message"
        " WHERE l.message_id = e.message_id AND l.queue = e.queue AND l.at_ms > e.at_ms)",
    ]
    for name, column in (("actor", "actor"), ("queue", "queue"), ("status", "kind"), ("error", "error_type")):
        if wanted[name] is not None:
            conditions.append(f"e.{column} = :{name}")
    source = "event e"
    if wanted["id"] is not None:
        source += " INDEXED BY event_of_message"
        conditions.append(BEGINS_WITH_ID.format("e.message_id"))
    statement = f"SELECT * FROM {source} WHERE {' AND '.join(conditions)} ORDER BY e.at_ms DESC LIMIT {LIMIT}"
    return look.console.store.query(statement, {**wanted, "since": since_ms})


def _dead(look: Look, wanted: dict[str, str | None], since_ms: int) -> list[Row]:
    conditions = ["at_ms >= :since"]
    for name, column in (("actor", "actor"), ("queue", "queue"), ("error", "error_type")):
        if wanted[name] is not None:
            conditions.append(f"{column} = :{name}")
    source = "dead_letter"
    if wanted["id"] is not None:
        source += " INDEXED BY dead_letter_of_message"
        conditions.append(BEGINS_WITH_ID.format("message_id"))
    statement = f"SELECT * FROM {source} WHERE {' AND '.join(conditions)} ORDER BY at_ms DESC LIMIT {LIMIT}"
    return look.console.store.query(statement, {**wanted, "since": since_ms})


def _with_text(look: Look, text: str) -> list[TaskRow]:
    found = look.console.store.query(
        f"SELECT * FROM dead_letter WHERE instr(message, ?) ORDER BY at_ms DESC LIMIT {LIMIT}", (text,)
    )
    return [
        _of_dead(row) for row in found if text in dumps(masked(json.loads(row["message"]), is_shown=True))
    ]


def _of_dead(row: Row) -> TaskRow:
    return task_search.task_row(
        message_id=row["message_id"] or "",
        actor=row["actor"] or "",
        queue=row["queue"],
        status="dead",
        attempt=row["retries"] + 1,
        at_ms=row["at_ms"],
        error_type=row["error_type"],
        error=row["error"],
    )


def task(look: Look) -> View:
    """The life of one message."""
    message_id = look.get("id")
    if message_id is None:
        raise NotFound("Name a message.")
    store = look.console.store
    traces = Traces(message_id)
    traces.running = [row for row in store.get("running", []) if row["message_id"] == message_id]
    traces.history = [
        _event_of(row)
        for row in store.query("SELECT * FROM event WHERE message_id = ? ORDER BY at_ms", (message_id,))
    ]
    dead = store.query("SELECT * FROM whole_dead_letter WHERE message_id = ? ORDER BY at_ms", (message_id,))
    traces.dead_letters = [_dead_letter_of(row) for row in dead]
    delayed = [
        row
        for one in store.get("delayed", {}).values()
        for row in one["messages"]
        if row["message_id"] == message_id
    ]
    now_ms = clock.wall_ms()
    traces.ends = {
        worker["worker"]: (now_ms - int(worker["silent_s"] * 1000), worker["reason"])
        for worker in store.get("workers", [])
        if worker["state"] == "gone"
    }
    if traces.is_empty and not delayed:
        raise NotFound(
            f"Nothing is known of the message {message_id!r}. The history keeps a day and a sample of the "
            "successes, and a message that waits has no run yet."
        )
    status = "delayed" if delayed and not traces.running else traces.status()
    told: list[Any] = [*traces.running, *delayed, *dead]
    last = traces.history[-1] if traces.history else None
    is_shown = _shows_arguments(look, message_id)
    record = record_of(look, message_id) if is_shown and not dead and not delayed else None
    document = {
        "message_id": message_id,
        "status": status,
        "is_abortable": status in ABORTABLE,
        "status_text": STATUSES.get(status, "see its events"),
        "actor": last.actor_name if last else told[0]["actor"],
        "queue": last.queue_name if last else told[0]["queue"],
        "events": event_rows(traces)[::-1],
        "running": traces.running,
        "delayed": delayed,
        "related": related(message_id, dead, look.console.audit.rows()),
        "dead_letters": [detail(row, is_shown=is_shown) for row in dead],
        "record": None if record is None else {"place": place_of(record), "state": str(record.state)},
        "message": None if record is None else masked(content_of(record), is_shown=True),
        "scan_limit": SCAN_LIMIT,
        "missing": store.get("history", {}).get("missing", []),
        "may_see_arguments": look.user.may_see_arguments,
        "is_shown": is_shown,
    }
    return View("task.html", "tasks", f"Task {message_id}", document)


def _shows_arguments(look: Look, subject: str) -> bool:
    """Whether this look shows arguments. It is in the audit then."""
    if not look.is_set("arguments") or not look.user.may_see_arguments:
        return False
    look.console.audit.note(look.user.name, "see arguments", subject)
    return True


def detail(row: Row, *, is_shown: bool) -> dict[str, Any]:
    """A dead letter with all that the page shows of it."""
    message = None if row["message"] is None else json.loads(row["message"])
    return {
        "queue": row["queue"],
        "partition": row["part"],
        "offset": row["place"],
        "message_id": row["message_id"],
        "actor": row["actor"],
        "at_ms": row["at_ms"],
        "error_type": row["error_type"],
        "error": row["error"],
        "traceback": row["traceback"],
        "own_frames": own_frames(row["traceback"]),
        "retries": row["retries"],
        "redrives": row["redrives"],
        "record": row["record"],
        "not_redrivable": row["not_redrivable"],
        "message": masked(message, is_shown=is_shown),
    }


def _dead_letter_of(row: Row) -> DeadLetter:
    """The dead letter, as the life of a message takes it: without the bytes of its record."""
    return DeadLetter(
        message=None,
        queue_name=row["queue"],
        error=row["error"],
        error_type=row["error_type"],
        traceback=row["traceback"],
        retry_count=row["retries"],
        timestamp=row["at_ms"],
        origin=None,
        raw=b"",
    )


def dead_letter(look: Look) -> View:
    """One dead letter, by its place."""
    place = (look.path["queue"], number_of(look.path["partition"]), number_of(look.path["offset"]))
    found = look.console.store.query(
        "SELECT * FROM whole_dead_letter WHERE queue = ? AND part = ? AND place = ?", place
    )
    if not found:
        raise NotFound("There is no such dead letter: it was redriven or discarded, or Kafka has deleted it.")
    (row,) = found
    is_shown = _shows_arguments(look, row["record"] or f"{place}")
    document = {
        "dead_letter": detail(row, is_shown=is_shown),
        "may_see_arguments": look.user.may_see_arguments,
        "is_shown": is_shown,
    }
    name = row["message_id"] or texts.NONE
    return View("dead_letter.html", "dead-letters", f"Dead letter {name}", document)
