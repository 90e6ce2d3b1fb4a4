"""The records of replays: who ran what again, when and why, and the marks of the messages that were sent.

The control topic has one record per replay, with the key ``replay:{queue}:{id}``. No worker acts on it. The
value is one JSON object in UTF-8:

    v, id, by, at_ms, reason, expires_at_ms  as in a command; see ``control/record_format``
    kind          replay
    target        the queue
    state         begun: its messages may have been sent; done; continued: it was interrupted, and another
                  replay has sent the rest
    ids           same or new
    actor         the actor, or null for all
    since_ms, until_ms  the range, in milliseconds since 1970; null for an open end
    limit         the maximum number of messages, or null
    selected      the number of messages that it selected
    sent          the number of messages that it sent; 0 while it is begun
    ends          the ends of the queue's partitions before it sent messages, by partition
    ended_ms      when it was done or continued, or null
    continued_by  the id of the other replay, or null

Each message that a replay sends has two headers, which its retries and its dead letter keep:

    replay-id     the id of the replay
    replay-of     the id of the message that runs again, also when this one has a new id
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..control.record_format import MAX_BY_CHARS, MAX_REASON_CHARS, VERSION
from ..kafka.types import Headers
from ..process import clock

KIND = "replay"
REPLAY_ID = "replay-id"
REPLAY_OF = "replay-of"
_HEADERS = frozenset({REPLAY_ID, REPLAY_OF})


class UnreadableReplay(ValueError):
    """The record of a replay is damaged or of a later version."""


class ReplayState(Enum):
    """Whether a replay has sent its messages."""

    BEGUN = "begun"
    DONE = "done"
    CONTINUED = "continued"


@dataclass(frozen=True, slots=True)
class Replay:
    """The record of a replay.

    Attributes:
      id: 16 hex digits.
      queue_name: The queue.
      by: Who began it, as the client claims.
      at_ms: When, in milliseconds since 1970, by the client's clock.
      reason: Why.
      state: BEGUN while it runs, and after it was interrupted.
      ids: ``"same"`` or ``"new"``.
      actor: The actor; None for all.
      since_ms, until_ms: The range, in milliseconds since 1970; None for an open end.
      limit: The maximum number of messages; None for no limit.
      selected: The number of selected messages.
      sent: The number of sent messages; 0 while it is begun.
      ends: The ends of the queue's partitions before it sent messages, by partition.
      expires_at_ms: When the record may be removed.
      ended_ms: When it was done or continued.
      continued_by: The id of the replay that sent the rest.
    """

    id: str
    queue_name: str
    by: str
    at_ms: int
    reason: str
    state: ReplayState
    ids: str
    actor: str | None
    since_ms: int | None
    until_ms: int | None
    limit: int | None
    selected: int
    sent: int
    ends: Mapping[int, int] = field(repr=False)
    expires_at_ms: int
    ended_ms: int | None = None
    continued_by: str | None = None

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"{KIND}:{self.queue_name}:{self.id}"

    @property
    def is_expired(self) -> bool:
        """Whether its record may be removed, by this process's clock."""
        return clock.wall_ms() >= self.expires_at_ms

    def covers(self, other: Replay) -> bool:
        """Whether it selects every message that ``other`` selects."""
        return (
            self.queue_name == other.queue_name
            and self.actor in (None, other.actor)
            and (self.since_ms or 0) <= (other.since_ms or 0)
            and (self.until_ms is None or (other.until_ms is not None and self.until_ms >= other.until_ms))
            and (self.limit is None or (other.limit is not None and self.limit >= other.limit))
        )

    def encode(self) -> bytes:
        """The value of its record."""
        fields: dict[str, Any] = {
            "v": VERSION,
            "id": self.id,
            "kind": KIND,
            "target": self.queue_name,
            "by": self.by[:MAX_BY_CHARS],
            "at_ms": self.at_ms,
            "reason": self.reason[:MAX_REASON_CHARS],
            "expires_at_ms": self.expires_at_ms,
            "state": self.state.value,
            "ids": self.ids,
            "actor": self.actor,
            "since_ms": self.since_ms,
            "until_ms": self.until_ms,
            "limit": self.limit,
            "selected": self.selected,
            "sent": self.sent,
            "ends": {str(partition): end for partition, end in self.ends.items()},
            "ended_ms": self.ended_ms,
            "continued_by": self.continued_by,
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def is_replay(key: bytes | None) -> bool:
    """Whether a record of the control topic with this key is that of a replay."""
    return (key or b"").startswith(f"{KIND}:".encode())


def read(value: bytes) -> Replay:
    """Decode the record of a replay that is no tombstone.

    Raises:
      UnreadableReplay: When it is damaged or of a later version.
    """
    try:
        fields = json.loads(value)
        if fields["v"] != VERSION:
            raise UnreadableReplay(f"version {fields['v']!r} of the format; this broker knows {VERSION}")
        return Replay(
            id=str(fields["id"]),
            queue_name=str(fields["target"]),
            by=str(fields["by"]),
            at_ms=int(fields["at_ms"]),
            reason=str(fields["reason"]),
            state=ReplayState(fields["state"]),
            ids=str(fields["ids"]),
            actor=fields["actor"],
            since_ms=fields["since_ms"],
            until_ms=fields["until_ms"],
            limit=fields["limit"],
            selected=int(fields["selected"]),
            sent=int(fields["sent"]),
            ends={int(partition): int(end) for partition, end in fields["ends"].items()},
            expires_at_ms=int(fields["expires_at_ms"]),
            ended_ms=fields["ended_ms"],
            continued_by=fields["continued_by"],
        )
    except UnreadableReplay:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UnreadableReplay(f"{e!r} in {value[:100]!r}") from e


def marks(replay_id: str, identity: str) -> list[tuple[str, bytes]]:
    """The headers of a message that a replay sends."""
    return [(REPLAY_ID, replay_id.encode()), (REPLAY_OF, identity.encode(errors="replace"))]


def without_marks(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The headers without those of an earlier replay."""
    return [header for header in headers if header[0] not in _HEADERS]


def identity_of(message_id: str, headers: Headers) -> str:
    """The id that all records of one message have in common, those of its replays with new ids included."""
    own = dict(headers)
    return own[REPLAY_OF].decode(errors="replace") if REPLAY_OF in own else message_id


def replay_id_of(headers: Headers) -> str | None:
    """The id of the replay that sent a record; None for any other record."""
    own = dict(headers)
    return own[REPLAY_ID].decode(errors="replace") if REPLAY_ID in own else None
