"""API keys: their rows, and the ads that each handed in on a day."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from db.errors import RowUnreadable
from db.in_loop import LoopConnections, Statement
from db.locks import BRIEFLY


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One row of ``api_keys``, with the client's name.

    Attributes:
      key_id: The public part of the key.
      digest: SHA-256 of the secret part.
      rate_requests, rate_window_s: So many requests in so many seconds; None for no limit.
      quota_per_day: Ads handed in on a day in UTC; None for no limit.
    """

    key_id: str
    client_id: int
    client: str
    digest: bytes
    scopes: tuple[str, ...]
    rate_requests: int | None
    rate_window_s: int | None
    quota_per_day: int | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to insert; the fields are those of :class:`ApiKey`."""

    key_id: str
    client: str
    digest: bytes
    scopes: Sequence[str]
    created_by: str
    rate_requests: int | None = None
    rate_window_s: int | None = None
    quota_per_day: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Ads that a key wants to hand in, within its quota of the day."""

    key_id: str
    quota_per_day: int
    count: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The ads that a key may hand in, and all that it handed in today with these.

    Attributes:
      day: Today in UTC, by PostgreSQL's clock.
    """

    granted: int
    used: int
    day: date


@dataclass(frozen=True, slots=True)
class Unused:
    """Ads that were taken from the quota of a day, and were not handed in."""

    key_id: str
    day: date
    count: int


_FIELDS = tuple(field.name for field in fields(ApiKey))
_COLUMNS = ", ".join(
    {"key_id": "api_keys.id", "client": "clients.name"}.get(name, f"api_keys.{name}") for name in _FIELDS
)
_READ_SQL = (
    f"SELECT {_COLUMNS} FROM api_keys JOIN clients ON clients.id = api_keys.client_id ORDER BY api_keys.id"
)
_READ = text(_READ_SQL)
_READ_IN_LOOP = Statement(text(f"{BRIEFLY}{_READ_SQL}"))

# A change of a row by any means, and a row that is gone, changes the result: xmin is the transaction that
# wrote the row.
_FINGERPRINT_IN_LOOP = Statement(
    text(
        f"""{BRIEFLY}
        SELECT (SELECT md5(string_agg(id || ' ' || CAST(xmin AS text), ',' ORDER BY id)) FROM api_keys), now()
        """
    )
)

_INSERT_CLIENT = text("INSERT INTO clients (name) VALUES (:client) ON CONFLICT (name) DO NOTHING")

_INSERT = text(
    """
    INSERT INTO api_keys (
        id, client_id, digest, scopes, rate_requests, rate_window_s, quota_per_day, created_by, expires_at
    )
    SELECT :key_id, id, :digest, CAST(:scopes AS text[]), :rate_requests, :rate_window_s, :quota_per_day,
        :created_by, :expires_at
    FROM clients WHERE name = :client
    """
)

_REVOKE = text(
    """
    UPDATE api_keys SET revoked_at = now(), revoked_by = :by, reason = :reason
    WHERE id = :key_id AND revoked_at IS NULL
    RETURNING id
    """
)

_READ_USED = text("SELECT key_id, used FROM api_key_usage WHERE day = CAST(now() AT TIME ZONE 'UTC' AS date)")

# As many of the wanted ads as the quota has left. Of two statements that take from one row, the second waits
# for the first and sees its number: the quota is exact over all processes. A statement for several keys waits
# for no row, because it would hold the other keys' rows meanwhile: it leaves the locked ones out.
_TAKE = """
    WITH wanted AS (
        SELECT * FROM unnest(
            CAST(:key_ids AS text[]), CAST(:quotas AS bigint[]), CAST(:counts AS bigint[])
        ) AS t (key_id, quota, count)
    ), present AS (
        SELECT key_id FROM api_key_usage JOIN wanted USING (key_id)
        WHERE day = CAST(now() AT TIME ZONE 'UTC' AS date)
    ), free AS (
        SELECT key_id FROM api_key_usage AS usage JOIN wanted USING (key_id)
        WHERE day = CAST(now() AT TIME ZONE 'UTC' AS date)
        FOR UPDATE OF usage SKIP LOCKED
    )
    INSERT INTO api_key_usage AS usage (key_id, day, used, granted)
    SELECT key_id, CAST(now() AT TIME ZONE 'UTC' AS date), granted, granted
    FROM (SELECT key_id, LEAST(count, quota) AS granted FROM wanted) AS first
    WHERE {condition}
    ORDER BY key_id
    ON CONFLICT (day, key_id) DO UPDATE SET (used, granted) = (
        SELECT usage.used + possible, possible FROM (
            SELECT LEAST(count, GREATEST(quota - usage.used, 0)) AS possible
            FROM wanted WHERE wanted.key_id = usage.key_id
        ) AS further
    )
    RETURNING key_id, granted, used, day
