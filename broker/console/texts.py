"""Numbers, times and ages as a person reads them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

#: A cell without a value.
NONE = "-"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


class BadText(ValueError):
    """A text of the command line is not of the form that its option has. The text is one sentence."""


def number(value: int | None) -> str:
    """``1234567`` as ``1,234,567``."""
    return NONE if value is None else f"{value:,}"


def rate(value: float | None) -> str:
    """A rate per second."""
    if value is None:
        return NONE
    if value >= 10 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.3f}"


def age(seconds: float | None) -> str:
    """A duration: ``0.4s``, ``12s``, ``3m05s``, ``2h07m``, ``3d04h``."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    for index, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            smaller, name = (*_UNITS, (1, "s"))[index + 1]
            return f"{whole // size}{unit}{whole % size // smaller:02d}{name}"
    raise AssertionError("a minute is the smallest unit")


def short(seconds: float | None) -> str:
    """The duration of a run: ``850us``, ``12ms``, ``1.2s``, then as :func:`age`."""
    if seconds is None or seconds >= 10:
        return age(seconds)
    if seconds >= 1:
        return f"{seconds:.1f}s"
    return f"{seconds * 1000:.0f}ms" if seconds >= 0.001 else f"{seconds * 1_000_000:.0f}us"


def moment(at_ms: int | None) -> str:
    """A time in UTC: ``2026-11-28 16:45:40.123Z``."""
    if not at_ms or at_ms < 0:
        return NONE
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def size(count: int | None) -> str:
    """Bytes in MiB."""
    return NONE if count is None else f"{count / 1024 / 1024:,.0f}M"


def yes(value: bool | None) -> str:
    return NONE if value is None else "yes" if value else "no"


def line(text: str | None) -> str:
    """A text on one line."""
    return " ".join((text or "").split()) or NONE


#: Control characters, and those that change the direction of a text or cannot be encoded.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, *, lines: bool = False) -> str:
    """A text of an application without characters that a terminal obeys: those are shown as ``\\x1b``.

    Parameters:
      lines: Whether line ends and tabs stay.
    """
    shown = _UNPRINTABLE.sub(lambda found: _escaped(found[0]), text)
    return shown if lines else shown.replace("\n", "\\n").replace("\t", "\\t")


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def plural(count: int, noun: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def parse_duration(text: str) -> timedelta:
    """``90``, ``90s``, ``15m``, ``2h`` or ``7d``.

    Raises:
      BadText: When it is something else.
    """
    unit = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}.get(text[-1:])
    digits = text[:-1] if unit else text
    if not digits.replace(".", "", 1).isdecimal():
        raise BadText(f"{text!r} is no duration: write 90s, 15m, 2h or 7d")
    try:
        return timedelta(seconds=float(digits) * (unit or 1))
    except OverflowError:
        raise BadText(f"{text!r} is too long") from None


def parse_end(text: str, begin: datetime) -> datetime:
    """The time at which a duration ends.

    Raises:
      BadText: When the text is no duration, or it ends beyond the calendar.
    """
    try:
        return begin + parse_duration(text)
    except OverflowError:
        raise BadText(f"{text!r} ends after the year 9999") from None


def parse_moment(text: str, now: datetime) -> datetime:
    """A duration before ``now``, as in ``--since 2h``, or a time of ISO 8601, in UTC unless it has a zone.

    Raises:
      BadText: When it is something else.
    """
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    except OverflowError:
        raise BadText(f"{text!r} is before the year 1") from None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadText(f"{text!r} is no time: write 2h for two hours ago, or 2026-11-28T16:00+00:00") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
