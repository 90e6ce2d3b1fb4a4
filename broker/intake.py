"""Decides whether a record is a message that this worker can be handed."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from dramatiq.errors import DecodeError
from dramatiq.message import Message

from .errors import InvalidMessage

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "queue_name": str,
    "actor_name": str,
    "args": tuple,
    "kwargs": dict,
    "options": dict,
    "message_id": str,
    "message_timestamp": int,
}


def read_message(raw: bytes | None, *, queue_name: str, actors: Container[str]) -> Message[Any]:
    """Decode and check one record's value.

    What Dramatiq itself does not check would kill one of its threads (a foreign ``queue_name``) or restart
    its consumer (options that are not a mapping), and the record would come back for ever.

    Raises:
      InvalidMessage: When it is not a message for this queue and one of ``actors``; the text says why.
    """
    if raw is None:
        raise InvalidMessage("the record has no value")
    try:
        message: Message[Any] = Message.decode(raw)
    except DecodeError as e:
        raise InvalidMessage(f"not a Dramatiq message: {e.error!r}") from e
    for name, kind in _FIELDS.items():
        value = getattr(message, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidMessage(f"{name} is {type(value).__name__}, not {kind}")
    if not message.message_id:
        raise InvalidMessage("message_id is empty")
    if message.queue_name != queue_name:
        raise InvalidMessage(
            f"queue_name is {message.queue_name!r}, but the record is in the queue {queue_name!r}"
        )
    if message.actor_name not in actors:
        raise InvalidMessage(f"no actor named {message.actor_name!r} is declared in this worker")
    if not all(isinstance(key, str) for key in (*message.kwargs, *message.options)):
        raise InvalidMessage("a key of kwargs or options is not a string")
    # Dramatiq's workers hold a message with an eta in memory until then. Delays are the delayed topic's
    # business, and a message in its queue is due.
    message.options.pop("eta", None)
    return message
