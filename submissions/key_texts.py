"""What people type about API keys, and what they read of one. Pure."""

import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from db.api_keys import ApiKey

DEFAULT_SCOPES = ("submit", "read")
_WINDOWS_S = {"s": 1, "m": 60, "h": 3600}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([smh])", re.ASCII)
_MAX_NAME = 200
#: Of an integer of RFC 9651, as the headers of a quota have it.
_MAX_DIGITS = 15
#: PostgreSQL stores no later time of a key.
_LAST_TIME = datetime(9999, 12, 30, tzinfo=UTC)


class BadKeyText(ValueError):
    """A text that is no name, rate, number or time. The text is one sentence."""


def name_of(text: str) -> str:
    """The name of a client."""
    name = text.strip()
    if not name.isprintable() or not 1 <= len(name) <= _MAX_NAME:
        raise BadKeyText(f"{text!r} is no name of 1 to {_MAX_NAME} printable characters")
    return name


def rate_of(text: str) -> tuple[int, int]:
    """The requests of a rate, and the seconds in which they are allowed."""
    if not (parts := _RATE.fullmatch(text)):
        raise BadKeyText(f"{text!r} is no rate such as 100/s, 600/m or 5000/h")
    return int(parts[1]), _WINDOWS_S[parts[2]]


def count_of(text: str) -> int:
    """A number from 1."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text)):
        raise BadKeyText(f"{text!r} is no number from 1 with up to {_MAX_DIGITS} digits")
    return int(text)


def time_of(text: str) -> datetime:
    """A moment to come, given as one or as a number of days."""
    if days := re.fullmatch(r"([1-9][0-9]{0,4})d", text, re.ASCII):
        return datetime.now(UTC) + timedelta(days=int(days[1]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadKeyText(f"{text!r} is no time such as 2027-01-31T12:00Z, or 90d") from error
    if moment.tzinfo is None:
        raise BadKeyText(f"{text!r} has no time zone; UTC is written 2027-01-31T12:00Z")
    if not datetime.now(UTC) < moment <= _LAST_TIME:
        raise BadKeyText(f"{text!r} is in the past, or after the year 9999")
    return moment


def state_of(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= datetime.now(UTC) else "valid"


def document_of(key: ApiKey, used: int | None) -> dict[str, Any]:
    """Everything about a key but its digest.

    Parameters:
      used: The ads that it handed in today; None without a quota.
    """
    document = {name: plain(value) for name, value in asdict(key).items() if name != "digest"}
    return {**document, "state": state_of(key), "used_today": used}


def plain(value: object) -> object:
    """The value of a document: a time is its text in UTC."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
