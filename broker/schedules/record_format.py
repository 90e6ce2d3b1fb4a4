"""The records of the schedules topic.

The topic has one partition that counts, the first, and is compacted: the latest record of a key counts. Each
kind of key has one kind of writer, so that no writer overwrites the fields of another one.

    key                     writer                     value, one JSON object in UTF-8
    schedule:{name}         code, operators            the definition; a tombstone deletes the schedule
    pause:{name}            operators                  whether it is paused, since when, by whom and why
    state:{name}            the owner                  its last decided occurrence
    firing:{owner}:{page}   the owner                  occurrences that may be on their queues, and the ends
                                                       that the queues had before; its tombstone follows the
                                                       states of all of them
    end                     each owner                 a tombstone, whose offset is the end of the log

A reader ignores keys of another kind, and fields that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID, uuid5

from ..errors import ScheduleRefused
from ..produce.record import Record, Watch
from .timing import Timing, from_json

VERSION = 1
#: The namespace of the ids of occurrences (RFC 9562, version 5).
_IDS = UUID("5e6f7a51-21c9-4f0e-9d5c-6a3d6c0c0125")
#: The header of an occurrence's message, with its message id. Nothing but a schedule's owner writes it.
OCCURRENCE = "schedule-occurrence"
PARTITION = 0
MAX_NAME_BYTES = 200
_SCHEDULE, _PAUSE, _STATE, _FIRING, _END = "schedule:", "pause:", "state:", "firing:", "end"

Source = Literal["code", "operator"]


class UnreadableSchedule(ValueError):
    """A record of the schedules topic that this version cannot decode. It stays in the topic."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a schedule enqueues, and when.

    Attributes:
      options: The options of the messages, such as ``partition_key``.
      since_ms: The occurrences after this time count: when the timing was defined.
      source: Whether code declares it, or an operator has put it.
      by: Who wrote it.
    """

    name: str
    actor_name: str
    queue_name: str
    timing: Timing
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    since_ms: int = 0
    source: Source = "operator"
    by: str = ""

    def says_the_same(self, other: Definition) -> bool:
        """Whether the other one enqueues the same at the same times."""
        return self._content() == other._content()

    def keeps_time(self, other: Definition) -> bool:
        """Whether the other one has the same occurrences."""
        return self.timing.to_json() == other.timing.to_json()

    def _content(self) -> dict[str, Any]:
        return {
            "actor": self.actor_name,
            "queue": self.queue_name,
            "args": list(self.args),
            "kwargs": dict(self.kwargs),
            "options": dict(self.options),
            **self.timing.to_json(),
            **self.timing.options_to_json(),
        }

    def encode(self) -> bytes:
        """The value of its record.

        Raises:
          ScheduleRefused: When an argument or an option is not JSON.
        """
        content = self._content() | {"since_ms": self.since_ms, "source": self.source, "by": self.by}
        try:
            return _encoded(content)
        except (TypeError, ValueError) as e:
            raise ScheduleRefused(
                f"The schedule {self.name!r} is refused: its arguments and options must be JSON: {e}."
            ) from e


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether a schedule is paused, and since when.

    Attributes:
      since_ms: When it was paused, or resumed: earlier occurrences do not count as missed.
    """

    name: str
    is_paused: bool
    since_ms: int
    by: str = ""
    reason: str = ""

    def encode(self) -> bytes:
        return _encoded(
            {"paused": self.is_paused, "since_ms": self.since_ms, "by": self.by, "reason": self.reason}
        )


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """The progress of a schedule.

    Attributes:
      last_ms: The last occurrence that is decided: it and all earlier ones never run again.
      ran_ms: The last occurrence whose message was enqueued; None for none.
      missed: The number of times that it left occurrences out.
    """

    name: str
    last_ms: int
    ran_ms: int | None = None
    missed: int = 0

    def encode(self) -> bytes:
        return _encoded({"last_ms": self.last_ms, "ran_ms": self.ran_ms, "missed": self.missed})


@dataclass(frozen=True, slots=True)
class Firing:
    """Occurrences that may be on their queues.

    Attributes:
      id: ``{owner}:{page}``.
      occurrences: Names and times.
      ends: The end of each partition of the queues' topics before the first of them was sent, by topic.
    """

    id: str
    occurrences: tuple[tuple[str, int], ...]
    ends: Mapping[str, Sequence[int]]

    def encode(self) -> bytes:
        return _encoded({"occurrences": self.occurrences, "ends": self.ends})


