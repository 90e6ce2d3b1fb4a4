"""One event of the history: the end of a run, or a run that still lasts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class EventKind(StrEnum):
    """The kind of an event. A later version of the broker may write others.

    STARTED: the run lasts longer than the interval between two writes of the history.
    SUCCEEDED: the actor returned.
    RETRIED: the run failed, and the message is tried again at ``retry_at``.
    DEAD_LETTERED: the message became a dead letter, with or without a run.
    FAILED: the run failed, and the message is neither tried again nor a dead letter.
    SKIPPED: a middleware skipped the message.
    ABORTED: an operator has aborted the message. It did not run, or its run was ended.
    EXPIRED: the time of the message was over before it ran.
    DUPLICATE: a unique message did not run, as an earlier one of its key had not released the key.
    INTERRUPTED: the run was ended from outside, as by a shutdown. No attempt is counted, and the message runs
      again.
    """

    STARTED = "started"
    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    DEAD_LETTERED = "dead_lettered"
    FAILED = "failed"
    SKIPPED = "skipped"
    ABORTED = "aborted"
    EXPIRED = "expired"
    DUPLICATE = "duplicate"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """An event of one message. It never contains the message's arguments.

    Attributes:
      kind: The kind of the event, one of ``EventKind`` or a text of a later version.
      message_id, actor_name, queue_name: The message. The name of the actor is empty when its record is no
        message.
      attempt: The number of the attempt, from 1.
      at_ms: The time of the event by the worker's clock, in milliseconds since 1970.
      worker_id: The worker.
      run_s: The duration of the run in seconds; None without a run, or while it lasts.
      queue_s: The time from the record's append to its topic until the run began; None when unknown.
      error_type: The name of the error's class; None without an error.
      error: The first line of the error's text, of at most 200 characters.
      retry_at_ms: The time of the next attempt; None when there is none.
    """

    kind: str
    message_id: str
    actor_name: str
    queue_name: str
    attempt: int
    at_ms: int
    worker_id: str
    run_s: float | None = None
    queue_s: float | None = None
    error_type: str | None = None
    error: str | None = None
    retry_at_ms: int | None = None

    @property
    def at(self) -> datetime:
        """``at_ms`` as a time in UTC."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)
