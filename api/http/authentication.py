"""The API keys of requests: ``Authorization: Bearer mod_...``, as in RFC 6750.

A key in a URL is not read: URLs are in logs and histories.
"""

import hashlib
import re
from http import HTTPStatus

from sanic.compat import Header
from sanic.exceptions import SanicException

from api.services.key_ring import KeyRing, KnownKey
from api.services.rate_limits import Limit, Rates
from submissions.callers import ANYBODY, Caller, Scope, parse_key

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE | re.ASCII)
_REALM = 'Bearer realm="moderation"'
_HOW = 'send the header "Authorization: Bearer mod_..."; keys in URLs are not read'


class Unauthorized(SanicException):
    """The request has no valid key."""

    status_code = HTTPStatus.UNAUTHORIZED
    quiet = True

    def __init__(self, message: str, *, error: str = "") -> None:
        challenge = f'{_REALM}, error="{error}"' if error else _REALM
        super().__init__(message, headers={"www-authenticate": challenge})


class Forbidden(SanicException):
    """The key is valid and has not the scope."""

    status_code = HTTPStatus.FORBIDDEN
    quiet = True

    def __init__(self, scope: Scope) -> None:
        challenge = f'{_REALM}, error="insufficient_scope", scope="{scope}"'
        super().__init__(f"The API key lacks the scope {scope}", headers={"www-authenticate": challenge})


class Access:
    """Decides who may do what. For one event loop.

    Parameters:
      is_required: Whether a request needs a key. A key that is given is checked in any case.
    """

    def __init__(self, key_ring: KeyRing, *, is_required: bool) -> None:
        self._key_ring = key_ring
        self._is_required = is_required
        self._rates = Rates()

    async def caller(self, headers: Header, scope: Scope) -> tuple[Caller, Limit | None]:
        """Return the caller of a request, and the state of its rate.

        Raises:
          Unauthorized, Forbidden: It may not.
          LimitExceeded: Its key makes too many requests.
          DatabaseUnavailable: PostgreSQL does not tell which keys are valid.
        """
        given = headers.getall("authorization", ())
        if not given and not self._is_required:
            return ANYBODY, None
        if len(given) == 1:
            digest = hashlib.sha256(given[0].encode("utf-8", "surrogateescape")).digest()
            known = self._key_ring.checked(digest) or await self._checked(given[0], digest)
            if known is None:
                return ANYBODY, None
            if scope not in known.caller.scopes:
                raise Forbidden(scope)
            return known.caller, self._rates.take(known.key)
        if given:
            raise Unauthorized("Authorization is given more than once", error="invalid_request")
        raise Unauthorized(f"An API key is needed: {_HOW}")

    async def _checked(self, header: str, digest: bytes) -> KnownKey | None:
        """Return the key of a header; None for one of another scheme, where keys are off.

        Raises:
          Unauthorized: The request has no key, or one that is not valid.
          DatabaseUnavailable: As :meth:`KeyRing.find`.
        """
        header = header.strip()
        bearer = _BEARER.fullmatch(header)
        if bearer is None:
            if self._is_required or header[:6].lower() == "bearer":
                raise Unauthorized(f"An API key is needed: {_HOW}")
            return None
        presented = parse_key(bearer[1])
        known = None if presented is None else await self._key_ring.find(presented)
        if known is None:
            raise Unauthorized(f"The API key is not known: {_HOW}", error="invalid_token")
        if known.key.revoked_at is not None:
            raise Unauthorized("The API key was revoked", error="invalid_token")
        if not self._key_ring.is_valid(known):
            raise Unauthorized("The API key has expired", error="invalid_token")
        self._key_ring.note_checked(digest, known)
        return known
