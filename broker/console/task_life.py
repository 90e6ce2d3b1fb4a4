"""The life of one message, put together from the places that tell of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dramatiq.errors import DecodeError
from dramatiq.message import Message

from .. import (
    Cancellation,
    DeadLetter,
    DelayedMessage,
    EventKind,
    FoundRecord,
    HistoryEvent,
    Outcome,
    RecordState,
)
from . import texts
from .dead_letter_rows import record_text
from .documents import EventRow, ResolutionRow, RunningRow
from .output import Column
from .task_search import UNDECODABLE


@dataclass(slots=True)
class Traces:
    """What was found of a message.

    Attributes:
      ends: The workers that are gone, each with the time in ms and the reason.
      left: The queues and partitions of workers that are gone, and that no living worker has.
      missing: Sentences that say why something may be missing.
      is_denied: Whether a missing right is among these reasons.
    """

    message_id: str
    running: list[RunningRow] = field(default_factory=list)
    history: list[HistoryEvent] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    resolutions: list[ResolutionRow] = field(default_factory=list)
    delayed: list[DelayedMessage] = field(default_factory=list)
    cancellations: list[Cancellation] = field(default_factory=list)
    records: list[FoundRecord] = field(default_factory=list)
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)
    left: set[tuple[str, int]] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    is_denied: bool = False

    @property
    def is_empty(self) -> bool:
        return not (
            self.running
            or self.history
            or self.dead_letters
            or self.resolutions
            or self.delayed
            or self.cancellations
            or self.records
        )

    def message(self) -> Message[Any] | None:
        """The message as the latest of its records has it; None when only its history is left."""
        for record in reversed(self.records):
            return record.message
        for delayed in self.delayed:
            if (message := decoded(delayed)) is not None:
                return message
        for dead_letter in reversed(self.dead_letters):
            if dead_letter.message is not None:
                return dead_letter.message
        return None

    def status(self) -> str:
        """Where the message is now."""
        if not all(map(self._has_ended, self.running)):
            return "running"
        if self.delayed:
            return "delayed"
        states = {record.state for record in self.records}
        if RecordState.WAITING in states:
            return "waiting"
        if RecordState.INCOMPLETE in states:
            return "interrupted" if self._has_lost_its_worker() else "taken"
        if self.dead_letters:
            return "dead"
        last = self.history[-1] if self.history else None
        if self._is_cancelled():
            return "cancelled"
        if last is not None and last.kind == EventKind.DEAD_LETTERED:
            return "resolved" if self.resolutions else "dead"
        if last is not None:
            return str(last.kind)
        if any(one.outcome is None for one in self.cancellations):
            return "cancelling"
        return "completed" if states else "unknown"

    def _is_cancelled(self) -> bool:
        """Whether nothing has happened to the message since it was cancelled."""
        last_ms = max((event.at_ms for event in self.history), default=0)
        return any(
            one.outcome is Outcome.CANCELLED and (_moment_ms(one.decided_at) or 0) >= last_ms
            for one in self.cancellations
        )

    def _has_ended(self, run: RunningRow) -> bool:
        """Whether the history has the end of a run that is in the worker's last report."""
        return any(
            event.worker_id == run["worker"]
            and event.kind != EventKind.STARTED
            and event.at_ms >= run["since_ms"]
            for event in self.history
        )

    def _has_lost_its_worker(self) -> bool:
        """Whether the worker is gone that had taken the message, and no other one has begun it."""
        last = self.history[-1] if self.history else None
        if last is not None and last.kind == EventKind.STARTED and last.worker_id in self.ends:
            return True
        taken = [record for record in self.records if record.state is RecordState.INCOMPLETE]
        return any((record.queue_name, record.partition) in self.left for record in taken)


def decoded(delayed: DelayedMessage) -> Message[Any] | None:
    """A delayed message; None when it cannot be decoded, as one of another encoder."""
    try:
        return delayed.decode()
    except DecodeError:
        return None


STATUSES = {
    "running": "a worker runs it",
    "delayed": "it waits for its time, or for its retry",
    "waiting": "it waits in its queue, and no worker has it yet",
    "taken": "a worker has it: it is about to run, or what follows from it is being sent",
    "dead": "it is a dead letter, and no worker runs it again by itself",
    "succeeded": "it ran without an error",
    "retried": "its last run failed, and it is tried again",
    "failed": "it failed, and is neither tried again nor a dead letter",
    "skipped": "a middleware skipped it",
    "interrupted": "its run was ended from outside, as by the death of its worker, and the next worker runs "
    "it again",
    "aborted": "an operator has aborted it: it did not run, or its run was ended",
    "cancelled": "it was delayed, and its delay was cancelled: it does not run",
    "cancelling": "its delay is to be cancelled, and no worker has decided it yet",
    "expired": "its time was over before it ran",
    "duplicate": "it is unique, and an earlier one of its key had not released the key: it did not run",
    "resolved": "it was a dead letter, which was redriven or discarded",
    "completed": "its record is complete, and the history does not have its run",
    "started": "its run had begun, and no end of it is known",
}


