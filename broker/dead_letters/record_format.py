"""How a dead letter is written down.

The record's value is one JSON object:

    original_message  the message as an object; or, when it is not encoded as one (with PickleEncoder, say, or
                      because it is no message), its bytes in base64
    error             what the error said
    error_type        the name of its class
    traceback         its traceback, causes included
    retry_count       how often the message was tried again, by the count that its record came with
    timestamp         when it was given up, in milliseconds since 1970, as Dramatiq's ``message_timestamp``

Its key is the message's id, so that all dead letters of a message are in one partition, in order. Its
headers are those of the record that it came in, and where that one stands: ``origin-topic``,
``origin-partition``, ``origin-offset``.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dramatiq.broker import MessageProxy
from dramatiq.encoder import JSONEncoder
from dramatiq.message import Message, get_encoder

from ..error_text import error_text, excerpt, shorten_notes, traceback_text
from ..kafka.topic_policies import MAX_DEAD_LETTER_BYTES
from ..kafka.topics import Topics
from ..produce.publisher import Record

if TYPE_CHECKING:
    from ..deliveries.delivery import Origin

Headers = Sequence[tuple[str, bytes]]

ORIGIN_TOPIC = "origin-topic"
ORIGIN_PARTITION = "origin-partition"
ORIGIN_OFFSET = "origin-offset"
#: Set to the original's full size when only its beginning fitted.
TRUNCATED = "original-truncated"
OWN_HEADERS = frozenset({ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET, TRUNCATED})

#: Kafka's limit is on the batch: its header (61 bytes), the record's own fields and what a client adds.
OVERHEAD_BYTES = 4_096
#: The same at the least, for a topic whose limit is so low that every byte counts.
LEAST_OVERHEAD_BYTES = 128
HEADER_OVERHEAD_BYTES = 10
#: Tried in order until the dead letter fits: how many characters of the error and of the traceback stay.
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
    """Make the record that keeps a message which is given up. It always fits MAX_DEAD_LETTER_BYTES.

    When it would not, or when its topic is known to take less, texts are shortened first. An original that
    is too large by itself for MAX_DEAD_LETTER_BYTES loses its end, and the header ``original-truncated`` has
    its size. One that is too large for its topic alone is left whole: an operator can raise that limit.

    Parameters:
      queue_name: The queue whose dead letter it is.
      origin: Where the delivery's record stands; None when that is not known.
      raw: That record's value. It says how often the message was tried again.
      error: Why; None when nothing but ``fail()`` says so.
      message: The message as it is now, options included. Left out, it is read from ``raw``.
      headers: The headers of the delivery's record.
      message_id: The message's id, for when it cannot be read from ``raw``.
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
    original = _original(raw, message)
    read = _read(raw)
    key = _key(read.get("message_id") if message is None else message.message_id, message_id, origin)
    if message is not None:
        read = read or {"options": message.options}
    entry: dict[str, Any] = {
        "original_message": original,
        "error": "failed without an error" if error is None else error_text(error),
        "error_type": "" if error is None else type(error).__name__,
        "traceback": "" if error is None else traceback_text(error),
        "retry_count": _retry_count(read),
        "timestamp": time.time_ns() // 1_000_000,
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
    """A dead letter that its topic does not take, with its texts as short as it needs."""
    limit = topics.limit_of(dead_letter.topic) or 0
    entry = json.loads(dead_letter.value or b"{}")
    return replace(
        dead_letter, value=_fit(entry, _room_of(limit, dead_letter.key or b"", dead_letter.headers))
    )


def _room_of(limit: int, key: bytes, headers: Headers) -> int:
    """What a topic with that limit takes of a value."""
    lengths = LEAST_OVERHEAD_BYTES + HEADER_OVERHEAD_BYTES * len(headers)
    return limit - lengths - _bytes_beside(key, headers)


def _bytes_beside(key: bytes, headers: Headers) -> int:
    return len(key) + sum(len(name.encode()) + len(content or b"") for name, content in headers)


def as_json(value: object) -> bytes:
    """Strict JSON in UTF-8. Raises TypeError or ValueError when ``value`` is none."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can escape it, UTF-8 cannot hold it
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _original(raw: bytes, message: Message[Any] | MessageProxy | None) -> dict[str, Any] | str:
    encoded = raw
    if message is not None:
        try:
            encoded = message.encode()
        except Exception:  # noqa: BLE001 - an encoder of the application's own may raise anything
            # It was given an option that cannot be encoded; the record it came in has all that matters.
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
    """Whether the application's encoder reads ``again`` as it reads ``encoded``, if it does at all."""
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
    """The fields of a record, in the application's encoding or in JSON; none when it is in neither."""
    return _decoded(get_encoder().decode, raw) or _decoded(json.loads, raw)


def _decoded(decode: Callable[[bytes], Any], raw: bytes) -> dict[str, Any]:
    try:
        fields = decode(raw)
    except Exception:  # noqa: BLE001 - as above
        return {}
    return fields if isinstance(fields, dict) else {}


def _key(message_id: object, known_id: str | None, origin: Origin | None) -> bytes:
    if not isinstance(message_id, str) or not message_id:
        message_id = known_id
    if message_id:
        return message_id.encode(errors="backslashreplace")
    return f"{origin.topic}/{origin.partition}/{origin.offset}".encode() if origin is not None else b""


def _retry_count(read: Mapping[str, Any]) -> int:
    """The retries that were made. Dramatiq's Retries counts one more in the message when it gives up."""
    options = read.get("options")
    count = options.get("retries", 0) if isinstance(options, dict) else 0
    return count if isinstance(count, int) and not isinstance(count, bool) else 0


def _fit(entry: dict[str, Any], room: int) -> bytes:
    """The entry in at most ``room`` bytes, or, when the original alone takes more, with texts at their
    shortest.
    """
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
    """The headers that the message itself came with."""
    return [header for header in headers if header[0] not in OWN_HEADERS]
