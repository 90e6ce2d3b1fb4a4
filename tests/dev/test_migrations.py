"""The same migration files, through psql and through the library, in any order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from db.engine import psycopg2_url
from dev.postgres import create_database, drop_database
from dev.stack import MIGRATIONS, ROOT, migrate

FILES = sorted(MIGRATIONS.glob("V*.sql"))


def with_psql(url: str) -> None:
    """As the README does it: one `psql -f` after the other."""
    psql = shutil.which("psql")
    if psql is None:
        if os.environ.get("CI"):
            pytest.fail("there is no psql")
        pytest.skip("there is no psql")
    for file in FILES:
        subprocess.run(
            [psql, "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", file], check=True, capture_output=True
        )


def with_make(url: str) -> None:
    """The recipe of `make migrate`."""
    recipe = subprocess.run(
        [
            "make",
            "-n",
            "migrate",
            f"BIN={Path(sys.executable).parent}",
            f"DATABASE_URL={url}",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    command = next(line for line in recipe.splitlines() if "yoyo" in line)
    subprocess.run(["sh", "-c", command], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    server_url, _, name = database_url.rpartition("/")
    create_database(database_url, f"{name}_empty")
    yield f"{server_url}/{name}_empty"
    drop_database(database_url, f"{name}_empty")


def schema(url: str) -> dict[str, object]:
    """Tables, columns, indexes and constraints, without the library's own tables."""
    engine = create_engine(psycopg2_url(url))
    try:
        inspector = inspect(engine)
        return {
            table: (
                [
                    (column["name"], str(column["type"]), column["nullable"])
                    for column in inspector.get_columns(table)
                ],
                sorted(str(index["name"]) for index in inspector.get_indexes(table)),
                sorted(str(check["name"]) for check in inspector.get_check_constraints(table)),
                sorted(str(key["name"]) for key in inspector.get_foreign_keys(table)),
            )
            for table in sorted(inspector.get_table_names())
            if "yoyo" not in table
        }
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "ways",
    [[with_psql], [with_make], [with_psql, with_make], [with_make, with_psql], [with_make, with_make]],
    ids=lambda ways: "-then-".join(way.__name__ for way in ways),
)
def test_the_migrations_make_one_schema_however_they_are_applied(
    ways: list[Callable[[str], None]], database_url: str, empty_database: str
) -> None:
    for way in ways:
        way(empty_database)
    assert schema(empty_database) == schema(database_url)


def test_a_migration_whose_run_was_killed_does_not_lock_the_next_one_out(empty_database: str) -> None:
    migrate(empty_database)
    engine = create_engine(psycopg2_url(empty_database))
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO yoyo_lock VALUES (1, now(), 4194304)")
    engine.dispose()
    migrate(empty_database)


def test_migration_files_are_numbered_without_a_gap() -> None:
    assert [file.name[:3] for file in FILES] == [f"V{number:02}" for number in range(1, len(FILES) + 1)]


def test_the_schema_is_not_empty(database_url: str) -> None:
    assert set(schema(database_url)) >= {"users", "items", "moderation_results"}


def test_the_first_two_files_have_the_names_that_the_readme_gives() -> None:
    assert [file.name for file in FILES[:2]] == ["V01__init_schema.sql", "V02__moderation_results.sql"]
