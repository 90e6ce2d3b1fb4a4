"""Dramatiq's rate limiter and result backends on PostgreSQL, as small as they can be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
from dramatiq.rate_limits import RateLimiterBackend
from dramatiq.results import Missing, ResultBackend

#: Their tables have a schema of their own, apart from the service's.
SCHEMA = """
CREATE SCHEMA IF NOT EXISTS dramatiq_features;
CREATE TABLE IF NOT EXISTS dramatiq_features.counters (
    key text PRIMARY KEY, value integer NOT NULL, expires_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS dramatiq_features.results (
    key text PRIMARY KEY, value bytea NOT NULL, expires_at timestamptz NOT NULL
);
"""
_EXPIRY = "now() + %(ttl)s * interval '1 millisecond'"


class _Tables:
    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    @contextlib.contextmanager
    def cursor(self) -> Iterator[psycopg2.extensions.cursor]:
        """One transaction on a connection of its own: it works in any process and any thread."""
        connection = psycopg2.connect(self._database_url)
        with contextlib.closing(connection), connection, connection.cursor() as cursor:
            yield cursor


def create_tables(database_url: str) -> None:
    with _Tables(database_url).cursor() as cursor:
        cursor.execute(SCHEMA)


class PostgresRateLimits(RateLimiterBackend):
    """Counters. Each change is one statement, so concurrent ones cannot lose an update."""

    def __init__(self, database_url: str) -> None:
        self._tables = _Tables(database_url)

    def add(self, key: str, value: int, ttl: int) -> bool:
        return self._changed(
            f"""
            INSERT INTO dramatiq_features.counters AS c VALUES (%(key)s, %(amount)s, {_EXPIRY})
            ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
            WHERE c.expires_at < now()
            """,
            key=key, amount=value, ttl=ttl,
        )  # fmt: skip

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        self.add(key, 0, ttl)
        return self._changed(
            f"""
            UPDATE dramatiq_features.counters SET value = value + %(amount)s, expires_at = {_EXPIRY}
            WHERE key = %(key)s AND value + %(amount)s <= %(maximum)s
            """,
            key=key, amount=amount, maximum=maximum, ttl=ttl,
        )  # fmt: skip

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        self.add(key, 0, ttl)
        return self._changed(
            f"""
            UPDATE dramatiq_features.counters SET value = value - %(amount)s, expires_at = {_EXPIRY}
            WHERE key = %(key)s AND value - %(amount)s >= %(minimum)s
            """,
            key=key, amount=amount, minimum=minimum, ttl=ttl,
        )  # fmt: skip

    def incr_and_sum(
        self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int
    ) -> bool:
        raise NotImplementedError("only the window rate limiter needs it")

    def wait(self, key: str, timeout: int) -> bool:
        raise NotImplementedError("only a blocking barrier needs it")

    def wait_notify(self, key: str, ttl: int) -> None:
        """Nobody waits here."""

    def _changed(self, statement: str, **parameters: Any) -> bool:
        with self._tables.cursor() as cursor:
            cursor.execute(statement, parameters)
            return bool(cursor.rowcount)


class PostgresResults(ResultBackend):
    def __init__(self, database_url: str) -> None:
        super().__init__()
        self._tables = _Tables(database_url)

    def _get(self, message_key: str) -> Any:
        with self._tables.cursor() as cursor:
            cursor.execute(
                "SELECT value FROM dramatiq_features.results WHERE key = %s AND expires_at >= now()",
                (message_key,),
            )
            row = cursor.fetchone()
        return self.encoder.decode(bytes(row[0])) if row else Missing

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        with self._tables.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO dramatiq_features.results VALUES (%(key)s, %(value)s, {_EXPIRY})
                ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
                """,
                {"key": message_key, "value": self.encoder.encode(result), "ttl": ttl},
            )
