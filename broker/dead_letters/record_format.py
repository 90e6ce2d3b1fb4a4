"""The record of a dead letter.

The record's value is one JSON object:

    original_message  the message as an object; its bytes in base64, when it is not encoded as one (with
                      PickleEncoder, for example, or because the record is not a message)
    error             the text of the error
    error_type        the name of the error's class
    traceback         the traceback, causes included
    retry_count       the number of retries, by the count in the message's record
    timestamp         the time of the dead letter, in milliseconds since 1970, as Dramatiq's
                      ``message_timestamp``

The record's key is the message's id, so all dead letters of a message are in one partition, in order. The
record's headers are those of the message's record, and the origin of that record: ``origin-topic``,
``origin-partition``, ``origin-offset``. An imported copy has the header ``imported`` as well: who, when and
why, as a JSON object.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dramatiq.broker import MessageProxy
from dramatiq.encoder import JSONEncoder
from dramatiq.message import Message, get_encoder

from ..error_text import error_text, excerpt, shorten_notes, traceback_text
from ..kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from ..kafka.topics import Topics
from ..process import clock
from ..produce.record import Record

if TYPE_CHECKING:
    from ..deliveries.delivery import Origin

Headers = Sequence[tuple[str, bytes]]

ORIGIN_TOPIC = "origin-topic"
ORIGIN_PARTITION = "origin-partition"
ORIGIN_OFFSET = "origin-offset"
#: The full size of an original that was truncated.
TRUNCATED = "original-truncated"
#: Who imported a copy, when and why.
IMPORTED = "imported"
OWN_HEADERS = frozenset({ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET, TRUNCATED, IMPORTED})

#: Kafka limits the batch: its header (61 bytes), the record's own fields, and the additions of a client.
OVERHEAD_BYTES = 4_096
#: The minimum overhead, for a topic with a limit so low that every byte counts.
LEAST_OVERHEAD_BYTES = 128
HEADER_OVERHEAD_BYTES = 10
#: The maximum characters of the error and of the traceback, tried in order until the dead letter fits.
_LESS_TEXT = ((500, 2_000), (100, 0))


def dead_letter_record(
    topics: Topics,
    *,
    queue_name: str,
    origin: Origin | None,
    raw: bytes,
    error: BaseException | None,
    message: Message[Any] | MessageProxy | None = None,
    headers: Headers = (),
    message_id: str | None = None,
) -> Record:
    """Create the record of a dead letter. It always fits MAX_DEAD_LETTER_BYTES.

    Texts are shortened first, to fit that limit and the known limit of the topic. An original that alone
    exceeds MAX_DEAD_LETTER_BYTES is truncated, and the header ``original-truncated`` has its size. An
    original that exceeds only the limit of its topic stays whole: an operator can raise that limit.

    Parameters:
      queue_name: The queue of the message.
      origin: The origin of the message's record; None when it is not known.
      raw: The value of the message's record. It holds the number of retries.
      error: The reason; None for a message that ``fail()`` rejected without an error.
      message: The message with its present options. Without it, the message is read from ``raw``.
      headers: The headers of the message's record.
      message_id: The message's id, in case it cannot be read from ``raw``.
    """
    own = (
        []
        if origin is None
        else [
            (ORIGIN_TOPIC, origin.topic.encode()),
            (ORIGIN_PARTITION, b"%d" % origin.partition),
            (ORIGIN_OFFSET, b"%d" % origin.offset),
        ]
    )
    headers = [*(header for header in headers if header[0] not in OWN_HEADERS), *own]
    original = original_of(raw, message)
    read = _read(raw)
    key = key_of_dead_letter(
        read.get("message_id") if message is None else message.message_id, message_id, origin
    )
    if message is not None:
        read = read or {"options": message.options}
    entry: dict[str, Any] = {
        "original_message": original,
        "error": "failed without an error" if error is None else error_text(error),
        "error_type": "" if error is None else type(error).__name__,
        "traceback": "" if error is None else traceback_text(error),
        "retry_count": _retry_count(read),
        "timestamp": clock.wall_ms(),
    }
    topic = topics.dead_letters(queue_name)
    room = MAX_DEAD_LETTER_BYTES - OVERHEAD_BYTES - _bytes_beside(key, headers)
    limit = topics.limit_of(topic)
    value = _fit(entry, room if limit is None else min(room, _room_of(limit, key, headers)))
    if len(value) > room:
        headers.append((TRUNCATED, b"%d" % len(raw)))
        value = _truncated(entry, raw, room)
    return Record(topic, value, key=key, headers=headers)


def shortened(topics: Topics, dead_letter: Record) -> Record:
    """A dead letter that exceeds the limit of its topic, with its texts shortened to fit."""
    limit = topics.limit_of(dead_letter.topic) or 0
    entry = json.loads(dead_letter.value or b"{}")
    return replace(
        dead_letter, value=_fit(entry, _room_of(limit, dead_letter.key or b"", dead_letter.headers))
    )


def _room_of(limit: int, key: bytes, headers: Headers) -> int:
    """The largest value that fits into a record of a topic with that limit."""
    lengths = LEAST_OVERHEAD_BYTES + HEADER_OVERHEAD_BYTES * len(headers)
    return limit - lengths - _bytes_beside(key, headers)


def _bytes_beside(key: bytes, headers: Headers) -> int:
    return len(key) + sum(len(name.encode()) + len(content or b"") for name, content in headers)


def as_json(value: object) -> bytes:
    """Strict JSON in UTF-8. Raises TypeError or ValueError when ``value`` cannot be encoded."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can escape it, UTF-8 cannot encode it
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def original_of(raw: bytes, message: Message[Any] | MessageProxy | None) -> dict[str, Any] | str:
    """The message as an object, or its bytes in base64."""
    encoded = raw
    if message is not None:
        try:
            encoded = message.encode()
        except Exception:  # noqa: BLE001 - an encoder of the application's own may raise anything
            # An option of the message cannot be encoded. Its record has the rest.
            encoded = raw
    try:
        fields = json.loads(encoded)
        again = as_json(fields)
    except (TypeError, ValueError, RecursionError):
        fields, again = None, b""
    if isinstance(fields, dict) and _read_alike(encoded, again):
        return fields
    return base64.b64encode(encoded).decode()


