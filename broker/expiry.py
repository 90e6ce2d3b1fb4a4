"""The expiry of messages: the time from which on a message does not run any more.

The option ``expires_at`` of a message is a time in milliseconds since 1970, or None for never. It is set when
the message is sent, by the sender's clock, and stays the same through delays and retries. The clock of the
worker decides whether that time has come, when the message is about to run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from .errors import ExpiryRefused
from .process import clock

logger = logging.getLogger(__name__)

#: The option of a message: an instant.
EXPIRES_AT = "expires_at"
#: The option of an actor, or of a message that is sent: a time span.
EXPIRES_IN = "expires_in"


def check_expires_in(span: object, whose: str) -> None:
    """Check a time span.

    Parameters:
      whose: Names it in the error.

    Raises:
      ExpiryRefused: When it is not a positive number of milliseconds, nor a positive timedelta, nor None.
    """
    if span is not None:
        _in_ms(span, whose)


def set_expiry(message: Message[Any], delay: float | None, actor_options: Mapping[str, Any]) -> None:
    """Set the option ``expires_at`` of a message that is about to be sent.

    A message that was sent before keeps its own: its retry expires at the same time.

    Parameters:
      delay: The delay of the message in milliseconds. A time span begins when it is over.

    Raises:
      ExpiryRefused: When an option of the message is no time span or no instant, or both are given.
    """
    if isinstance(message, MessageProxy):
        return
    options = message.options
    name = message.actor_name
    if EXPIRES_IN in options:
        if options.get(EXPIRES_AT) is not None:
            raise ExpiryRefused(
                f"A message of {name!r} was not sent: it has expires_in= and expires_at=; pass one of them."
            )
        span = options.pop(EXPIRES_IN)
        options[EXPIRES_AT] = _after(span, delay, f"expires_in= of a message of {name!r}")
    elif EXPIRES_AT in options:
        options[EXPIRES_AT] = _instant_ms(options[EXPIRES_AT], f"expires_at= of a message of {name!r}")
    elif (span := actor_options.get(EXPIRES_IN)) is not None:
        options[EXPIRES_AT] = _after(span, delay, f"expires_in= of the actor {name!r}")


def is_expired(options: Mapping[str, Any]) -> bool:
    """Whether a message with these options does not run any more, by this process's clock.

    Another producer may have set the option to a value that is no time: such a message does not expire.
    """
    expires_at_ms = options.get(EXPIRES_AT)
    if expires_at_ms is None:
        return False
    if not _is_number(expires_at_ms):
        logger.warning("The option expires_at of a message is %r, no time, and is ignored.", expires_at_ms)
        return False
    return bool(clock.wall_ms() >= expires_at_ms)


def shown_expiry(options: Mapping[str, Any]) -> str:
    """The expiry of a message for a text: in UTC, or as the number that it is."""
    try:
        return datetime.fromtimestamp(options[EXPIRES_AT] / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):  # a number of another producer that no calendar has
        return str(options[EXPIRES_AT])


def renewed_expiry(options: Mapping[str, Any], sent_ms: object) -> int | None:
    """The expiry of a message that is sent again now: as long after now as it was after the first send.

    Parameters:
      sent_ms: The ``message_timestamp`` of the earlier send.

    Returns:
      Milliseconds since 1970; None when the message does not expire, or had expired when it was sent.
    """
    expires_at_ms = options.get(EXPIRES_AT)
    if not _is_number(expires_at_ms) or not _is_number(sent_ms):
        return None
    span_ms = expires_at_ms - sent_ms
    return clock.wall_ms() + math.ceil(span_ms) if 0 < span_ms < math.inf else None


def _after(span: object, delay: float | None, whose: str) -> int | None:
    """The instant at which a time span ends that begins when a message is due."""
    if span is None:
        return None
    # A delay that is no number is refused, with a better text, when the record is made.
    delay_ms = max(0, math.ceil(delay)) if _is_number(delay) and math.isfinite(delay) else 0
    return clock.wall_ms() + delay_ms + _in_ms(span, whose)


def _in_ms(span: object, whose: str) -> int:
    span_ms = span / timedelta(milliseconds=1) if isinstance(span, timedelta) else span
    if not _is_number(span_ms) or not 0 < span_ms < math.inf:
        raise ExpiryRefused(
            f"{whose} is {span!r}: pass a positive number of milliseconds, a positive timedelta, or None."
        )
    return math.ceil(span_ms)


def _instant_ms(instant: object, whose: str) -> int | None:
    if instant is None:
        return None
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise ExpiryRefused(f"{whose} is {instant!r}, which has no time zone.")
        return math.ceil(instant.timestamp() * 1000)
    if not _is_number(instant) or not math.isfinite(instant):
        raise ExpiryRefused(
            f"{whose} is {instant!r}: pass a datetime with a time zone, milliseconds since 1970, or None."
        )
    return math.ceil(instant)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
