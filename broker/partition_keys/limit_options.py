"""The options ``key_concurrency`` and ``key_rate``: their checks, and the limits of a message."""

from __future__ import annotations

import dis
import re
from collections.abc import Mapping
from typing import Any

from dramatiq.actor import Actor
from dramatiq.message import Message

from ..errors import KeyLimitRefused
from .limits import Limit

CONCURRENCY, RATE = "key_concurrency", "key_rate"
MAX_CONCURRENCY = 256
#: All messages of a constant key are in one partition, so one process runs them, through one lane.
MAX_CONSTANT_CONCURRENCY = 16
MAX_RATE_COUNT = 1_000_000
_RATE = re.compile(r"([0-9]+)/([smhd])")
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def check_limits(actor: Actor[Any, Any], *, key: object, is_ordered: bool, is_unique: bool) -> None:
    """Check the options of an actor.

    Parameters:
      key: Its ``partition_key=``.

    Raises:
      KeyLimitRefused: When they cannot be.
    """
    whose = f"of actor {actor.actor_name!r}"
    limit = _limit(actor.options, whose)
    if limit.concurrency == 1:
        return
    _check_beside(limit, f"The key_concurrency= {whose}", is_ordered=is_ordered, is_unique=is_unique)
    if limit.concurrency > MAX_CONSTANT_CONCURRENCY and is_constant(key):
        raise KeyLimitRefused(
            f"The key_concurrency= {whose} is {limit.concurrency}, and its partition_key= is the same for "
            f"all messages: one process runs all of them, {MAX_CONSTANT_CONCURRENCY} at once at most; divide "
            "the messages into several keys."
        )


def set_limits(message: Message[Any], actor: Actor[Any, Any] | None, *, is_ordered: bool) -> None:
    """Set the options of a message that is about to be sent. It has a partition key.

    Raises:
      KeyLimitRefused: When an option of the message cannot be.
    """
    declared: Mapping[str, Any] = {} if actor is None else actor.options
    options = message.options
    for name in (CONCURRENCY, RATE):
        if name not in options and declared.get(name) is not None:
            options[name] = declared[name]
        if options.get(name) is None:
            options.pop(name, None)
    whose = f"of a message of {message.actor_name!r}"
    limit = _limit(options, whose)
    is_unique = bool(options.get("unique_key"))
    _check_beside(limit, f"The key_concurrency= {whose}", is_ordered=is_ordered, is_unique=is_unique)


def limit_of(message: Message[Any]) -> Limit | None:
    """The limits of a message; None without any, or when another producer has set its options wrong."""
    if CONCURRENCY not in message.options and RATE not in message.options:
        return None
    try:
        return _limit(message.options, "")
    except KeyLimitRefused:
        return None


def is_constant(key: object) -> bool:
    """Whether a ``partition_key=`` is the same for all messages: a text, or a function of one constant."""
    if isinstance(key, str):
        return True
    code = getattr(key, "__code__", None)
    if code is None:
        return False
    loads = {i.opname for i in dis.get_instructions(code) if i.opname.startswith("LOAD_")}
    return loads <= {"LOAD_CONST"}


def _check_beside(limit: Limit, what: str, *, is_ordered: bool, is_unique: bool) -> None:
    if limit.concurrency == 1:
        return
    if is_ordered:
        raise KeyLimitRefused(
            f"{what} is {limit.concurrency} beside key_order='ordered', which runs one message after another."
        )
    if is_unique:
        raise KeyLimitRefused(
            f"{what} is {limit.concurrency} beside a unique key, of which one message runs at a time."
        )


def _limit(options: Mapping[str, Any], whose: str) -> Limit:
    concurrency, rate = options.get(CONCURRENCY), options.get(RATE)
    is_number = isinstance(concurrency, int) and not isinstance(concurrency, bool)
    if concurrency is not None and not (is_number and 1 <= concurrency <= MAX_CONCURRENCY):
        raise KeyLimitRefused(
            f"The key_concurrency= {whose} is {concurrency!r}: pass a whole number from 1 to "
            f"{MAX_CONCURRENCY}."
        )
    return Limit(concurrency or 1, 0.0 if rate is None else _interval_ms(rate, whose))


def _interval_ms(rate: object, whose: str) -> float:
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found is None or not 0 < int(found[1]) <= MAX_RATE_COUNT:
        raise KeyLimitRefused(
            f"The key_rate= {whose} is {rate!r}: pass a text such as '100/m', a number from 1 to "
            f"{MAX_RATE_COUNT} and one of s, m, h and d."
        )
    return _UNITS_MS[found[2]] / int(found[1])
