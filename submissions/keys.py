"""API keys: ``python -m submissions.keys --help``.

::

    create CLIENT --scope submit --scope read --rate 100/s --quota 50000 --expires 2027-01-31T00:00Z
    list
    revoke KEY_ID --reason "..."
    audit --task 17

A key is printed once, when it is created. A client may have several keys, as while one replaces another; all
of them see the client's submissions.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from broker.dead_letters import caller as this_user
from db import api_keys, audit
from db.api_keys import ApiKey, NewKey
from db.audit import Change, Entry
from db.errors import DatabaseError
from db.submissions import is_id, storable
from settings import SettingsRefused, get_settings
from submissions import key_texts
from submissions.callers import SCOPES, new_key
from submissions.database import Database
from submissions.key_texts import DEFAULT_SCOPES, BadKeyText, document_of, plain, state_of

MAX_ENTRIES = 50


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of a new key; None for no limit.

    Attributes:
      rate: Requests, and the seconds in which they are allowed.
      quota_per_day: Ads handed in on a day in UTC.
      expires_at: Aware.
    """

    rate: tuple[int, int] | None = None
    quota_per_day: int | None = None
    expires_at: datetime | None = None


class ApiKeys:
    """Creates, lists and revokes API keys. Every method raises DatabaseError when PostgreSQL fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, client: str, *, scopes: Sequence[str], limits: KeyLimits | None = None, by: str | None = None
    ) -> tuple[str, ApiKey]:
        """Create a key for a client, which is created as well if it is new.

        Returns:
          The key's text, which nobody can read again, and the key.
        """
        limits = limits or KeyLimits()
        by = storable(this_user() if by is None else by)
        secret, kept = new_key()
        requests, window_s = limits.rate or (None, None)
        new = NewKey(
            key_id=kept.key_id,
            client=client,
            digest=kept.digest,
            scopes=[scope for scope in SCOPES if scope in scopes],
            created_by=by,
            rate_requests=requests,
            rate_window_s=window_s,
            quota_per_day=limits.quota_per_day,
            expires_at=limits.expires_at,
        )
        with self._database.transaction() as connection:
            api_keys.insert_key(connection, new)
            audit.record(connection, Change("create_key", done_by=by, subject=kept.key_id))
            [key] = [one for one in api_keys.read_keys(connection) if one.key_id == kept.key_id]
        return secret, key

    def revoke(self, key_id: str, *, reason: str, by: str | None = None) -> bool:
        """Revoke a key; return whether there is one that was not revoked before."""
        by, reason = storable(this_user() if by is None else by), storable(reason)
        key_id = storable(key_id)
        with self._database.transaction() as connection:
            is_revoked = api_keys.revoke_key(connection, key_id, by=by, reason=reason)
            if is_revoked:
                change = Change("revoke_key", done_by=by, subject=key_id, reason=reason)
                audit.record(connection, change)
        return is_revoked

    def list(self) -> tuple[Sequence[ApiKey], Mapping[str, int]]:
        """Return all keys, and the ads that those with a quota handed in today, by key id."""
        with self._database.transaction() as connection:
            return api_keys.read_keys(connection), api_keys.read_used(connection)

    def entries(
        self,
        *,
        key_id: str | None = None,
        task_id: int | None = None,
        item_id: int | None = None,
        limit: int = MAX_ENTRIES,
    ) -> Sequence[Entry]:
        """Return the newest entries of the audit log: of a key, a submission or an ad, or of all."""
        with self._database.transaction() as connection:
            if task_id is not None:
                return audit.read_entries_of_task(connection, task_id, limit=limit)
            if item_id is not None:
                return audit.read_entries_of_item(connection, item_id, limit=limit)
            return audit.read_entries(connection, key_id=key_id, limit=limit)


def main() -> int | str:
    """Run the command. Exit codes: 0 done; 1 no such key, or PostgreSQL failed; 2 bad arguments."""
    given = _arguments()
    try:
        keys = ApiKeys(Database(get_settings()))
        answer, text = given.run(keys, given)
    except SettingsRefused as error:
        return str(error)
    except DatabaseError as error:
        return f"Not done: {error}"
    except _NotFound as error:
        return str(error)
    sys.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n" if given.json else text)
    return 0


class _NotFound(Exception):
    pass


def _create(keys: ApiKeys, given: argparse.Namespace) -> tuple[Any, str]:
    limits = KeyLimits(given.rate, given.quota, given.expires)
    secret, key = keys.create(given.client, scopes=given.scope or DEFAULT_SCOPES, limits=limits, by=given.by)
    document = {**document_of(key, None), "key": secret}
    lines = [
        f"{secret}",
        f"This is the key of {key.client}; it is not shown again. {_described(key, None)}",
    ]
    return document, _lines(lines)


def _list(keys: ApiKeys, _: argparse.Namespace) -> tuple[Any, str]:
    found, used = keys.list()
    return (
        {"keys": [document_of(key, used.get(key.key_id)) for key in found]},
        _lines([_described(key, used.get(key.key_id)) for key in found] or ["There are no keys"]),
    )


def _revoke(keys: ApiKeys, given: argparse.Namespace) -> tuple[Any, str]:
    if not keys.revoke(given.key_id, reason=given.reason, by=given.by):
        raise _NotFound(f"There is no key {given.key_id}, or it was revoked before")
    text = f"{given.key_id} is revoked: every API process refuses it within two seconds"
    return {"key_id": given.key_id, "is_revoked": True}, _lines([text])


def _audit(keys: ApiKeys, given: argparse.Namespace) -> tuple[Any, str]:
    entries = keys.entries(key_id=given.key, task_id=given.task, item_id=given.item, limit=given.limit)
    documents = [
        {name: plain(value) for name, value in asdict(entry).items() if value is not None}
        for entry in entries
    ]
    lines = [
        "  ".join(f"{name}={value}" for name, value in document.items() if name != "entry_id")
        for document in documents
    ]
    return {"entries": documents}, _lines(lines or ["Nothing is recorded"])


def _described(key: ApiKey, used: int | None) -> str:
    parts = [key.key_id, key.client, state_of(key), ",".join(key.scopes)]
    if key.rate_requests:
        parts.append(f"{key.rate_requests} requests in {key.rate_window_s} s")
    if key.quota_per_day:
        parts.append(f"{used or 0} of {key.quota_per_day} ads today")
    if key.expires_at:
        parts.append(f"expires {plain(key.expires_at)}")
    return "  ".join(parts)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m submissions.keys", description="API keys of clients, and who changed what with them."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print a JSON document")
    changing = argparse.ArgumentParser(add_help=False, parents=[common])
    changing.add_argument("--by", help="who does it; this system's user and host by default")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    create = _verb(
        verbs.add_parser("create", parents=[changing], help="create a key, and print it once"), _create
    )
    create.add_argument(
        "client", type=_typed(key_texts.name_of), help="the client; a new name creates a new client"
    )
    create.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help=f"what it may do, several times; {' and '.join(DEFAULT_SCOPES)} by default",
    )
    create.add_argument(
        "--rate",
        type=_typed(key_texts.rate_of),
        metavar="N/s",
        help="requests of each API process; also N/m, N/h",
    )
    create.add_argument(
        "--quota", type=_typed(key_texts.count_of), metavar="N", help="ads handed in on a day in UTC"
    )
    create.add_argument(
        "--expires", type=_typed(key_texts.time_of), metavar="TIME", help="as 2027-01-31T12:00Z, or 90d"
    )

    _verb(
        verbs.add_parser("list", parents=[common], help="list all keys, without the keys themselves"), _list
    )

    revoke = _verb(verbs.add_parser("revoke", parents=[changing], help="revoke a key for good"), _revoke)
    revoke.add_argument("key_id", metavar="KEY_ID", help="the part of the key between the underscores")
    revoke.add_argument("--reason", required=True, help="why; it is kept")

    log = _verb(verbs.add_parser("audit", parents=[common], help="who did what, newest first"), _audit)
    of = log.add_mutually_exclusive_group()
    of.add_argument("--key", metavar="KEY_ID", help="by this key")
    of.add_argument("--task", type=_id, metavar="TASK_ID", help="to this submission")
    of.add_argument("--item", type=_id, metavar="ITEM_ID", help="to this ad")
    log.add_argument(
        "--limit", type=_typed(key_texts.count_of), default=MAX_ENTRIES, help=f"{MAX_ENTRIES} by default"
    )
    return parser.parse_args()


def _verb(
    parser: argparse.ArgumentParser, run: Callable[[ApiKeys, argparse.Namespace], tuple[Any, str]]
) -> argparse.ArgumentParser:
    parser.set_defaults(run=run)
    return parser


def _typed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of argparse, which prints the sentence of a text that is refused."""

    def typed(text: str) -> Any:
        try:
            return parse(text)
        except BadKeyText as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return typed


def _id(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0
    if not is_id(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no id")
    return number


if __name__ == "__main__":
    sys.exit(main())
