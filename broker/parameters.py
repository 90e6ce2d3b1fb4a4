"""The ranges of a broker's numbers, and the types of an operator's parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, TypeGuard

from .errors import ParameterRefused


class Range(NamedTuple):
    """The least value of a parameter, other values that mean something, and a reason for the limit."""

    least: int
    beside: tuple[int, ...]
    reason: str


RANGES: Mapping[str, Range] = {
    "partitions": Range(1, (), "a topic has at least one partition"),
    "replication_factor": Range(1, (), "a partition has at least one copy"),
    "retention_ms": Range(1, (-1,), "Kafka deletes what waits for longer, and -1 is for ever"),
    "commit_interval_ms": Range(1, (), "it is the pause between two commits"),
    "enqueue_timeout_ms": Range(1, (), "Kafka needs time to answer"),
    "session_timeout_ms": Range(3, (), "a worker sends three heartbeats in that time"),
    "history_per_s": Range(0, (-1,), "it is a number of runs, and -1 is for no history"),
    "max_crashes": Range(3, (), "only the third crash proves which message kills its worker"),
}


def check_ranges(**values: int | None) -> None:
    """Check the numbers of a broker against RANGES. None is a default.

    Raises:
      ParameterRefused: When some are out of their range; it names all of them.
    """
    wrong = []
    for name, value in values.items():
        least, beside, reason = RANGES[name]
        if value is not None and value not in beside and value < least:
            allowed = " or ".join([f"at least {least}", *map(str, beside)])
            wrong.append(f"{name} is {value}; it has to be {allowed}: {reason}")
    if wrong:
        raise ParameterRefused(". ".join(wrong))


#: The texts for which callers pass something else, and what is meant.
_MEANT = {
    "actor": "the name of the actor, as actor.actor_name",
    "error_type": 'the name of the error\'s class, as "ValueError"',
}


def check_names(**values: object) -> None:
    """Check texts that must be there.

    Raises:
      ParameterRefused: When one is no text. It names the first.
    """
    for name, value in values.items():
        if not isinstance(value, str):
            raise _refused(name, value, _MEANT.get(name, "a text"))


def check_texts(**values: object) -> None:
    """Check texts. None is a default, and a text may be blank.

    Raises:
      ParameterRefused: When one is no text. It names the first.
    """
    check_names(**{name: value for name, value in values.items() if value is not None})


def check_moments(**values: object) -> None:
    """Check times. None is a default.

    Raises:
      ParameterRefused: When one is no datetime, or has no time zone. It names the first.
    """
    for name, value in values.items():
        if value is None:
            continue
        if not isinstance(value, datetime):
            raise _refused(name, value, "a datetime with a time zone, as datetime.now(UTC) - ...")
        if value.utcoffset() is None:
            raise ParameterRefused(
                f"{name}={value!r} has no time zone: pass an aware datetime, as datetime.now(UTC) - ..."
            )


def check_seconds(**values: object) -> None:
    """Check durations in seconds: numbers from 0, or infinity.

    Raises:
      ParameterRefused: When one is something else. It names the first.
    """
    for name, value in values.items():
        if not _is_number(value):
            raise _refused(name, value, "a number of seconds")
        if math.isnan(value) or value < 0:
            raise ParameterRefused(f"{name}={value}: a number of seconds is at least 0")


def check_rate(rate_per_s: object) -> None:
    """Check a number of messages per second. None is no limit.

    Raises:
      ParameterRefused: When it is not positive and finite.
    """
    if rate_per_s is None:
        return
    if not _is_number(rate_per_s) or not 0 < rate_per_s < math.inf:
        raise ParameterRefused(f"rate_per_s={rate_per_s!r}: pass a positive number, or None for no limit")


def check_counts(least: int = 1, **values: object) -> None:
    """Check whole numbers.

    Parameters:
      least: The least of their values.

    Raises:
      ParameterRefused: When one is something else. It names the first.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise _refused(name, value, "a whole number")
        if value < least:
            raise ParameterRefused(f"{name}={value}: it is at least {least}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(name: str, value: object, meant: str) -> ParameterRefused:
    return ParameterRefused(f"{name}={repr(value)[:200]} is of the type {type(value).__name__}: pass {meant}")
