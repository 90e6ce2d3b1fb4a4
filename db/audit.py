"""The audit log: who did what to which submission, ad or key."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Change:
    """A change to record.

    Attributes:
      action: ``submit``, ``cancel``, ``store_ads``, ``redrive``, ``requeue``, ``create_key`` or
        ``revoke_key``.
      key_id, client_id: The key of the request; None for a command.
      done_by: The person or program, where there is no key.
      task_ids, item_ids: The submissions and the ads that were changed.
      subject: The id of the key that was changed.
    """

    action: str
    key_id: str | None = None
    client_id: int | None = None
    done_by: str | None = None
    task_ids: Sequence[int] | None = None
    item_ids: Sequence[int] | None = None
    subject: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Entry(Change):
    """One row of ``audit_log``."""

    entry_id: int = 0
    at: datetime | None = None


_NAMES = tuple(field.name for field in fields(Change))
_RECORD = text(
    f"INSERT INTO audit_log ({', '.join(_NAMES)}) VALUES ({', '.join(f':{name}' for name in _NAMES)})"
)

_COLUMNS = ", ".join(field.name if field.name != "entry_id" else "id" for field in fields(Entry))
_READ = text(f"SELECT {_COLUMNS} FROM audit_log ORDER BY id DESC LIMIT :limit")
_READ_OF_KEY = text(f"SELECT {_COLUMNS} FROM audit_log WHERE key_id = :key_id ORDER BY id DESC LIMIT :limit")
_READ_OF_ITEM = text(
    f"""
    SELECT {_COLUMNS} FROM audit_log
    WHERE item_ids @> ARRAY[CAST(:item_id AS bigint)] AND item_ids IS NOT NULL
    ORDER BY id DESC LIMIT :limit
    """
)
# The entry of a submission is of its transaction, and has its time.
_READ_OF_TASK = text(
    f"""
    SELECT * FROM (
        SELECT {_COLUMNS} FROM audit_log
        WHERE at = (SELECT created_at FROM moderation_results WHERE id = :task_id)
            AND action = 'submit' AND :task_id = ANY (task_ids)
        UNION ALL
        SELECT {_COLUMNS} FROM audit_log
        WHERE task_ids @> ARRAY[CAST(:task_id AS bigint)] AND action <> 'submit'
    ) AS found ORDER BY id DESC LIMIT :limit
    """
)


def record(connection: Connection, change: Change) -> None:
    """Record a change, in the transaction that makes it."""
    connection.execute(_RECORD, {name: _listed(getattr(change, name)) for name in _NAMES})


def read_entries(connection: Connection, *, key_id: str | None = None, limit: int) -> list[Entry]:
    """Return the newest entries, of one key or of all."""
    statement = _READ if key_id is None else _READ_OF_KEY.bindparams(key_id=key_id)
    return [Entry(*tuple(row)) for row in connection.execute(statement, {"limit": limit})]


def read_entries_of_item(connection: Connection, item_id: int, *, limit: int) -> list[Entry]:
    """Return the newest entries that name an ad."""
    rows = connection.execute(_READ_OF_ITEM, {"item_id": item_id, "limit": limit})
    return [Entry(*tuple(row)) for row in rows]


def read_entries_of_task(connection: Connection, task_id: int, *, limit: int) -> list[Entry]:
    """Return the newest entries that name a submission."""
    rows = connection.execute(_READ_OF_TASK, {"task_id": task_id, "limit": limit})
    return [Entry(*tuple(row)) for row in rows]


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