def _read_alike(encoded: bytes, again: bytes) -> bool:
    """Whether the application's encoder decodes both alike; true when it cannot decode ``encoded``."""
    encoder = get_encoder()
    if type(encoder) is JSONEncoder:
        return True
    try:
        fields = encoder.decode(encoded)
    except Exception:  # noqa: BLE001 - as above
        return True
    try:
        return bool(encoder.decode(again) == fields)
    except Exception:  # noqa: BLE001 - as above
        return False


def _read(raw: bytes) -> dict[str, Any]:
    """The fields of a record in the application's encoding or in JSON; empty when it is in neither."""
    return _decoded(get_encoder().decode, raw) or _decoded(json.loads, raw)


def _decoded(decode: Callable[[bytes], Any], raw: bytes) -> dict[str, Any]:
    try:
        fields = decode(raw)
    except Exception:  # noqa: BLE001 - as above
        return {}
    return fields if isinstance(fields, dict) else {}


def key_of_dead_letter(message_id: object, known_id: str | None, origin: Origin | None) -> bytes:
    """The key of a dead letter: the id of its message, or else the place of the message's record."""
    if not isinstance(message_id, str) or not message_id:
        message_id = known_id
    if message_id:
        return message_id.encode(errors="backslashreplace")
    return f"{origin.topic}/{origin.partition}/{origin.offset}".encode() if origin is not None else b""


def _retry_count(read: Mapping[str, Any]) -> int:
    """The number of retries. Dramatiq's Retries counts one more in the message when it stops retrying."""
    options = read.get("options")
    count = options.get("retries", 0) if isinstance(options, dict) else 0
    return count if isinstance(count, int) and not isinstance(count, bool) else 0


def _fit(entry: dict[str, Any], room: int) -> bytes:
    """The entry in at most ``room`` bytes; with its shortest texts when the original alone takes more."""
    value = as_json(entry)
    for error_chars, traceback_chars in _LESS_TEXT:
        if len(value) <= room:
            return value
        entry["error"] = excerpt(entry["error"], error_chars)
        entry["traceback"] = excerpt(entry["traceback"], traceback_chars)
        value = as_json(entry)
    if len(value) > room and isinstance(entry["original_message"], dict):
        shorten_notes(entry["original_message"].get("options"), 0)
        value = as_json(entry)
    return value


def _truncated(entry: dict[str, Any], raw: bytes, room: int) -> bytes:
    entry["original_message"] = ""
    left = room - len(as_json(entry))
    entry["original_message"] = base64.b64encode(raw[: max(0, left // 4 * 3)]).decode()
    return as_json(entry)


def carried(headers: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The headers of the message's own record."""
    return [header for header in headers if header[0] not in OWN_HEADERS]
