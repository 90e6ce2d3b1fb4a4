"""The service's pages of the web console.

``dkb tasks console --pages submissions.console.pages:API_KEYS`` adds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

from broker.console.web.sections import (
    Access,
    Look,
    NotFound,
    Redirect,
    Route,
    Section,
    Unreachable,
    Unusable,
    View,
    carry_out,
    reason_of,
)
from db.errors import DatabaseError
from settings import SettingsRefused, get_settings
from submissions import key_texts
from submissions.callers import SCOPES
from submissions.database import Database
from submissions.key_texts import DEFAULT_SCOPES, BadKeyText, document_of
from submissions.keys import ApiKeys, KeyLimits

#: The most keys of a page. A client narrows it down.
SHOWN = 200
STATES = ("valid", "expired", "revoked")

T = TypeVar("T")


class KeyPages:
    """The pages of API keys.

    Parameters:
      api_keys: Called once for each page: the keys of the service.
    """

    def __init__(self, api_keys: Callable[[], ApiKeys]) -> None:
        self._api_keys = api_keys

    def section(self) -> Section:
        return Section(
            name="api-keys",
            title="API keys",
            href="/api-keys",
            routes=[
                Route("GET", "/api-keys", Access.VIEW, self.list, "All API keys, without the keys."),
                Route(
                    "POST", "/api-keys/create", Access.ADMINISTER, self.create,
                    "Creates an API key, which the answer alone has.",
                ),
                Route("POST", "/api-keys/revoke", Access.ADMINISTER, self.revoke, "Revokes an API key."),
            ],
            templates=Path(__file__).parent / "templates",
            told={"revoked": "The key is revoked: every API process refuses it within two seconds."},
        )  # fmt: skip

    def list(self, look: Look) -> View:
        """The keys, valid ones first, of a client or of all."""
        with _asking():
            keys, used = self._api_keys().list()
        client, state = look.get("client"), look.get("state")
        rows = [
            document_of(key, used.get(key.key_id)) for key in keys if client is None or key.client == client
        ]
        counts = Counter(row["state"] for row in rows)
        found = [row for row in rows if state is None or row["state"] == state]
        found.sort(key=lambda row: (STATES.index(row["state"]), row["client"], row["created_at"]))
        document = {
            "keys": found[:SHOWN],
            "count": len(found),
            "counts": {name: counts[name] for name in STATES},
            "client": client,
            "state": state,
            "clients": sorted({key.client for key in keys})[:SHOWN],
            "scopes": list(SCOPES),
            "default_scopes": list(DEFAULT_SCOPES),
        }
        return View("api-keys/keys.html", "api-keys", "API keys", document)

    def create(self, look: Look) -> View:
        """Create a key. Its text is in this answer alone."""
        client = _parsed(look, "client", key_texts.name_of)
        if client is None:
            raise Unusable("Name the client of the key.")
        scopes = look.all("scope")
        if not scopes or not set(scopes) <= set(SCOPES):
            raise Unusable(f"A key needs scopes of {', '.join(SCOPES)}.")
        limits = KeyLimits(
            rate=_parsed(look, "rate", key_texts.rate_of),
            quota_per_day=_parsed(look, "quota", key_texts.count_of),
            expires_at=_parsed(look, "expires", key_texts.time_of),
        )
        with _asking():
            secret, key = carry_out(
                look, "create API key", f"{client}: {', '.join(scopes)}", look.get("reason") or "",
                lambda: self._api_keys().create(client, scopes=scopes, limits=limits, by=look.user.name),
            )  # fmt: skip
        document = {**document_of(key, None), "key": secret}
        return View("api-keys/created.html", "api-keys", "API key", document)

    def revoke(self, look: Look) -> Redirect:
        """Revoke a key for good."""
        reason, key_id = reason_of(look), look.get("key_id")
        if key_id is None:
            raise Unusable("Name the id of a key.")

        def do() -> None:
            if not self._api_keys().revoke(key_id, reason=reason, by=look.user.name):
                raise NotFound(f"There is no key {key_id[:200]!r}, or it was revoked before.")

        with _asking():
            carry_out(look, "revoke API key", key_id[:200], reason, do)
        return Redirect(look.url("/api-keys", told="revoked"), {"key_id": key_id, "is_revoked": True})


@contextmanager
def _asking() -> Iterator[None]:
    """Tell of PostgreSQL's failures as the console tells of Kafka's."""
    try:
        yield
    except SettingsRefused as error:
        raise Unreachable(str(error)) from error
    except DatabaseError as error:
        raise Unreachable(f"The API keys are in PostgreSQL: {error}") from error


def _parsed(look: Look, name: str, parse: Callable[[str], T]) -> T | None:
    text = look.get(name)
    try:
        return None if text is None else parse(text)
    except BadKeyText as error:
        raise Unusable(f"The {name}: {error}.") from error


@cache
def _of_settings() -> ApiKeys:
    return ApiKeys(Database(get_settings()))


API_KEYS = KeyPages(_of_settings).section()
