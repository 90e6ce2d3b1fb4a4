"""Idempotency keys: the results of requests with a key, kept for a limited time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.locks import BRIEFLY

#: Advisory locks share one number space per database; this number separates these from others.
_LOCK_SPACE = 4_201_337


@dataclass(frozen=True, slots=True)
class Remembered:
    """An accepted request: its key, its fingerprint, and a task id for each ad (None: no such ad)."""

    key: str
    fingerprint: bytes
    task_ids: tuple[int | None, ...]


# For all statements of this transaction: the table may be locked as well as a row.
_LOCK = text(
    f"""{BRIEFLY}
    SELECT key, pg_try_advisory_xact_lock(hashtextextended(key, :space)) AS is_ours
    FROM unnest(CAST(:keys AS text[])) AS wanted (key)
    """
)

_READ = text(
    """
    SELECT key, fingerprint, task_ids FROM idempotency_keys
    WHERE key = ANY (CAST(:keys AS text[])) AND expires_at > now()
    """
)

# An expired key may still have a row, which is overwritten. The lock keeps other requests from writing the
# same key. The task ids are sent as text, because an array of arrays needs arrays of one length.
_REMEMBER = text(
    """
    INSERT INTO idempotency_keys (key, fingerprint, task_ids, expires_at)
    SELECT key, decode(fingerprint, 'hex'), CAST(task_ids AS bigint[]), now() + make_interval(secs => :ttl_s)
    FROM unnest(CAST(:keys AS text[]), CAST(:fingerprints AS text[]), CAST(:task_ids AS text[]))
        AS new (key, fingerprint, task_ids)
    ON CONFLICT (key) DO UPDATE
    SET fingerprint = excluded.fingerprint, task_ids = excluded.task_ids, expires_at = excluded.expires_at
    """
)

_FORGET = text(
    """
    DELETE FROM idempotency_keys WHERE key = ANY (ARRAY(
        SELECT key FROM idempotency_keys WHERE expires_at <= now() ORDER BY expires_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ))
    """
)


def lock_free(connection: Connection, keys: Iterable[str]) -> set[str]:
    """Lock the keys until the transaction ends; return the keys that no other transaction has locked.

    This statement waits for none of them, so a running request does not delay the other requests of this
    transaction. The transaction then waits for no other lock for longer than a moment (``RowLocked``).
    """
    rows = connection.execute(_LOCK, {"keys": sorted(keys), "space": _LOCK_SPACE})
    return {row.key for row in rows if row.is_ours}


def read(connection: Connection, keys: Iterable[str]) -> dict[str, Remembered]:
    """Return the remembered requests that have not expired.

    Call :func:`lock_free` before: this statement then sees the rows of the request that held the lock.
    """
    rows = connection.execute(_READ, {"keys": sorted(keys)})
    return {row.key: Remembered(row.key, bytes(row.fingerprint), tuple(row.task_ids)) for row in rows}


def remember(connection: Connection, accepted: Sequence[Remembered], *, ttl_s: float) -> None:
    """Keep the requests' results for ``ttl_s``. This transaction holds the locks of their keys.

    Raises:
      RowLocked: Somebody else than a request keeps the row of an expired key locked.
    """
    connection.execute(
        _REMEMBER,
        {
            "ttl_s": ttl_s,
            "keys": [one.key for one in accepted],
            "fingerprints": [one.fingerprint.hex() for one in accepted],
            "task_ids": [_array(one.task_ids) for one in accepted],
        },
    )


def forget_expired(connection: Connection, *, limit: int) -> int:
    """Delete up to ``limit`` expired keys; return their number."""
    return connection.execute(_FORGET, {"limit": limit}).rowcount


def _array(task_ids: Iterable[int | None]) -> str:
    return "{" + ",".join("NULL" if task_id is None else str(task_id) for task_id in task_ids) + "}"
