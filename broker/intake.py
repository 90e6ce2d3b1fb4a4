"""Decides whether a record is a message that this worker can be handed."""

from __future__ import annotations

from collections.abc import Container
from json import JSONDecodeError
from operator import itemgetter
from typing import Any

from dramatiq.errors import DecodeError
from dramatiq.message import Message, get_encoder

from .errors import InvalidMessage
from .keys import why_refused

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "queue_name": str,
    "actor_name": str,
    "args": (list, tuple),
    "kwargs": dict,
    "options": dict,
    "message_id": str,
    "message_timestamp": int,
}
#: What nearly every message looks like, to be seen in one comparison.
_USUAL_TYPES = (str, str, list, dict, dict, str, int)
_values = itemgetter(*_FIELDS)
_EXPECTED: dict[type | tuple[type, ...], str] = {
    str: "a string",
    (list, tuple): "an array",
    dict: "an object",
    int: "a whole number",
}


def read_message(raw: bytes | None, *, queue_name: str, actors: Container[str]) -> Message[Any]:
    """Decode and check one record's value.

    What Dramatiq itself does not check would kill one of its threads (a foreign ``queue_name``, ``throws``
    that are no classes), restart its consumer (options that are not a mapping), give the message another id
    at every delivery (none) or make arguments of a text's letters.

    Raises:
      InvalidMessage: When it is not a message for this queue and one of ``actors``; the text says why.
    """
    if raw is None:
        raise InvalidMessage("the record has no value")
    try:
        fields = get_encoder().decode(raw)
    except Exception as e:
        # An encoder of the application's own may raise anything.
        raise InvalidMessage(f"not a Dramatiq message: {_why_undecodable(e)}") from e
    if not _is_usual(fields):
        _check_fields(fields)
    _check_values(fields)
    message: Message[Any] = Message(**fields)
    if message.queue_name != queue_name:
        raise InvalidMessage(
            f"queue_name is {message.queue_name!r}, but the record is in the queue {queue_name!r}"
        )
    if message.actor_name not in actors:
        raise InvalidMessage(f"no actor named {message.actor_name!r} is declared in this worker")
    # Dramatiq's workers hold a message with an eta in memory until then. Delays are the delayed topic's
    # business, and a message in its queue is due.
    message.options.pop("eta", None)
    return message


def _is_usual(fields: Any) -> bool:
    """Whether `_check_fields` would find nothing, as far as a quick look can tell."""
    if type(fields) is not dict or len(fields) != len(_FIELDS):
        return False
    try:
        return tuple(map(type, _values(fields))) == _USUAL_TYPES
    except KeyError:
        return False


def _check_fields(fields: Any) -> None:
    if not isinstance(fields, dict):
        raise InvalidMessage(f"not a Dramatiq message: it is {_in_json(fields)}, not an object")
    for name, kind in _FIELDS.items():
        if name not in fields:
            raise InvalidMessage(f"not a Dramatiq message: {name} is missing")
        value = fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidMessage(f"{name} is {_in_json(value)}, not {_EXPECTED[kind]}")
    if unknown := fields.keys() - _FIELDS.keys():
        names = ", ".join(sorted(map(str, unknown)))
        raise InvalidMessage(f"not a Dramatiq message of this version: it also has {names}")


def _in_json(value: Any) -> str:
    """What a value is, in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value:g}"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"  # of an encoder of the application's own


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
