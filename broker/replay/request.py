"""The parameters of a replay, and its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ..errors import ParameterRefused
from ..parameters import check_counts, check_moments, check_rate, check_texts

Ids = Literal["same", "new"]

#: The rate of a replay that names none. Most queues take as much beside their own messages.
DEFAULT_RATE_PER_S = 100.0


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """The parameters of a replay; see ``KafkaBroker.replay``.

    Raises:
      ParameterRefused: When one is out of its range.
    """

    queue_name: str
    actor: str | None
    since: datetime | None
    until: datetime | None
    dry_run: bool
    ids: Ids
    rate_per_s: float | None
    limit: int | None
    reason: str
    by: str

    def __post_init__(self) -> None:
        check_texts(actor=self.actor, reason=self.reason, by=self.by)
        check_moments(since=self.since, until=self.until)
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ParameterRefused(f"since={self.since} is not before until={self.until}")
        if self.ids not in ("same", "new"):
            raise ParameterRefused(f"ids={self.ids!r}: pass 'same' or 'new'")
        check_rate(self.rate_per_s)
        if self.limit is not None:
            check_counts(limit=self.limit)
        if not self.dry_run and not self.reason.strip():
            raise ParameterRefused("a replay needs reason=, which its record keeps")


@dataclass(slots=True)
class ReplayResult:
    """The result of a replay, or of its dry run.

    Attributes:
      id: The id of the replay, as its record and its messages have it.
      selected: The number of selected messages.
      to_send: The number of messages to send. Without a dry run it equals ``sent`` at the end.
      sent: The number of messages that were sent so far.
      sent_before: The number of selected messages that interrupted replays had sent already.
      actors: The number of selected messages by actor, without those that were sent before.
      first, last: The times of the first and the last of these messages' records; None without one.
      skipped: The number of skipped messages and records, by the reason.
      log_starts: The time before which some partition has no record of the range any more: retention or a
        flush has removed what was there. None when no record of the range was removed.
      interrupted: The ids of the interrupted replays of the queue. A replay that covers one ends it.
    """

    id: str
    queue_name: str
    ids: Ids
    dry_run: bool
    selected: int = 0
    to_send: int = 0
    sent: int = 0
    sent_before: int = 0
    actors: Counter[str] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    log_starts: datetime | None = None
    interrupted: tuple[str, ...] = ()


OnProgress = Callable[[ReplayResult], object]
