"""The rows of API keys: each can be read, because every process of the API reads all of them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from db.api_keys import NewKey, insert_key, read_keys, read_keys_in_loop
from db.engine import transaction
from db.errors import DatabaseRefused, RowUnreadable
from db.in_loop import make_loop_connections
from tests.db.rows import execute

CHECK = "api_keys_readable_times"


@pytest.fixture(autouse=True)
def key(database: Engine) -> None:
    with transaction(database) as connection:
        insert_key(connection, NewKey("aaaaaaaaaaaa", "shop", bytes(32), ["read"], created_by="test"))


@contextmanager
def without_check(engine: Engine) -> Iterator[None]:
    """Let times be written that Python cannot hold."""
    [(definition,)] = execute(
        engine, f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{CHECK}'"
    )
    with transaction(engine) as connection:
        connection.exec_driver_sql(f"ALTER TABLE api_keys DROP CONSTRAINT {CHECK}")
    try:
        yield
    finally:
        with transaction(engine) as connection:
            connection.exec_driver_sql("DELETE FROM api_keys")
            connection.exec_driver_sql(f"ALTER TABLE api_keys ADD CONSTRAINT {CHECK} {definition}")


@pytest.mark.parametrize(
    "change",
    [
        "expires_at = now() + interval '9000 years'",
        "expires_at = now() - interval '5000 years'",
        "expires_at = 'infinity'",
        "revoked_at = now() + interval '9000 years'",
        "created_at = '-infinity'",
        "scopes = '{{read},{submit}}'",
        "scopes = '{read,NULL}'",
        "quota_per_day = 1000000000000000",
    ],
)
def test_a_value_that_cannot_be_read_is_refused(database: Engine, change: str) -> None:
    with pytest.raises(DatabaseRefused), transaction(database) as connection:
        connection.exec_driver_sql(f"UPDATE api_keys SET {change}")


@pytest.mark.parametrize(
    "change",
    [
        "expires_at = '9999-12-29Z'",
        "expires_at = NULL, revoked_at = now()",
        "scopes = '{}'",
        "quota_per_day = 999999999999999",
    ],
)
def test_other_values_can_be_read_in_any_time_zone(database: Engine, change: str) -> None:
    with transaction(database) as connection:
        connection.exec_driver_sql("SET LOCAL TimeZone = 'Pacific/Kiritimati'")
        connection.exec_driver_sql(f"UPDATE api_keys SET {change}")
        [found] = read_keys(connection)
    assert found.expires_at is None or found.expires_at > datetime.now(UTC)


def test_an_unreadable_row_is_temporary_for_its_readers(database: Engine) -> None:
    async def read_in_loop() -> object:
        connections = make_loop_connections(database.url.render_as_string(hide_password=False))
        try:
            return await read_keys_in_loop(connections)
        finally:
            connections.close()

    with without_check(database):
        with transaction(database) as connection:
            connection.exec_driver_sql("UPDATE api_keys SET expires_at = now() + interval '9000 years'")
        with pytest.raises(RowUnreadable), transaction(database) as connection:
            read_keys(connection)
        with pytest.raises(RowUnreadable):
            asyncio.run(read_in_loop())
