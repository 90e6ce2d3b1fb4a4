"""The limits of a partition key: how many of its messages run at once, and how far apart they begin. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

#: The header of a record whose message has limits.
HEADER = "key-limit"
#: A run may begin so much before its place in the rate, in ms: a late step must not lower the rate. In any
#: period, a rate is exceeded by the runs of this time at most.
EARLY_MS = 100
#: From this interval on the end of the pace is written to the lanes topic before a run. A shorter one is
#: waited for after a takeover instead.
WRITTEN_FROM_MS = 1_000


@dataclass(frozen=True, slots=True)
class Limit:
    """The limits of one message.

    Attributes:
      concurrency: The number of messages of the key that run at once.
      interval_ms: The time between the beginnings of two runs; 0 for no rate.
    """

    concurrency: int = 1
    interval_ms: float = 0.0

    @property
    def header(self) -> tuple[str, bytes]:
        return HEADER, f"{self.concurrency} {self.interval_ms!r}".encode()

    @property
    def is_written(self) -> bool:
        """Whether the pace is in the lanes topic before a run begins."""
        return self.interval_ms >= WRITTEN_FROM_MS


NO_LIMIT = Limit()


def read_limit(headers: object) -> Limit:
    """The limits of a record's message: one at a time where it names none, or another program wrote it."""
    for name, content in headers or ():  # type: ignore[attr-defined]
        if name == HEADER:
            try:
                concurrency, interval_ms = (content or b"").split(b" ")
                limit = Limit(int(concurrency), float(interval_ms))
            except ValueError:
                return NO_LIMIT
            return limit if limit.concurrency >= 1 and 0 <= limit.interval_ms < float("inf") else NO_LIMIT
    return NO_LIMIT


@dataclass(slots=True, eq=False)
class Pace:
    """The rate of a key so far.

    Attributes:
      next_ms: The time at which the next run has its place, in milliseconds since 1970.
      interval_ms: The interval that led to it.
      kept_in: The partition of the lanes topic that has its record; None when there is none.
      begun_ms: The time at which the last run began here; 0 for none.
    """

    next_ms: float
    interval_ms: float = 0.0
    kept_in: int | None = None
    begun_ms: int = 0

    def encode(self) -> bytes:
        return json.dumps({"next_ms": self.next_ms, "interval_ms": self.interval_ms}).encode()


def decode_pace(value: bytes, kept_in: int | None) -> Pace:
    """The pace of a record of the lanes topic.

    Raises:
      ValueError: When the value is damaged, or of a later version.
    """
    try:
        fields = json.loads(value)
        return Pace(float(fields["next_ms"]), float(fields["interval_ms"]), kept_in)
    except (KeyError, TypeError) as e:
        raise ValueError(f"not a pace: {e!r}") from e