"""
_TAKE_OF_ONE_IN_LOOP = Statement(text(BRIEFLY + _TAKE.format(condition="true")))
_TAKE_UNLOCKED_IN_LOOP = Statement(
    text(
        BRIEFLY
        + _TAKE.format(
            condition="key_id IN (SELECT key_id FROM free) OR key_id NOT IN (SELECT key_id FROM present)"
        )
    )
)

_GIVE_BACK = """
    WITH unused AS (
        SELECT * FROM unnest(CAST(:key_ids AS text[]), CAST(:days AS date[]), CAST(:counts AS bigint[]))
            AS t (key_id, day, count)
    ), locked AS (
        SELECT key_id, day, unused.count
        FROM api_key_usage AS usage JOIN unused USING (key_id, day)
        FOR UPDATE OF usage {skip_locked}
    )
    UPDATE api_key_usage AS usage SET used = GREATEST(used - locked.count, 0)
    FROM locked WHERE usage.key_id = locked.key_id AND usage.day = locked.day
    RETURNING usage.key_id, usage.day, used
"""
_GIVE_BACK_OF_ONE_IN_LOOP = Statement(text(BRIEFLY + _GIVE_BACK.format(skip_locked="")))
_GIVE_BACK_UNLOCKED_IN_LOOP = Statement(text(BRIEFLY + _GIVE_BACK.format(skip_locked="SKIP LOCKED")))


def insert_key(connection: Connection, new: NewKey) -> None:
    """Insert a key, and its client unless there is one of that name."""
    connection.execute(_INSERT_CLIENT, {"client": new.client})
    connection.execute(
        _INSERT,
        {**{field.name: getattr(new, field.name) for field in fields(new)}, "scopes": list(new.scopes)},
    )


def revoke_key(connection: Connection, key_id: str, *, by: str, reason: str) -> bool:
    """Revoke a key; return whether it was valid until now."""
    return (
        connection.execute(_REVOKE, {"key_id": key_id, "by": by, "reason": reason}).one_or_none() is not None
    )


def read_keys(connection: Connection) -> list[ApiKey]:
    """Return all keys, in the order of their ids.

    Raises:
      RowUnreadable: A row has a value that Python cannot hold.
    """
    with _naming_unreadable_rows():
        return [_key(tuple(row)) for row in connection.execute(_READ)]


def read_used(connection: Connection) -> dict[str, int]:
    """Return the ads that each key handed in today, by key id, for keys with a quota."""
    return {row.key_id: row.used for row in connection.execute(_READ_USED)}


async def fingerprint_in_loop(connections: LoopConnections) -> tuple[str | None, datetime]:
    """Return a text that is another one after any change of a key, and PostgreSQL's time."""
    [(fingerprint, now)] = await connections.execute(_FINGERPRINT_IN_LOOP, {})
    return fingerprint, now


async def read_keys_in_loop(connections: LoopConnections) -> list[ApiKey]:
    """Do the work of :func:`read_keys` from an event loop."""
    with _naming_unreadable_rows():
        return [_key(row) for row in await connections.execute(_READ_IN_LOOP, {})]


async def take_in_loop(connections: LoopConnections, wanted: Sequence[Wanted]) -> dict[str, Taken]:
    """Take ads from quotas, as many as each has left. No key may occur twice.

    Returns:
      The ads that each key got. Of several keys, those whose number somebody has locked are left out.

    Raises:
      RowLocked: Somebody keeps the number of the only key locked, or the table.
    """
    ordered = sorted(wanted, key=lambda one: one.key_id)
    rows = await connections.execute(
        _TAKE_OF_ONE_IN_LOOP if len(wanted) == 1 else _TAKE_UNLOCKED_IN_LOOP,
        {
            "key_ids": [one.key_id for one in ordered],
            "quotas": [one.quota_per_day for one in ordered],
            "counts": [one.count for one in ordered],
        },
    )
    return {key_id: Taken(granted, used, day) for key_id, granted, used, day in rows}


async def give_back_in_loop(
    connections: LoopConnections, unused: Sequence[Unused]
) -> dict[tuple[str, date], int]:
    """Return ads to the quotas of their days. No key may occur twice with one day.

    Returns:
      The ads that each key has handed in on the day, by key id and day. Of several numbers, those that
      somebody has locked are left out.

    Raises:
      RowLocked: Somebody keeps the only number locked, or the table.
    """
    ordered = sorted(unused, key=lambda one: (one.key_id, one.day))
    rows = await connections.execute(
        _GIVE_BACK_OF_ONE_IN_LOOP if len(unused) == 1 else _GIVE_BACK_UNLOCKED_IN_LOOP,
        {
            "key_ids": [one.key_id for one in ordered],
            "days": [one.day for one in ordered],
            "counts": [one.count for one in ordered],
        },
    )
    return {(key_id, day): used for key_id, day, used in rows}


@contextmanager
def _naming_unreadable_rows() -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError, TypeError) as error:  # of psycopg2's conversion, or of _key
        raise RowUnreadable(f"a row of api_keys cannot be read: {error}") from error


def _key(row: Sequence[Any]) -> ApiKey:
    key = dict(zip(_FIELDS, row, strict=True))
    return ApiKey(**{**key, "digest": bytes(key["digest"]), "scopes": tuple(key["scopes"])})
