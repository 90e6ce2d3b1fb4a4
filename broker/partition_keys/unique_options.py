"""The options ``unique_by``, ``unique`` and ``unique_key``: their checks, and the key of a message."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from dramatiq.actor import Actor
from dramatiq.message import Message

from ..errors import UniqueRefused
from .record_format import MAX_KEY_BYTES
from .unique import Unique

#: An actor's: the names of parameters, or a function that makes the key of a message's arguments.
UNIQUE_BY = "unique_by"
#: An actor's or a message's: until when later messages of the key are duplicates.
UNIQUE = "unique"
#: A message's: its key.
UNIQUE_KEY = "unique_key"
UNTIL_STARTED, UNTIL_DONE = "until_started", "until_done"
#: A mark stays in the lanes topic, and a key in memory, for as long.
MAX_SPAN_S = 366 * 24 * 3600
_CHOICE = "pass 'until_started', 'until_done', or a positive number of seconds"


def check_unique(actor: Actor[Any, Any], *, has_partition_key: bool) -> None:
    """Check the options of an actor.

    Raises:
      UniqueRefused: When they cannot be.
    """
    by, until = actor.options.get(UNIQUE_BY), actor.options.get(UNIQUE)
    whose = f"of actor {actor.actor_name!r}"
    if by is None:
        if until is not None:
            raise UniqueRefused(f"The unique= {whose} needs unique_by=: which messages are the same?")
        return
    if until is not None:
        _rules(until, f"The unique= {whose}")
    if has_partition_key:
        raise UniqueRefused(
            f"The unique_by= {whose} stands beside partition_key=: the unique key decides about the "
            "partition; declare one of the two."
        )
    if callable(by):
        return
    names = _names(by)
    if not names:
        raise UniqueRefused(
            f"The unique_by= {whose} is {by!r}: pass the name of a parameter, several names, or a function "
            "of the message's arguments."
        )
    parameters = inspect.signature(actor.fn).parameters
    named = [p.name for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if unknown := [name for name in names if name not in named]:
        raise UniqueRefused(
            f"The unique_by= {whose} names {', '.join(map(repr, unknown))}, and the parameters are "
            f"{', '.join(map(repr, named)) or 'none'}."
        )


def set_unique(message: Message[Any], actor: Actor[Any, Any] | None) -> str | None:
    """Set the options of a message that is about to be sent.

    Returns:
      Its partition key; None when the message is not unique.

    Raises:
      UniqueRefused: When an option of the message cannot be.
    """
    options = message.options
    whose = f"A message of {message.actor_name!r} was not sent"
    if UNIQUE_BY in options:
        raise UniqueRefused(
            f"{whose}: it has unique_by=; declare that on the actor, or give the message unique_key=."
        )
    declared: Mapping[str, Any] = {} if actor is None else actor.options
    is_wanted = UNIQUE in options or UNIQUE_KEY in options or declared.get(UNIQUE_BY) is not None
    if not is_wanted:
        return None
    until = options.get(UNIQUE, declared.get(UNIQUE) or UNTIL_DONE)
    if until is None:
        key = None
    elif UNIQUE_KEY in options:
        key = options[UNIQUE_KEY]
    elif actor is not None and declared.get(UNIQUE_BY) is not None:
        key = _made(declared[UNIQUE_BY], message, actor)
    else:
        raise UniqueRefused(
            f"{whose}: it has unique= and no key; give it unique_key=, or declare unique_by= on the actor."
        )
    if key is None:
        options.pop(UNIQUE, None)
        options.pop(UNIQUE_KEY, None)
        return None
    if not isinstance(key, str) or not key:
        raise UniqueRefused(f"{whose}: its unique key is {key!r}; make it a text that is not empty.")
    rules = _rules(until, f"{whose}: its unique=")
    options[UNIQUE_KEY] = key
    options[UNIQUE] = rules.span_ms / 1000 if rules.span_ms else until
    return _partition_key(message.actor_name, key, whose)


def unique_of(message: Message[Any], *, is_retry: bool, is_again: bool) -> Unique | None:
    """The rules of a message; None when it is not unique, or another producer has set its options wrong."""
    options = message.options
    if not options.get(UNIQUE_KEY):
        return None
    try:
        rules = _rules(options.get(UNIQUE), "")
    except UniqueRefused:
        return None
    return Unique(rules.until_started, rules.span_ms, is_retry, is_again)


def _rules(until: object, what: str) -> Unique:
    if until == UNTIL_STARTED:
        return Unique(until_started=True)
    if until == UNTIL_DONE:
        return Unique()
    span_s = until.total_seconds() if isinstance(until, timedelta) else until
    if isinstance(span_s, bool) or not isinstance(span_s, int | float) or not 0 < span_s <= MAX_SPAN_S:
        limit = f" of at most {MAX_SPAN_S}" if isinstance(span_s, int | float) and span_s > 0 else ""
        raise UniqueRefused(f"{what} is {until!r}: {_CHOICE}{limit}.")
    return Unique(span_ms=math.ceil(span_s * 1000))


def _names(by: object) -> list[str]:
    """The names of parameters; none when ``by`` is something else."""
    names = [by] if isinstance(by, str) else list(by) if isinstance(by, Iterable) else []
    return names if all(isinstance(name, str) and name for name in names) else []


def _made(by: Any, message: Message[Any], actor: Actor[Any, Any]) -> Any:
    whose = f"A message of {message.actor_name!r} was not sent"
    try:
        if callable(by):
            return by(*message.args, **message.kwargs)
        bound = inspect.signature(actor.fn).bind(*message.args, **message.kwargs)
        bound.apply_defaults()
        values = [bound.arguments[name] for name in _names(by)]
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)[1:-1]
    except Exception as e:
        raise UniqueRefused(f"{whose}: the actor's unique_by= failed on its arguments: {e!r}.") from e


def _partition_key(actor_name: str, key: str, whose: str) -> str:
    """The name of the lane of a unique key: readable if it is short enough."""
    text = f"unique:{actor_name}:{key}"
    try:
        encoded = text.encode()
    except UnicodeEncodeError as e:
        raise UniqueRefused(f"{whose}: its unique key is not text that UTF-8 can write: {e}.") from e
    return text if len(encoded) <= MAX_KEY_BYTES else f"unique:{hashlib.sha256(encoded).hexdigest()}"
