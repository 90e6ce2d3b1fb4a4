"""The records of the delayed topic.

The message id determines the partition of all records of a message. The latest record of a key counts;
compaction removes the others:

    key                             value                  meaning
    delay:{message_id}:{number}     the encoded message    the message waits until ``delay-due-ms``
                                    none (tombstone)       the delay is done; ``delay-outcome`` says how
    cancel:{message_id}:{number}    JSON, outcome null     a request to drop the delays of the message
                                    JSON, an outcome       the decision of the forwarder; both may
                                                           have a ``CancelNote``
                                    none (tombstone)       an expired request; without a message id: an end
                                                           mark
    flush:{queue}                   JSON                   drop the earlier delays for this queue
    due:                            JSON with delays       these delays are due now; earlier versions of the
                                                           broker log it, and skip it

Each delay and each request has a ``number`` of its own. With the message id alone as the key, the tombstone
of a forwarded delay would erase the next delay of a message that failed at once.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from dramatiq.message import Message

from ..errors import ParameterRefused
from ..process import clock
from ..produce.record import Record, Watch

DUE = "delay-due-ms"
QUEUE = "delay-queue"
KEY = "delay-key"
OUTCOME = "delay-outcome"
_OWN_HEADERS = frozenset({DUE, QUEUE, KEY, OUTCOME})

#: Ten years: longer than any real delay, shorter than a time since 1970 that was passed by mistake.
MAX_DELAY_MS = 10 * 365 * 24 * 3600 * 1000
_NUMBER_BYTES = 8
#: ``:`` and the number in hexadecimal digits.
KEY_SUFFIX_LENGTH = 1 + 2 * _NUMBER_BYTES

#: A request id without a message id. Its tombstone is a mark (see `mark`), which every version ignores.
END_MARK_ID = ":" + "0" * 2 * _NUMBER_BYTES

_DELAY, _CANCEL, _FLUSH, _DUE_NOW = "delay:", "cancel:", "flush:", "due:"

Headers = Sequence[tuple[str, bytes]]


class Outcome(Enum):
    """The end of a delay, or the decision about a cancel request."""

    FORWARDED = "forwarded"
    CANCELLED = "cancelled"
    FLUSHED = "flushed"
    TOO_LATE = "too late"
    UNKNOWN = "unknown"


def strongest(outcomes: Iterable[Outcome]) -> Outcome | None:
    """The decision of several partitions about cancelling a message; None without a decision."""
    found = set(outcomes)
    return next((o for o in (Outcome.CANCELLED, Outcome.TOO_LATE, Outcome.UNKNOWN) if o in found), None)


class UnreadableRecord(ValueError):
    """A record of the delayed topic that this version cannot decode. It stays in the topic."""


@dataclass(frozen=True, slots=True)
class Delay:
    """A message that waits.

    Attributes:
      id: ``{message_id}:{number}``.
      queue: The queue of the message.
      due_ms: The due time, in milliseconds since 1970, by the sender's clock.
      value: The encoded message, which is never decoded here.
      headers: The headers of its record in the queue's topic.
      key: The key of its record in the queue's topic.
    """

    id: str
    queue: str
    due_ms: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None

    @property
    def message_id(self) -> str:
        return self.id[:-KEY_SUFFIX_LENGTH]


@dataclass(frozen=True, slots=True)
class Done:
    """A delay's tombstone. The outcome is None when another program than this broker wrote it."""

    id: str
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class CancelNote:
    """What is known of a cancel request. Earlier versions of the broker write none of it, and skip it.

    Attributes:
      by, reason: Who asked for it, and why; empty when unknown.
      requested_ms: The time of the request by the client's clock, in milliseconds since 1970.
      queue: The queue of the message; empty when the request found no delay.
    """

    by: str = ""
    reason: str = ""
    requested_ms: int | None = None
    queue: str = ""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A request to cancel; its ``id`` is ``{message_id}:{number}``."""

    id: str
    note: CancelNote = CancelNote()

    @property
    def message_id(self) -> str:
        return self.id[:-KEY_SUFFIX_LENGTH]


@dataclass(frozen=True, slots=True)
class CancelDecision:
    """The decision about the request with the same ``id``, and its time."""

    id: str
    outcome: Outcome
    decided_ms: int
    note: CancelNote = CancelNote()

    @property
    def message_id(self) -> str:
        return self.id[:-KEY_SUFFIX_LENGTH]


@dataclass(frozen=True, slots=True)
class CancelForgotten:
    """The tombstone of a request and its decision."""

    id: str


@dataclass(frozen=True, slots=True)
class Flush:
    queue: str


@dataclass(frozen=True, slots=True)
class DueNow:
    """A request to forward delays now; ``ids`` are theirs."""

    ids: tuple[str, ...]


Entry = Delay | Done | CancelRequest | CancelDecision | CancelForgotten | Flush | DueNow


def check_delay_ms(delay_ms: float) -> int:
    """Return ``delay_ms`` as whole milliseconds, rounded up so that no message is early.

    One below 0 is over already, as with Dramatiq's own brokers.

    Raises:
      TypeError: When it is not a number.
      ParameterRefused: When it is not finite, or longer than MAX_DELAY_MS.
    """
    if isinstance(delay_ms, bool) or not isinstance(delay_ms, int | float):
        raise TypeError(f"a delay is a number of milliseconds, not {delay_ms!r}")
    if not math.isfinite(delay_ms):
        raise ParameterRefused(f"a delay cannot be {delay_ms} ms: pass a finite number of milliseconds")
    if delay_ms > MAX_DELAY_MS:
        raise ParameterRefused(
            f"a delay of {delay_ms} ms is longer than ten years: pass a duration, not a point in time"
        )
    return max(0, math.ceil(delay_ms))


def delay_record(
    topic: str,
    message: Message[Any],
    delay_ms: float,
    *,
    headers: Iterable[tuple[str, bytes]] = (),
    key: bytes | None = None,
    now_ms: int | None = None,
    destination: str | None = None,
    reserved_bytes: int = 0,
) -> Record:
    """The record that holds ``message`` until ``delay_ms`` from now.

    Parameters:
      topic: The delayed topic.
      destination: The queue's topic.
      reserved_bytes: The ``Record.reserved_bytes`` of the message's record in the queue's topic.
      headers: The headers of the message's record in the queue's topic.
      key: The key of the message's record in the queue's topic.
      now_ms: The time now, in milliseconds since 1970; by default this machine's.

    Raises:
      TypeError: When the delay is not a number.
      ValueError: When the delay is out of range, or a header has a name that is reserved for the broker.
    """
    due_ms = (clock.wall_ms() if now_ms is None else now_ms) + check_delay_ms(delay_ms)
    own = [(DUE, b"%d" % due_ms), (QUEUE, message.queue_name.encode())]
    if key is not None:
        own.append((KEY, key))
    carried = list(headers)
    if taken := _OWN_HEADERS.intersection(name for name, _ in carried):
        raise ValueError(f"the headers {sorted(taken)} are reserved for the broker")
    value = message.encode()
    return Record(
        topic,
        value=value,
        key=f"{_DELAY}{_numbered(message.message_id)}".encode(),
        headers=own + carried,
        placement=str(message.message_id).encode(),  # it may be a number
        destination=None
        if destination is None
        else Record(destination, value, key=key, headers=carried, reserved_bytes=reserved_bytes),
    )


def tombstone(topic: str, delay_id: str, outcome: Outcome, *, partition: int) -> Record:
    key = f"{_DELAY}{delay_id}".encode()
    return Record(
        topic, value=None, key=key, headers=[(OUTCOME, outcome.value.encode())], partition=partition
    )


def cancel_request(
    topic: str, message_id: str, *, partition: int, note: CancelNote = CancelNote()
) -> tuple[CancelRequest, Record]:
    request = CancelRequest(_numbered(message_id), note)
    fields = {"outcome": None, **_fields_of(note)}
    return request, _command(topic, f"{_CANCEL}{request.id}", fields, partition)


def cancel_decision(topic: str, decision: CancelDecision, *, partition: int) -> Record:
    fields = {
        "outcome": decision.outcome.value,
        "decided_ms": decision.decided_ms,
        **_fields_of(decision.note),
    }
    return _command(topic, f"{_CANCEL}{decision.id}", fields, partition)


def cancel_forgotten(topic: str, request_id: str, *, partition: int) -> Record:
    return Record(topic, value=None, key=f"{_CANCEL}{request_id}".encode(), partition=partition)


def end_mark(topic: str, *, partition: int, watch: Watch) -> Record:
    """An end mark: its offset is above every record that was acknowledged before."""
    record = cancel_forgotten(topic, END_MARK_ID, partition=partition)
    return replace(record, watch=watch)


def flush_command(topic: str, queue: str, *, partition: int) -> Record:
    return _command(topic, f"{_FLUSH}{queue}", {}, partition)


def due_now(topic: str, delay_ids: Iterable[str], *, partition: int) -> Record:
    return _command(topic, _DUE_NOW, {"delays": list(delay_ids)}, partition)


def _fields_of(note: CancelNote) -> dict[str, object]:
    return {name: value for name, value in asdict(note).items() if value}


def _numbered(message_id: str) -> str:
    return f"{message_id}:{secrets.token_hex(_NUMBER_BYTES)}"


def _command(topic: str, key: str, fields: Mapping[str, object], partition: int) -> Record:
    return Record(topic, value=json.dumps(fields).encode(), key=key.encode(), partition=partition)


def read(key: bytes | None, value: bytes | None, headers: Headers) -> Entry:
    """Decode a record of the delayed topic.

    Raises:
      UnreadableRecord: When another program wrote it, or it is damaged or of a later version.
    """
    try:
        text = (key or b"").decode()
        if text.startswith(_DELAY):
            return _read_delay(text.removeprefix(_DELAY), value, headers)
        if text.startswith(_CANCEL):
            return _read_cancel(text.removeprefix(_CANCEL), value)
        if text.startswith(_FLUSH) and value is not None:
            return Flush(text.removeprefix(_FLUSH))
        if text == _DUE_NOW and value is not None:
            return DueNow(tuple(map(str, json.loads(value)["delays"])))
    except (KeyError, ValueError, TypeError, AttributeError) as e:
        raise UnreadableRecord(f"the record with key {key!r} is damaged or of a later version: {e!r}") from e
    raise UnreadableRecord(f"the key {key!r} is not one of this broker")


def _read_delay(delay_id: str, value: bytes | None, headers: Headers) -> Delay | Done:
    _check_number(delay_id)
    own = dict(headers)
    if value is None:
        return Done(delay_id, Outcome(own[OUTCOME].decode()) if OUTCOME in own else None)
    carried = tuple((name, content) for name, content in headers if name not in _OWN_HEADERS)
    return Delay(delay_id, own[QUEUE].decode(), int(own[DUE]), value, carried, own.get(KEY))


def _read_cancel(request_id: str, value: bytes | None) -> Entry:
    _check_number(request_id)
    if value is None:
        return CancelForgotten(request_id)
    fields = json.loads(value)
    requested_ms = fields.get("requested_ms")
    note = CancelNote(
        str(fields.get("by", "")),
        str(fields.get("reason", "")),
        None if requested_ms is None else int(requested_ms),
        str(fields.get("queue", "")),
    )
    if fields["outcome"] is None:
        return CancelRequest(request_id, note)
    return CancelDecision(request_id, Outcome(fields["outcome"]), int(fields["decided_ms"]), note)


def _check_number(numbered_id: str) -> None:
    if len(numbered_id) < KEY_SUFFIX_LENGTH or numbered_id[-KEY_SUFFIX_LENGTH] != ":":
        raise ValueError("the id does not end with a number")
