"""The ranges of a broker's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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
