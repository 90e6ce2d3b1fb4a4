"""Signed session cookies, and the limit of log-in attempts."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass

from ...process import clock

COOKIE = "dkb_session"
LIFETIME_S = 12 * 3_600
#: Failed attempts within the window, after which further ones are refused.
MAX_FAILURES = 5
FAILURE_WINDOW_S = 60.0
#: The least recently used entries beyond it are forgotten.
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A session that a cookie proves.

    Attributes:
      id: 16 hex digits.
      user: The user's name.
      ends_s: When it ends, in seconds since 1970.
    """

    id: str
    user: str
    ends_s: int


class Sessions:
    """Makes and checks the values of cookies.

    Parameters:
      key: The secret key. A new one ends all sessions.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ended: OrderedDict[str, None] = OrderedDict()

    def begin(self, user: str) -> str:
        """The cookie of a new session."""
        fields = [secrets.token_hex(8), user, clock.wall_ms() // 1000 + LIFETIME_S]
        body = base64.urlsafe_b64encode(json.dumps(fields).encode())
        return f"{body.decode()}.{self._sign(body)}"

    def read(self, cookie: str | None) -> BrowserSession | None:
        """The session of a cookie; None unless it is signed, has not expired and was not ended."""
        body, dot, signature = (cookie or "").partition(".")
        if not dot or not hmac.compare_digest(self._sign(body.encode()).encode(), signature.encode()):
            return None
        try:
            id_, user, ends_s = json.loads(base64.urlsafe_b64decode(body))
        except (ValueError, binascii.Error):
            return None
        if ends_s < clock.wall_ms() / 1000 or id_ in self._ended:
            return None
        return BrowserSession(id_, user, ends_s)

    def end(self, session: BrowserSession) -> None:
        """Refuse a session from now on."""
        self._ended[session.id] = None
        if len(self._ended) > MAX_REMEMBERED:
            self._ended.popitem(last=False)

    def _sign(self, body: bytes) -> str:
        return hmac.new(self._key, body, hashlib.sha256).hexdigest()


class Attempts:
    """Counts failed log-ins, by address and by user."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, *names: str) -> float:
        """The seconds until the next attempt of these names is allowed; 0 when it is now."""
        return max(self._wait_s(name) for name in names)

    def _wait_s(self, name: str) -> float:
        failures = self._failures.get(name)
        if failures is None:
            return 0.0
        now_s = clock.monotonic_s()
        while failures and failures[0] <= now_s - FAILURE_WINDOW_S:
            failures.popleft()
        return failures[0] + FAILURE_WINDOW_S - now_s if len(failures) >= MAX_FAILURES else 0.0

    def note_failure(self, *names: str) -> None:
        for name in names:
            failures = self._failures.setdefault(name, deque(maxlen=MAX_FAILURES))
            failures.append(clock.monotonic_s())
            self._failures.move_to_end(name)
            if len(self._failures) > MAX_REMEMBERED:
                self._failures.popitem(last=False)

    def forget(self, *names: str) -> None:
        for name in names:
            self._failures.pop(name, None)