@dataclass(frozen=True, slots=True)
class Gone:
    """A tombstone: of a definition, a pause, a state or a firing."""

    kind: type[Definition] | type[Pause] | type[ScheduleState] | type[Firing]
    name: str


Entry = Definition | Pause | ScheduleState | Firing | Gone
_KINDS: dict[str, type[Definition] | type[Pause] | type[ScheduleState] | type[Firing]] = {
    _SCHEDULE: Definition,
    _PAUSE: Pause,
    _STATE: ScheduleState,
    _FIRING: Firing,
}


def message_id(name: str, occurrence_ms: int) -> str:
    """The id of an occurrence's message, which every process derives alike."""
    return str(uuid5(_IDS, f"{name}\n{occurrence_ms}"))


def check_name(name: object) -> str:
    """Return a schedule's name.

    Raises:
      ScheduleRefused: When it is not a text of 1 to 200 bytes in UTF-8, in one line.
    """
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
        raise ScheduleRefused(
            f"The schedule's name {name!r} is refused: pass 1 to {MAX_NAME_BYTES} bytes of text in one line."
        )
    return name


def record(topic: str, entry: Entry) -> Record:
    """The record of an entry."""
    value = None if isinstance(entry, Gone) else entry.encode()
    return Record(topic, value, _key(entry).encode(), partition=PARTITION)


def end_record(topic: str, watch: Watch) -> Record:
    """A record whose offset is the end of the log."""
    return Record(topic, None, _END.encode(), partition=PARTITION, watch=watch)


def _key(entry: Entry) -> str:
    kind = entry.kind if isinstance(entry, Gone) else type(entry)
    prefix = next(prefix for prefix, known in _KINDS.items() if known is kind)
    return prefix + (entry.id if isinstance(entry, Firing) else entry.name)


def read(key: bytes | None, value: bytes | None, timestamp_ms: int) -> Entry | None:
    """Decode a record; None for one of another kind.

    Parameters:
      timestamp_ms: Kafka's, which limits the times that a client has written; -1 without one.

    Raises:
      UnreadableSchedule: When it is damaged, or of a later version.
    """
    try:
        text = (key or b"").decode()
        prefix = next((prefix for prefix in _KINDS if text.startswith(prefix)), None)
        if prefix is None:
            return None
        kind, name = _KINDS[prefix], text.removeprefix(prefix)
        if value is None:
            return Gone(kind, name)
        fields = json.loads(value)
        if fields["v"] != VERSION:
            raise UnreadableSchedule(f"version {fields['v']!r} of the format; this worker knows {VERSION}")
        return _read(kind, name, fields, timestamp_ms)
    except UnreadableSchedule:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UnreadableSchedule(f"{e!r} in {(value or b'')[:100]!r}") from e


def _read(kind: type[Any], name: str, fields: dict[str, Any], timestamp_ms: int) -> Entry:
    if kind is ScheduleState:
        ran_ms = fields["ran_ms"]
        return ScheduleState(
            name, int(fields["last_ms"]), None if ran_ms is None else int(ran_ms), int(fields["missed"])
        )
    if kind is Firing:
        occurrences = tuple((str(name), int(time_ms)) for name, time_ms in fields["occurrences"])
        return Firing(name, occurrences, {topic: tuple(map(int, e)) for topic, e in fields["ends"].items()})
    since_ms = int(fields["since_ms"])
    if timestamp_ms > 0:  # the clock of the client may be ahead
        since_ms = min(since_ms, timestamp_ms)
    if kind is Pause:
        return Pause(name, bool(fields["paused"]), since_ms, str(fields["by"]), str(fields["reason"]))
    return Definition(
        name=name,
        actor_name=str(fields["actor"]),
        queue_name=str(fields["queue"]),
        timing=from_json(fields),
        args=tuple(fields["args"]),
        kwargs=dict(fields["kwargs"]),
        options=dict(fields["options"]),
        since_ms=since_ms,
        source="code" if fields["source"] == "code" else "operator",
        by=str(fields["by"]),
    )


def _encoded(fields: Mapping[str, Any]) -> bytes:
    return json.dumps({"v": VERSION, **fields}, ensure_ascii=False, separators=(",", ":")).encode()
