"""Decodes a record, and checks that it is a message for this worker."""

from __future__ import annotations

import uuid
from collections.abc import Container
from json import JSONDecodeError
from operator import itemgetter
from typing import Any

from dramatiq.errors import DecodeError
from dramatiq.message import Message, get_encoder

from ..errors import InvalidMessage, UnknownActor
from ..kafka.types import ConsumedRecord
from ..partition_keys import why_refused
from ..partition_keys.record_format import read_requeue_headers
from ..process import clock

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "queue_name": str,
    "actor_name": str,
    "args": (list, tuple),
    "kwargs": dict,
    "options": dict,
    "message_id": str,
}
#: Dramatiq accepts any value in this field, so this broker does, too.
_TIMESTAMP = "message_timestamp"
_MAX_SHOWN = 10**100
#: The types of nearly every message, for a check with one comparison.
_USUAL_TYPES = (str, str, list, dict, dict, str, int)
_values = itemgetter(*_FIELDS, _TIMESTAMP)
_EXPECTED: dict[type | tuple[type, ...], str] = {
    str: "a string",
    (list, tuple): "an array",
    dict: "an object",
}


def read_message(
    raw: bytes | None, *, queue_name: str, actors: Container[str], record: ConsumedRecord | None = None
) -> Message[Any]:
    """Decode and check one record's value.

    Messages that Dramatiq's own brokers run are accepted. Values that Dramatiq does not check are refused if
    they would kill one of its threads (a foreign ``queue_name``, ``throws`` without classes), restart its
    consumer (options that are not a mapping), or split a text into one argument per character.

    Parameters:
      record: The record. It determines the id and the time of a message that has none, so they stay the same
        at every delivery; Dramatiq would generate new ones each time.

    Raises:
      InvalidMessage: When it is not a message for this queue and one of ``actors``. The text names the fault.
    """
    if raw is None:
        raise InvalidMessage("the record has no value")
    try:
        fields = get_encoder().decode(raw)
    except Exception as e:
        # An encoder of the application's own may raise anything.
        raise InvalidMessage(f"not a Dramatiq message: {_why_undecodable(e)}") from e
    if not _is_usual(fields):
        if isinstance(fields, dict):
            _fill_in(fields, record)
        _check_fields(fields)
    _check_values(fields)
    message: Message[Any] = Message(**fields)
    if message.queue_name != queue_name:
        raise InvalidMessage(
            f"queue_name is {message.queue_name!r}, but the record is in the queue {queue_name!r}"
        )
    if message.actor_name not in actors:
        raise UnknownActor(f"no actor named {message.actor_name!r} is declared in this worker")
    # Dramatiq's workers hold a message with an eta in memory until then. Here the delayed topic holds delayed
    # messages, and a message in its queue is due.
    message.options.pop("eta", None)
    return message


def _is_usual(fields: Any) -> bool:
    """Whether a quick check shows that `_check_fields` would find no fault."""
    if type(fields) is not dict or len(fields) != len(_USUAL_TYPES):
        return False
    try:
        return tuple(map(type, _values(fields))) == _USUAL_TYPES and fields["message_id"] != ""
    except KeyError:
        return False


def _fill_in(fields: dict[Any, Any], record: ConsumedRecord | None) -> None:
    """Add the id and the time that Dramatiq would generate for a message without them."""
    if fields.get(_TIMESTAMP) is None:
        written_ms = -1 if record is None else record.timestamp  # Kafka's value for no timestamp is -1, too
        fields[_TIMESTAMP] = written_ms if written_ms >= 0 else clock.wall_ms()
    message_id = fields.get("message_id")
    if isinstance(message_id, int | float) and not isinstance(message_id, bool):
        fields["message_id"] = str(message_id)
    elif message_id in (None, "") and record is not None:
        fields["message_id"] = _id_of(record)


def _id_of(record: ConsumedRecord) -> str:
    """A unique id of a record. A requeue record from its lane, at a later offset, has the same id."""
    requeue_record = read_requeue_headers(record.headers or ())
    offset, timestamp = (
        (record.offset, record.timestamp)
        if requeue_record is None
        else (requeue_record[0].offset, requeue_record[0].timestamp)
    )
    # The timestamp distinguishes it from the record with the same offset in a recreated topic.
    name = f"kafka:{record.topic}/{record.partition}/{offset}/{timestamp}"
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _check_fields(fields: Any) -> None:
    if not isinstance(fields, dict):
        raise InvalidMessage(f"not a Dramatiq message: it is {_in_json(fields)}, not an object")
    for name, kind in _FIELDS.items():
        if name not in fields:
            raise InvalidMessage(f"not a Dramatiq message: {name} is missing")
        value = fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidMessage(f"{name} is {_in_json(value)}, not {_EXPECTED[kind]}")
    if unknown := fields.keys() - _FIELDS.keys() - {_TIMESTAMP}:
        names = ", ".join(sorted(map(str, unknown)))
        raise InvalidMessage(f"not a Dramatiq message of this version: it also has {names}")


def _in_json(value: Any) -> str:
    """The name of a value's type in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > _MAX_SHOWN:  # too large for a float or for this text
            return "a number"
        case int() | float():
            return f"the number {value:g}"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"  # from an encoder of the application


def _why_undecodable(error: Exception) -> str:
    cause = error.error if isinstance(error, DecodeError) else error
    match cause:
        case UnicodeDecodeError():
            return f"it is not UTF-8: {cause}"
        case JSONDecodeError():
            return f"it is not JSON: {cause}"
        case RecursionError():
            return "its JSON is nested too deeply"
    return str(cause) or repr(cause)


def _check_values(fields: dict[str, Any]) -> None:
    if not fields["message_id"]:
        raise InvalidMessage("message_id is empty")
    kwargs, options = fields["kwargs"], fields["options"]
    if (kwargs or options) and not all(isinstance(key, str) for key in (*kwargs, *options)):
        raise InvalidMessage("a key of kwargs or options is not a string")
    if (key := options.get("partition_key")) is not None and (reason := why_refused(key)) is not None:
        raise InvalidMessage(reason)
    if (throws := options.get("throws")) and not _are_error_classes(throws):
        raise InvalidMessage(f"the option throws is {_in_json(throws)}, not classes of errors")


def _are_error_classes(throws: Any) -> bool:
    try:
        isinstance(None, throws)
    except TypeError:
        return False
    return True
