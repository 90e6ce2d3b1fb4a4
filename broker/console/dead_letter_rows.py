"""Rows about dead letters, and the conditions that select them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import DeadLetter
from . import texts
from .documents import DeadLetterRow, ErrorRow, ResolutionRow
from .output import Column

#: The place of a dead letter: its partition and its offset.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Conditions of dead letters, all of which must hold.

    Attributes:
      ids: The ids of messages; empty for all.
      error: The name of the error's class.
      text: A part of the error's text or traceback.
      actor: The actor.
      since, until: The range of the time at which it was dead-lettered; before ``until``.
    """

    ids: frozenset[str] = frozenset()
    error: str | None = None
    text: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return self == DeadLetterFilter()

    def __call__(self, dead_letter: DeadLetter) -> bool:
        message = dead_letter.message
        return (
            (not self.ids or (message is not None and message.message_id in self.ids))
            and (self.error is None or dead_letter.error_type == self.error)
            and (self.actor is None or (message is not None and message.actor_name == self.actor))
            and (self.text is None or self.text in dead_letter.error or self.text in dead_letter.traceback)
            and (self.since is None or dead_letter.timestamp >= self.since.timestamp() * 1000)
            and (self.until is None or dead_letter.timestamp < self.until.timestamp() * 1000)
        )


def repeated(dead_letters: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Those that are not the first of one failure of a message: a crash between a dead letter and the commit
    of its message leaves two.
    """
    seen: set[tuple[str, str, int]] = set()
    found = []
    for one in dead_letters:
        if one.message is None:
            continue
        failure = (one.queue_name, one.message.message_id, one.generation)
        if failure in seen:
            found.append(one)
        seen.add(failure)
    return found


def place_of(dead_letter: DeadLetter) -> Place | None:
    origin = dead_letter.dlq_origin
    return None if origin is None else (origin.partition, origin.offset)


def record_text(dead_letter: DeadLetter) -> str | None:
    """The place of its record: ``topic-partition@offset``."""
    origin = dead_letter.dlq_origin
    return None if origin is None else f"{origin.topic}-{origin.partition}@{origin.offset}"


def dead_letter_row(dead_letter: DeadLetter) -> DeadLetterRow:
    message = dead_letter.message
    return DeadLetterRow(
        queue=dead_letter.queue_name,
        message_id=message.message_id if message else None,
        actor=message.actor_name if message else None,
        at_ms=dead_letter.timestamp,
        error_type=dead_letter.error_type,
        error=dead_letter.error,
        retries=dead_letter.retry_count,
        redrives=dead_letter.generation,
        record=record_text(dead_letter),
        not_redrivable=dead_letter.why_not_redrivable,
    )


def resolution_row(queue: str, resolution: Any) -> ResolutionRow:
    """The row of a record of ``dead_letter_queue.history()``."""
    return ResolutionRow(
        queue=queue,
        at_ms=resolution.timestamp,
        action=resolution.action.value,
        state=resolution.state.value,
        by=resolution.by,
        reason=resolution.reason,
        operation=resolution.operation,
        count=len(resolution.dead_letters),
        message_ids=list(resolution.dead_letters.values()),
    )


def error_rows(dead_letters: Iterable[DeadLetter]) -> list[ErrorRow]:
    """The groups of dead letters, the largest first."""
    groups: dict[tuple[Any, ...], ErrorRow] = {}
    for dead_letter in dead_letters:
        found = dead_letter_row(dead_letter)
        key = (found["queue"], found["actor"], found["error_type"])
        row = groups.setdefault(
            key,
            ErrorRow(
                queue=found["queue"],
                actor=found["actor"],
                error_type=found["error_type"],
                count=0,
                first_ms=found["at_ms"],
                last_ms=found["at_ms"],
                last_error=found["error"],
                last_message_id=found["message_id"],
            ),
        )
        row["count"] += 1
        row["first_ms"] = min(row["first_ms"], found["at_ms"])
        if found["at_ms"] >= row["last_ms"]:
            row["last_ms"] = found["at_ms"]
            row["last_error"], row["last_message_id"] = found["error"], found["message_id"]
    return sorted(groups.values(), key=lambda row: (-row["count"], row["queue"], row["error_type"]))


class Counted:
    """Selects the dead letters at ``places``, and says how many it has selected."""

    def __init__(
        self, places: set[Place], on_progress: Callable[[int, int], None] = lambda seen, of: None
    ) -> None:
        self._places = places
        self._on_progress = on_progress
        self._seen: set[Place] = set()

    def __call__(self, dead_letter: DeadLetter) -> bool:
        place = place_of(dead_letter)
        if place not in self._places:
            return False
        self._seen.add(place)
        self._on_progress(len(self._seen), len(self._places))
        return True


DEAD_LETTER_COLUMNS: Sequence[Column] = (
    Column("DEAD SINCE", lambda r: texts.moment(r["at_ms"])),
    Column("QUEUE", lambda r: r["queue"]),
    Column("ACTOR", lambda r: r["actor"] or texts.NONE),
    Column("MESSAGE", lambda r: r["message_id"] or texts.NONE, is_id=True),
    Column("RETRIES", lambda r: str(r["retries"]), is_number=True),
    Column("REDRIVES", lambda r: str(r["redrives"]), is_number=True),
    Column("ERROR", lambda r: r["error_type"] or texts.NONE, style=lambda r: "red"),
    Column("TEXT", lambda r: texts.line(r["error"])),
)

ERROR_COLUMNS: Sequence[Column] = (
    Column("COUNT", lambda r: texts.number(r["count"]), is_number=True),
    Column("QUEUE", lambda r: r["queue"]),
    Column("ACTOR", lambda r: r["actor"] or texts.NONE),
    Column("ERROR", lambda r: r["error_type"] or texts.NONE, style=lambda r: "red"),
    Column("FIRST", lambda r: texts.moment(r["first_ms"])),
    Column("LAST", lambda r: texts.moment(r["last_ms"])),
    Column("LAST TEXT", lambda r: texts.line(r["last_error"])),
)

RESOLUTION_COLUMNS: Sequence[Column] = (
    Column("AT", lambda r: texts.moment(r["at_ms"])),
    Column("QUEUE", lambda r: r["queue"]),
    Column("ACTION", lambda r: r["action"]),
    Column("STATE", lambda r: r["state"]),
    Column("COUNT", lambda r: texts.number(r["count"]), is_number=True),
    Column("BY", lambda r: r["by"]),
    Column("REASON", lambda r: texts.line(r["reason"])),
)
