"""The callers of the API: clients with a key, and anybody where keys are off.

A key is ``mod_``, its id and its secret. The secret has 256 random bits: nobody can guess one from its hash,
so SHA-256 without salt or stretching keeps it, which takes a microsecond for each request. A password, which
somebody chose, would need a slow hash.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["submit", "read", "items", "review", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
#: What a scope allows besides itself.
_INCLUDED: dict[str, frozenset[str]] = {"review": frozenset({"read"}), "admin": frozenset(SCOPES)}

_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 12
_KEY = re.compile(rf"mod_([{_ID_CHARACTERS}]{{{_ID_LENGTH}}})_([A-Za-z0-9_-]{{43}})", re.ASCII)
_SECRET_BYTES = 32
#: Compared with the secret of an unknown key.
_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a request.

    Attributes:
      client_id, key_id: None without a key.
      scopes: The scopes of the key, with those that they include.
      quota_per_day: The ads that the key may hand in on a day in UTC; None for any number.
    """

    client_id: int | None
    key_id: str | None
    scopes: frozenset[str]
    quota_per_day: int | None = None

    @property
    def sees_all(self) -> bool:
        """Whether the submissions of other clients are visible."""
        return "review" in self.scopes

    @property
    def changes_all(self) -> bool:
        """Whether the submissions of other clients can be cancelled."""
        return "admin" in self.scopes

    def sees(self, client_id: int | None) -> bool:
        """Return whether a submission of this client is visible."""
        return self.sees_all or client_id == self.client_id


#: The caller without a key, where keys are off.
ANYBODY = Caller(None, None, frozenset(SCOPES))


@dataclass(frozen=True, slots=True, repr=False)
class PresentedKey:
    """A key as a request presents it. The secret itself is not kept."""

    key_id: str
    digest: bytes

    def matches(self, digest: bytes | None) -> bool:
        """Return whether the secret is the one with this digest; None is an unknown key. In constant time."""
        return hmac.compare_digest(self.digest, digest or _NO_DIGEST) and digest is not None


def all_scopes(scopes: tuple[str, ...]) -> frozenset[str]:
    """Return the scopes with those that they include."""
    return frozenset(scopes).union(*(_INCLUDED.get(scope, frozenset()) for scope in scopes))


def parse_key(text: str) -> PresentedKey | None:
    """Read a key; None for a text of another form."""
    parts = _KEY.fullmatch(text)
    return PresentedKey(parts[1], _digest(parts[2])) if parts else None


def new_key() -> tuple[str, PresentedKey]:
    """Make a key; return its text, which is to be shown once, and what is kept of it."""
    key_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return f"mod_{key_id}_{secret}", PresentedKey(key_id, _digest(secret))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
