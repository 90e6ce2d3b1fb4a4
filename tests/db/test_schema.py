"""The migrations make what the program needs, and the program can tell when they were not applied."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
import sqlparse
from sqlalchemy import Engine, inspect, make_url, text

from db import schema
from db.engine import make_engine
from db.tables import metadata
from dev.postgres import create_database, drop_database
from dev.stack import MIGRATIONS

FILES = sorted(MIGRATIONS.glob("V*.sql"))


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    """The URL of a database without anything in it."""
    name = f"empty_{uuid4().hex[:8]}"
    create_database(database_url, name)
    yield make_url(database_url).set(database=name).render_as_string(hide_password=False)
    drop_database(database_url, name)


def apply(url: str, files: list[Path]) -> None:
    """Send the statements of each file to the server, as psql does: each is a transaction."""
    for file in files:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in sqlparse.split(file.read_text(encoding="utf-8")):
                cursor.execute(statement)
        connection.close()


def missing(url: str) -> list[str]:
    engine = make_engine(url)
    try:
        return schema.missing(engine)
    finally:
        engine.dispose()


def test_an_empty_database_misses_every_table(empty_database: str) -> None:
    assert sorted(missing(empty_database)) == [
        "ad_versions",
        "api_key_usage",
        "api_keys",
        "audit_log",
        "clients",
        "idempotency_keys",
        "items",
        "judgements",
        "moderation_results",
        "submission_history",
        "users",
        "verification_changes",
    ]


def test_a_half_migrated_database_misses_the_columns_that_are_not_there_yet(empty_database: str) -> None:
    apply(empty_database, FILES[:2])
    assert sorted(missing(empty_database)) == [
        "ad_versions",
        "api_key_usage",
        "api_keys",
        "audit_log",
        "clients",
        "idempotency_keys",
        "judgements",
        "moderation_results.client_id",
        "moderation_results.generation",
        "moderation_results.message_id",
        "moderation_results.publish_after",
        "submission_history",
        "verification_changes",
    ]


def test_after_all_migrations_nothing_is_missing(empty_database: str) -> None:
    apply(empty_database, FILES)
    assert missing(empty_database) == []


def test_applying_the_migrations_twice_changes_nothing(empty_database: str) -> None:
    apply(empty_database, FILES + FILES)
    assert missing(empty_database) == []


def test_the_tables_in_code_are_those_of_the_migrations(database: Engine) -> None:
    inspector = inspect(database)
    for table in metadata.tables.values():
        columns = {
            column["name"]: (type(column["type"]).__name__.upper(), column["nullable"])
            for column in inspector.get_columns(table.name)
        }
        kinds = {
            "BIGINTEGER": "BIGINT",
            "DOUBLE": "DOUBLE_PRECISION",
            "DATETIME": "TIMESTAMP",
            "LARGEBINARY": "BYTEA",
        }
        expected = {
            column.name: (
                kinds.get(name := type(column.type).__name__.upper(), name),
                bool(column.nullable),
            )
            for column in table.columns
        }
        assert columns == expected, table.name


def test_rows_from_before_the_outbox_keep_their_state_and_pending_ones_become_due(
    empty_database: str,
) -> None:
    apply(empty_database, FILES[:2])
    engine = make_engine(empty_database)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users DEFAULT VALUES"))
        connection.execute(
            text("INSERT INTO items (seller_id, name, description, category) VALUES (1, 'n', 'd', 3)")
        )
        connection.execute(text("INSERT INTO moderation_results (item_id) VALUES (1), (1)"))
        connection.execute(
            text(
                "INSERT INTO moderation_results (item_id, status, is_violation, probability)"
                " VALUES (1, 'completed', true, 0.9)"
            )
        )
    apply(empty_database, FILES[2:])
    with engine.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT status, publish_after <= now(), count(DISTINCT message_id) FROM moderation_results"
                " GROUP BY 1, 2 ORDER BY 1"
            )
        ).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("completed", None, 1), ("pending", True, 2)]