def _event(at_ms: int | None, event: str, **fields: Any) -> EventRow:
    empty = dict.fromkeys(EventRow.__annotations__)
    return EventRow(**{**empty, **fields, "at_ms": at_ms, "event": event})  # type: ignore[typeddict-item]


def event_rows(traces: Traces) -> list[EventRow]:
    """The steps, by their time. The first is the send: the other times are rounded, and of other clocks."""
    rows = list(_events(traces))
    return sorted(rows, key=lambda row: (row["event"] != "enqueued", row["at_ms"] or 0))


def _events(traces: Traces) -> Iterable[EventRow]:
    message = traces.message()
    if message is not None:
        first = message.options.get("first_sent_timestamp", message.message_timestamp)
        yield _event(_ms(first), "enqueued")
    for record in traces.records:
        place = f"{record.topic}-{record.partition}@{record.offset}"
        yield _event(record.written_ms, f"record ({record.state})", record=place)
    known = {(one.kind, one.attempt) for one in traces.history}
    yield from _runs(traces, known)
    for delayed in traces.delayed:
        due_ms = int(delayed.due.timestamp() * 1000)
        yield _event(due_ms, "due", due_ms=due_ms, error=None if decoded(delayed) else UNDECODABLE)
    for cancellation in traces.cancellations:
        yield _cancel_event(cancellation)
    for dead_letter in traces.dead_letters:
        if (EventKind.DEAD_LETTERED, dead_letter.retry_count + 1) in known:
            continue
        yield _event(
            dead_letter.timestamp,
            "dead letter",
            attempt=dead_letter.retry_count + 1,
            error_type=dead_letter.error_type,
            error=dead_letter.error,
            record=record_text(dead_letter),
        )
    for done in traces.resolutions:
        yield _event(done["at_ms"], f"{done['action']} {done['state']}", by=done["by"], reason=done["reason"])


def _cancel_event(one: Cancellation) -> EventRow:
    told = {Outcome.CANCELLED: "cancelled", None: "cancel requested"}
    at = one.decided_at or one.requested_at
    name = told.get(one.outcome, "cancel came too late")
    return _event(_moment_ms(at), name, by=one.by or None, reason=one.reason or None)


def _runs(traces: Traces, known: Collection[tuple[str, int]]) -> Iterable[EventRow]:
    """The runs by the history, those that the reports have beside it, and the ends of their workers.

    Parameters:
      known: The kinds and attempts of the history.
    """
    for one in traces.history:
        yield from _before_end(traces, one, known)
        yield _event(
            one.at_ms,
            str(one.kind),
            attempt=one.attempt,
            worker=one.worker_id,
            run_s=one.run_s,
            queue_s=one.queue_s,
            error_type=one.error_type,
            error=one.error,
            due_ms=one.retry_at_ms,
        )
    for running in traces.running:
        if (EventKind.STARTED, running["attempt"]) not in known:
            yield _event(running["since_ms"], "started", attempt=running["attempt"], worker=running["worker"])
    ended = {(one.worker_id, one.attempt) for one in traces.history if one.kind != EventKind.STARTED}
    for one in traces.history:
        is_last = (one.worker_id, one.attempt) not in ended
        if one.kind == EventKind.STARTED and is_last and one.worker_id in traces.ends:
            at_ms, reason = traces.ends[one.worker_id]
            yield _event(at_ms, "worker gone", attempt=one.attempt, worker=one.worker_id, error=reason)


def _before_end(traces: Traces, end: HistoryEvent, known: Collection[tuple[str, int]]) -> Iterable[EventRow]:
    """When an attempt that has ended came to its queue, and began: the history has the durations alone."""
    if end.kind == EventKind.STARTED:
        return
    began_ms = end.at_ms - round((end.run_s or 0.0) * 1000)
    # A record that is still in the log has that time itself.
    if end.queue_s is not None and not traces.records:
        yield _event(began_ms - round(end.queue_s * 1000), "queued", attempt=end.attempt)
    if end.run_s is not None and (EventKind.STARTED, end.attempt) not in known:
        yield _event(began_ms, "started", attempt=end.attempt, worker=end.worker_id)


def _moment_ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _ms(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _detail(row: EventRow) -> str:
    parts = []
    if row["worker"]:
        parts.append(f"on {row['worker']}")
    if row["run_s"] is not None:
        parts.append(f"ran {texts.short(row['run_s'])}")
    if row["queue_s"] is not None:
        parts.append(f"after {texts.short(row['queue_s'])} in the queue")
    if row["error_type"]:
        parts.append(f"{row['error_type']}: {texts.line(row['error'])}")
    elif row["error"]:
        parts.append(texts.line(row["error"]))
    if row["due_ms"] is not None:
        parts.append(f"due {texts.moment(row['due_ms'])}")
    if row["by"]:
        parts.append(f"by {row['by']}" + (f": {row['reason']}" if row["reason"] else ""))
    if row["record"]:
        parts.append(row["record"])
    return ", ".join(parts) or texts.NONE


EVENT_COLUMNS: Sequence[Column] = (
    Column("AT", lambda r: texts.moment(r["at_ms"])),
    Column("EVENT", lambda r: r["event"]),
    Column("ATTEMPT", lambda r: texts.number(r["attempt"]), is_number=True),
    Column("DETAIL", _detail),
)
