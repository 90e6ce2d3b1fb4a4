"""The times of a schedule: a cron expression in a time zone, or an interval.

Pure: no I/O, no clock. Times are milliseconds since 1970 in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from typing import Any, Literal, get_args
from zlib import crc32
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ..errors import ScheduleRefused

Missed = Literal["skip", "last", "all"]

#: With ``missed="skip"``, an occurrence that is later than this does not run.
SKIP_LATE_S = 60.0
#: The most occurrences that ``missed="all"`` runs after an absence: two weeks of minutes are no flood.
MAX_MISSED = 1_000
DEFAULT_MISSED = 10
MIN_INTERVAL_S = 1.0
MAX_INTERVAL_S = 10 * 365 * 24 * 3600.0
MAX_JITTER_S = 24 * 3600.0
#: No zone shifts its clocks by more at once.
MAX_SHIFT_S = 24 * 3600
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of a wall clock
#: The whole field, or all of its steps: the library takes such hours or minutes for an interval.
_WILDCARD = re.compile(r"\*(/\d+)?")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The options that cron expressions and intervals have in common; see ``docs/schedules.md``.

    Attributes:
      jitter_s: Each occurrence is due up to so many seconds later, by a pseudo-random number that its name
        and time determine.
      missed: The occurrences that run when several are overdue, because no worker ran, for example:
        ``"last"`` the latest one, ``"skip"`` the latest one unless it is more than a minute late, ``"all"``
        each of the latest ``max_missed``.
      max_late_s: An occurrence that is later than this does not run; by default a minute for ``"skip"``, and
        no limit otherwise.
      version: Of the declaration in code. A worker does not replace a declaration of a higher version.
    """

    jitter_s: float = 0.0
    missed: Missed = "last"
    max_missed: int = DEFAULT_MISSED
    max_late_s: float | None = None
    version: int = 1

    def _check_options(self) -> None:
        if not _is_between(self.jitter_s, 0.0, MAX_JITTER_S):
            raise ScheduleRefused(f"jitter_s={self.jitter_s!r}: pass 0 to {MAX_JITTER_S:.0f} seconds")
        if self.missed not in get_args(Missed):
            raise ScheduleRefused(f"missed={self.missed!r}: the policies are {', '.join(get_args(Missed))}")
        if type(self.max_missed) is not int or not 1 <= self.max_missed <= MAX_MISSED:
            raise ScheduleRefused(f"max_missed={self.max_missed!r}: pass a whole number of 1 to {MAX_MISSED}")
        if self.max_late_s is not None and not _is_between(self.max_late_s, 0.0, MAX_INTERVAL_S):
            raise ScheduleRefused(f"max_late_s={self.max_late_s!r}: pass seconds, 0 or more, or None")
        if type(self.version) is not int or self.version < 0:
            raise ScheduleRefused(f"version={self.version!r}: pass a whole number, 0 or more")

    def after(self, time_ms: int) -> Iterator[int]:
        """The occurrences after a time, ascending."""
        raise NotImplementedError

    def before(self, time_ms: int) -> Iterator[int]:
        """The occurrences up to a time, that included, descending."""
        raise NotImplementedError

    @property
    def min_gap_ms(self) -> int:
        """No two occurrences are closer."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """The fields that define the times."""
        raise NotImplementedError

    def options_to_json(self) -> dict[str, Any]:
        """The other fields."""
        return {
            "jitter_s": self.jitter_s,
            "missed": self.missed,
            "max_missed": self.max_missed,
            "max_late_s": self.max_late_s,
            "version": self.version,
        }

    def next_after(self, time_ms: int) -> int | None:
        """The first occurrence after a time; None without one."""
        return next(self.after(time_ms), None)

    def due_ms(self, name: str, occurrence_ms: int) -> int:
        """The time at which an occurrence is due: its time and its jitter."""
        if not self.jitter_s:
            return occurrence_ms
        return occurrence_ms + crc32(f"{name}:{occurrence_ms}".encode()) % int(1000 * self.jitter_s + 1)

    def select(self, name: str, first_ms: int, now_ms: int) -> tuple[list[int], int]:
        """The occurrences to run, of those that are due.

        Parameters:
          first_ms: The first occurrence that has not run; it is due.

        Returns:
          The occurrences, ascending, and the latest one that is decided: it and all earlier ones need nothing
          more once these have run.
        """
        if now_ms < first_ms + self.min_gap_ms:  # the usual case: the next one is not due yet
            return [o for o in (first_ms,) if self.in_time(name, o, now_ms=now_ms)], first_ms
        upto = takewhile(lambda occurrence_ms: occurrence_ms >= first_ms, self.before(now_ms))
        # With a jitter, the latest ones may not be due yet.
        limit = self.max_missed if self.missed == "all" else 1
        due = list(islice((o for o in upto if self.due_ms(name, o) <= now_ms), limit)) or [first_ms]
        return [o for o in reversed(due) if self.in_time(name, o, now_ms=now_ms)], due[0]

    def in_time(self, name: str, occurrence_ms: int, *, now_ms: int) -> bool:
        """Whether an occurrence is not too late to run."""
        late_s = SKIP_LATE_S if self.missed == "skip" and self.max_late_s is None else self.max_late_s
        return late_s is None or now_ms - self.due_ms(name, occurrence_ms) <= 1000 * late_s


@dataclass(frozen=True)
class Cron(Timing):
    """Occurrences at the times of a cron expression, on the clocks of a time zone.

    ``@dramatiq.actor(schedule=Cron("0 9 * * MON-FRI", zone="Europe/Berlin"))``. A wall-clock time that
    daylight saving skips occurs at the first instant after the gap, and one that it repeats occurs once. An
    expression whose hours are ``*`` or ``*/n`` is an interval, which daylight saving does not change.

    Attributes:
      expression: Minute, hour, day of the month, month and day of the week, with the features of Debian's
        cron, ``L`` for a month's last day, and ``MON#2`` and ``5L`` for a second Monday and a last Friday.
      zone: An IANA time zone.

    Raises:
      ScheduleRefused: When the expression has another form or no occurrence within 50 years, when the zone is
        unknown, or when an option is out of its range.
    """

    expression: str
    zone: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _parsed: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_options()
        object.__setattr__(self, "_zone", _zone_of(self.zone))
        object.__setattr__(self, "_parsed", _checked(self.expression))

    @property
    def min_gap_ms(self) -> int:
        return 60_000

    @property
    def is_interval(self) -> bool:
        """Whether daylight saving does not change the distance of two occurrences: no hour is named."""
        return self.expression.split()[1].startswith("*")

    def after(self, time_ms: int) -> Iterator[int]:
        return self._iterate(time_ms, reverse=False)

    def before(self, time_ms: int) -> Iterator[int]:
        return self._iterate(time_ms, reverse=True)

    def _iterate(self, time_ms: int, *, reverse: bool) -> Iterator[int]:
        # The library begins beside the second that it is given.
        instants = self._interval if self.is_interval else self._wall_clock
        last_s: int | None = None
        for found_s in instants(time_ms // 1000 + reverse, reverse=reverse):
            if found_s != last_s and (1000 * found_s <= time_ms if reverse else 1000 * found_s > time_ms):
                yield 1000 * found_s
            last_s = found_s

    def _wall_clock(self, from_s: int, *, reverse: bool) -> Iterator[int]:
        """The instants of wall-clock times. The library maps the skipped and the repeated ones."""
        start = datetime.fromtimestamp(from_s, self._zone)
        if reverse and start.fold:  # the earlier one of the repeated hours shows later times
            start = start.replace(fold=0) + timedelta(
                seconds=self._offset_s(from_s - MAX_SHIFT_S) - self._offset_s(from_s)
            )
        for found in CronSim(self._parsed, start, reverse=reverse):
            yield int(found.timestamp())

    def _interval(self, from_s: int, *, reverse: bool) -> Iterator[int]:
        """The instants at which the wall clock shows a time of the expression.

        The library misses some after a shift by half an hour, so it works on one offset from UTC at a time.
        """
        while True:
            offset_s = self._offset_s(from_s)
            found_s = None
            for found in CronSim(
                self._parsed, _EPOCH + timedelta(seconds=from_s + offset_s), reverse=reverse
            ):
                found_s = int((found - _EPOCH).total_seconds()) - offset_s
                if self._offset_s(found_s) != offset_s:
                    break
                yield found_s
                from_s = found_s
            else:
                return
            # The first second with another offset. A match there is beside the next begin.
            near_s, far_s = from_s, found_s
            while abs(far_s - near_s) > 1:
                middle_s = (near_s + far_s) // 2
                if self._offset_s(middle_s) == offset_s:
                    near_s = middle_s
                else:
                    far_s = middle_s
            from_s = far_s
            if self._matches(from_s):
                yield from_s

    def _matches(self, instant_s: int) -> bool:
        """Whether the wall clock shows a time of the expression at an instant."""
        shown = _EPOCH + timedelta(seconds=instant_s + self._offset_s(instant_s))
        return next(CronSim(self._parsed, shown - timedelta(seconds=1)), None) == shown

    def _offset_s(self, instant_s: int) -> int:
        offset = datetime.fromtimestamp(instant_s, self._zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    def to_json(self) -> dict[str, Any]:
        return {"cron": self.expression, "zone": self.zone}

    def __str__(self) -> str:
        return f"{self.expression} {self.zone}"


@dataclass(frozen=True, kw_only=True)
class Every(Timing):
    """Occurrences at whole multiples of an interval since 1970 in UTC, whatever the clocks on the wall show.

    ``Every(minutes=5, jitter_s=30)`` is due at :00, :05, :10... of each hour, up to 30 s later.

    Raises:
      ScheduleRefused: When the interval is not between a second and ten years, or an option is out of its
        range.
    """

    days: float = 0
    hours: float = 0
    minutes: float = 0
    seconds: float = 0

    def __post_init__(self) -> None:
        self._check_options()
        parts = (self.days, self.hours, self.minutes, self.seconds)
        if not all(_is_between(part, 0.0, MAX_INTERVAL_S) for part in parts):
            raise ScheduleRefused(f"{self!r}: the parts of an interval are numbers, 0 or more")
        if not MIN_INTERVAL_S <= self.interval_ms / 1000 <= MAX_INTERVAL_S:
            raise ScheduleRefused(
                f"An interval of {self.interval_ms / 1000:g} s is refused: pass at least "
                f"{MIN_INTERVAL_S:g} s, and at most ten years."
            )
        if 1000 * self.jitter_s >= self.interval_ms:
            raise ScheduleRefused(
                f"jitter_s={self.jitter_s:g} is not below the interval of {self.interval_ms / 1000:g} s, so "
                "one occurrence would be due after the next one."
            )

    @property
    def min_gap_ms(self) -> int:
        return self.interval_ms

    @property
    def interval_ms(self) -> int:
        """The interval in milliseconds."""
        seconds = self.days * 86_400 + self.hours * 3_600 + self.minutes * 60 + self.seconds
        return round(1000 * seconds)

    def after(self, time_ms: int) -> Iterator[int]:
        occurrence_ms = time_ms // self.interval_ms * self.interval_ms
        while True:
            occurrence_ms += self.interval_ms
            yield occurrence_ms

    def before(self, time_ms: int) -> Iterator[int]:
        occurrence_ms = time_ms // self.interval_ms * self.interval_ms
        while True:
            yield occurrence_ms
            occurrence_ms -= self.interval_ms

    def to_json(self) -> dict[str, Any]:
        return {"every_ms": self.interval_ms}

    def __str__(self) -> str:
        return f"every {timedelta(milliseconds=self.interval_ms)}"


def from_json(fields: dict[str, Any]) -> Timing:
    """The timing that ``to_json`` and ``options_to_json`` have written.

    Raises:
      KeyError, TypeError, ScheduleRefused: When it is none.
    """
    options = {
        name: fields[name]
        for name in ("jitter_s", "missed", "max_missed", "max_late_s", "version")
        if name in fields
    }
    if "cron" in fields:
        return Cron(fields["cron"], fields["zone"], **options)
    return Every(seconds=fields["every_ms"] / 1000, **options)


@lru_cache(maxsize=4_096)
def _checked(expression: object) -> str:
    """The expression as the library gets it.

    The library follows Debian's cron: a wildcard in the minutes makes an interval of the expression, even
    when it names hours. It would then skip them, or run them twice, where daylight saving changes.
    """
    fields = expression.split() if isinstance(expression, str) else []
    if len(fields) != 5:
        raise ScheduleRefused(
            f"The cron expression {expression!r} does not have the five fields minute, hour, day of the "
            "month, month and day of the week. For seconds, use Every(seconds=...)."
        )
    if _WILDCARD.fullmatch(fields[0]) and not fields[1].startswith("*"):
        fields[0] = "0-59" + fields[0][1:]
    parsed = " ".join(fields)
    try:
        first = next(CronSim(parsed, datetime(2024, 1, 1, tzinfo=UTC)), None)
    except CronSimError as e:
        raise ScheduleRefused(f"The cron expression {expression!r} is refused: {e}.") from e
    if first is None:
        raise ScheduleRefused(f"The cron expression {expression!r} has no occurrence in 50 years.")
    return parsed


def _zone_of(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError, TypeError, AttributeError) as e:
        raise ScheduleRefused(
            f"There is no time zone {name!r} here. Pass a name of the IANA database, as 'Europe/Berlin'; "
            "on a system without that database, install the package tzdata."
        ) from e


def _is_between(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
