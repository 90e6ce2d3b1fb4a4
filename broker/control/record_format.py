"""The records of the control topic.

A record's key names what the command controls: ``pause:{queue}``, ``worker:{worker id}`` or
``abort:{message id}``. The last record of a key is in force, and the topic is compacted. The value is one
JSON object in UTF-8; a tombstone ends the command of its key.

    v           the version of the format, 1. A reader ignores fields that it does not know
    id          the id of the command, 16 hex digits
    kind        pause, resume, quiet, stop or abort. A worker ignores a record of any other kind, as of
                ``replay`` (see ``replay/record_format``)
    target      the queue, the worker id or the message id
    by          who gave the command, as that client claims
    at_ms       when, in milliseconds since 1970 by that client's clock
    reason      why
    expires_at_ms  the time after which nobody obeys the command; absent for one that stands
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..process import clock

VERSION = 1
#: Longer texts are cut: a command must fit a record, a log line and a report.
MAX_REASON_CHARS = 2_000
MAX_BY_CHARS = 200


class UnreadableCommand(ValueError):
    """A record of the control topic that is damaged, or of a later version of its format."""


class UnknownKind(UnreadableCommand):
    """A record of a kind that is no command to a worker, such as the record of a replay.

    A version may add kinds without a new version of the format: workers ignore those that they do not know.
    """


class CommandKind(Enum):
    """The kinds of commands."""

    PAUSE = "pause"
    RESUME = "resume"
    QUIET = "quiet"
    STOP = "stop"
    ABORT = "abort"

    @property
    def scope(self) -> str:
        """What a command of this kind controls: the beginning of its key."""
        if self is CommandKind.ABORT:
            return "abort"
        return "pause" if self in (CommandKind.PAUSE, CommandKind.RESUME) else "worker"


class AbortOutcome(Enum):
    """The answer to an abort.

    ABORTED: a worker has said that the message did not run, or that its run was ended.
    RECORDED: the abort stands, and no worker has said so yet: the message is on a queue without a worker, it
      is delayed, its task has not ended, it is complete already, or there is no such message.
    """

    ABORTED = "aborted"
    RECORDED = "recorded"


_KINDS = frozenset(kind.value for kind in CommandKind)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of an operator.

    Attributes:
      id: 16 hex digits. The report of a worker that has applied the command names it.
      target: The queue of a pause or resume; the worker id of a quiet or stop; the message id of an abort.
      by: Who gave it, as the client claims.
      at_ms: When, in milliseconds since 1970, by the client's clock.
      expires_at_ms: The time after which no worker obeys it; None for a command that stands.
    """

    id: str
    kind: CommandKind
    target: str
    by: str
    at_ms: int
    reason: str
    expires_at_ms: int | None = None

    @property
    def key(self) -> str:
        """What it controls: the key of its record."""
        return f"{self.kind.scope}:{self.target}"

    @property
    def is_expired(self) -> bool:
        """Whether no worker obeys it any more, by this process's clock."""
        return self.expires_at_ms is not None and clock.wall_ms() >= self.expires_at_ms

    def encode(self) -> bytes:
        """The value of its record."""
        fields: dict[str, Any] = {
            "v": VERSION,
            "id": self.id,
            "kind": self.kind.value,
            "target": self.target,
            "by": self.by[:MAX_BY_CHARS],
            "at_ms": self.at_ms,
            "reason": self.reason[:MAX_REASON_CHARS],
        }
        if self.expires_at_ms is not None:
            fields["expires_at_ms"] = self.expires_at_ms
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def read_key(key: bytes | None) -> str:
    """Decode the key of a record.

    Raises:
      UnreadableCommand: When it is no key of a command.
    """
    try:
        return (key or b"").decode()
    except UnicodeDecodeError as e:
        raise UnreadableCommand(f"the key {key!r} is no UTF-8") from e


def read(key: bytes | None, value: bytes) -> Command:
    """Decode a record that is no tombstone.

    Raises:
      UnknownKind: When it is no command to a worker.
      UnreadableCommand: When it is damaged, of a later version, or its key is not that of its command.
    """
    try:
        fields = json.loads(value)
        if fields["v"] != VERSION:
            raise UnreadableCommand(f"version {fields['v']!r} of the format; this worker knows {VERSION}")
        if isinstance(fields["kind"], str) and fields["kind"] not in _KINDS:
            raise UnknownKind(f"the kind {fields['kind']!r}")
        expires_at_ms = fields.get("expires_at_ms")
        command = Command(
            id=str(fields["id"]),
            kind=CommandKind(fields["kind"]),
            target=str(fields["target"]),
            by=str(fields["by"]),
            at_ms=int(fields["at_ms"]),
            reason=str(fields["reason"]),
            expires_at_ms=None if expires_at_ms is None else int(expires_at_ms),
        )
    except UnreadableCommand:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UnreadableCommand(f"{e!r} in {value[:100]!r}") from e
    if (name := read_key(key)) != command.key:
        raise UnreadableCommand(f"the key {name!r} is not that of its command, {command.key!r}")
    return command
