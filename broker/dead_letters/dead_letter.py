"""A dead letter as it is read, and the filters that select dead letters."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any, TypedDict

from dramatiq.errors import DecodeError
from dramatiq.message import Message

from ..deliveries.delivery import Origin
from ..parameters import check_moments, check_texts
from ..produce.record import Record
from .record_format import (
    IMPORTED,
    ORIGIN_OFFSET,
    ORIGIN_PARTITION,
    ORIGIN_TOPIC,
    TRUNCATED,
    as_json,
    key_of_dead_letter,
    original_of,
)

#: The option that counts the redrives of a message: the generation of its attempts.
REDRIVES = "redrives"
#: The error type of a record that is no dead letter.
UNREADABLE = "UnreadableDeadLetter"


@dataclass(frozen=True, slots=True)
class ImportNote:
    """Who imported a dead letter, when and why.

    Attributes:
      operation: The same for all dead letters of one import.
      at_ms: The time, in milliseconds since 1970.
    """

    operation: str
    by: str
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that the broker will not retry.

    Attributes:
      message: The message with its options at the time of the failure; None when its record is not readable.
      queue_name: The queue of the message.
      error, error_type, traceback: The reason; ``error_type`` is the name of the error's class.
      retry_count: The number of retries.
      timestamp: The time at which it was dead-lettered, in milliseconds since 1970.
      origin: The origin of the record that held the message; None when the dead letter does not name it.
      raw: The bytes of the message: as they were read when ``message`` is None, else as Dramatiq encodes it.
      headers: All headers of the dead letter's record.
      dlq_origin: The origin of the dead letter's own record; None in ``on_dead_letter``.
    """

    message: Message[Any] | None
    queue_name: str
    error: str
    error_type: str
    traceback: str
    retry_count: int
    timestamp: int
    origin: Origin | None
    raw: bytes
    headers: Sequence[tuple[str, bytes]] = field(default=(), repr=False)
    dlq_origin: Origin | None = None

    @classmethod
    def copied(
        cls,
        queue_name: str,
        raw: bytes,
        *,
        error: str,
        error_type: str,
        traceback: str,
        retry_count: int,
        timestamp: int,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> DeadLetter:
        """A dead letter from a copy of its fields, as ``dkb dlq export`` writes them."""
        return cls(
            message=_message_of(raw),
            queue_name=queue_name,
            error=error,
            error_type=error_type,
            traceback=traceback,
            retry_count=retry_count,
            timestamp=timestamp,
            origin=_origin_of(headers),
            raw=raw,
            headers=tuple(headers),
        )

    @property
    def import_note(self) -> ImportNote | None:
        """Who imported it; None when a worker wrote it."""
        noted = dict(self.headers).get(IMPORTED)
        try:
            fields = None if noted is None else json.loads(noted)
            return None if fields is None else ImportNote(**fields)
        except (ValueError, TypeError):
            return None  # a later version wrote it

    @property
    def position(self) -> Origin | None:
        """``dlq_origin`` by its name of version 0.1."""
        return self.dlq_origin

    @property
    def generation(self) -> int:
        """The number of times the message had been redriven when it was dead-lettered."""
        redrives = self.message.options.get(REDRIVES, 0) if self.message is not None else 0
        return redrives if isinstance(redrives, int) else 0

    @property
    def why_not_redrivable(self) -> str | None:
        """The reason why the message cannot be redriven; None when it can."""
        if any(name == TRUNCATED for name, _ in self.headers):
            return "its message was truncated, because it was too large"
        if self.message is None:
            return "it has no readable message"
        if self.message.queue_name != self.queue_name:
            return "its message belongs to another queue"
        return None


class Filters(TypedDict, total=False):
    """Filters of dead letters. A dead letter is selected when it matches all given filters.

    Keys:
      error_type: The name of the error's class.
      since, until: The range of ``timestamp``: at or after ``since``, and before ``until``. Aware datetimes.
      message_id: The message's id.
      actor: The name of the message's actor.
      where: Any other condition, called last.
    """

    error_type: str
    since: datetime
    until: datetime
    message_id: str
    actor: str
    where: Callable[[DeadLetter], bool]


class DiscardOptions(Filters, total=False):
    """Filters, and the options of a discard.

    Keys:
      dry_run: Only report the dead letters that would be discarded. The default.
      reason: The reason, which the history keeps. Required unless it is a dry run.
      by: The author; this system's user and host by default.
      on_progress: Called with the number of dead letters that are done after each batch.
    """

    dry_run: bool
    reason: str
    by: str | None
    on_progress: Callable[[int], object] | None


class RedriveOptions(DiscardOptions, total=False):
    """Filters, and the options of a redrive.

    Keys:
      rate_per_s: The maximum number of messages per second.
    """

    rate_per_s: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Validated filters. Raises ValueError for a time without a zone.

    :meth:`of` creates one from a caller's keywords.
    """

    error_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    message_id: str | None = None
    actor: str | None = None
    where: Callable[[DeadLetter], bool] | None = None

    def __post_init__(self) -> None:
        check_texts(error_type=self.error_type, message_id=self.message_id, actor=self.actor)
        check_moments(since=self.since, until=self.until)

    @classmethod
    def of(cls, filters: Filters) -> Selection:
        """Validate filters.

        Raises:
          TypeError: When one is unknown. Ignored, it would select more dead letters than the caller meant.
          ValueError: When a time has no zone.
        """
        known = list(Filters.__annotations__)
        for name in filters:
            if name not in known:
                meant = get_close_matches(name, known, n=1)
                raise TypeError(
                    f"{name!r} is not a filter of dead letters"
                    + (f"; did you mean {meant[0]!r}?" if meant else f"; the filters are {', '.join(known)}")
                )
        return cls(**filters)

    def __contains__(self, dead_letter: DeadLetter) -> bool:
        message = dead_letter.message
        return (
            (self.error_type is None or dead_letter.error_type == self.error_type)
            and (self.since is None or dead_letter.timestamp >= self.since.timestamp() * 1000)
            and (self.until is None or dead_letter.timestamp < self.until.timestamp() * 1000)
            and (self.message_id is None or (message is not None and message.message_id == self.message_id))
            and (self.actor is None or (message is not None and message.actor_name == self.actor))
            and (self.where is None or self.where(dead_letter))
        )


def read_dead_letter(
    queue_name: str,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]],
    dlq_origin: Origin | None = None,
) -> DeadLetter:
    """Decode a record of a dead-letter topic.

    A record that another program wrote becomes a dead letter without a message.
    """
    try:
        entry = json.loads(value or b"")
        original = entry["original_message"]
        raw = base64.b64decode(original, validate=True) if isinstance(original, str) else as_json(original)
        return DeadLetter(
            message=_message_of(raw),
            queue_name=queue_name,
            error=str(entry["error"]),
            error_type=str(entry["error_type"]),
            traceback=str(entry["traceback"]),
            retry_count=int(entry["retry_count"]),
            timestamp=int(entry["timestamp"]),
            origin=_origin_of(headers),
            raw=raw,
            headers=tuple(headers),
            dlq_origin=dlq_origin,
        )
    except (ValueError, TypeError, KeyError, binascii.Error) as e:
        return DeadLetter(
            message=None,
            queue_name=queue_name,
            error=f"this version cannot read the record as a dead letter: {e!r}",
            error_type=UNREADABLE,
            traceback="",
            retry_count=0,
            timestamp=0,
            origin=None,
            raw=value or b"",
            headers=tuple(headers),
            dlq_origin=dlq_origin,
        )


def copy_of(topic: str, dead_letter: DeadLetter, note: bytes) -> Record:
    """The record that holds a copy of a dead letter.

    Parameters:
      note: The value of the header ``imported``.
    """
    message = dead_letter.message
    value = as_json(
        {
            "original_message": original_of(dead_letter.raw, None),
            "error": dead_letter.error,
            "error_type": dead_letter.error_type,
            "traceback": dead_letter.traceback,
            "retry_count": dead_letter.retry_count,
            "timestamp": dead_letter.timestamp,
        }
    )
    return Record(
        topic,
        # The bytes of a record that was no dead letter are the whole record.
        dead_letter.raw if dead_letter.error_type == UNREADABLE else value,
        key=key_of_dead_letter(message.message_id if message else None, None, dead_letter.origin),
        headers=[*(h for h in dead_letter.headers if h[0] != IMPORTED), (IMPORTED, note)],
    )


def _message_of(raw: bytes) -> Message[Any] | None:
    try:
        message: Message[Any] = Message.decode(raw)
    except DecodeError:
        return None
    texts = (message.queue_name, message.actor_name, message.message_id)
    is_valid = all(isinstance(text, str) for text in texts) and all(
        isinstance(mapping, dict) for mapping in (message.kwargs, message.options)
    )
    return message if is_valid else None


def _origin_of(headers: Sequence[tuple[str, bytes]]) -> Origin | None:
    own = dict(headers)
    try:
        return Origin(own[ORIGIN_TOPIC].decode(), int(own[ORIGIN_PARTITION]), int(own[ORIGIN_OFFSET]))
    except (KeyError, ValueError):
        return None
