"""The same migration files, through psql and through the library, in any order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import Engine, create_engine, inspect

from db import submissions
from db.engine import make_engine, psycopg2_url, transaction
from db.submissions import Outcome
from db.tables import metadata
from dev.postgres import create_database, drop_database
from dev.stack import MIGRATIONS, ROOT, migrate
from tests.db.rows import execute, load_sample_ads, submit
from tests.waiting import wait_until

FILES = sorted(MIGRATIONS.glob("V*.sql"))


def with_psql(url: str) -> None:
    """As the README does it: one `psql -f` after the other."""
    psql = psql_or_skip()
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


@pytest.fixture
def wide_database(empty_database: str) -> Iterator[Engine]:
    """A database before ids of 64 bits, with 2,000 submissions; each of its tables counts as a large one."""
    for file in FILES[:6]:
        with psycopg2.connect(empty_database) as connection, connection.cursor() as cursor:
            cursor.execute(file.read_text(encoding="utf-8"))
    engine = make_engine(empty_database)
    name = empty_database.rpartition("/")[2]
    execute(engine, f'ALTER DATABASE "{name}" SET "migrations.small_bytes" = \'0\'')
    load_sample_ads(engine, 5)
    for _ in range(4):
        submit(engine, [1, 2, 3, 4, 5] * 100, lease_s=0)
    execute(engine, "GRANT SELECT ON moderation_results TO PUBLIC")
    yield engine
    engine.dispose()


class Writer:
    """Submits, writes outcomes, redrives and deletes rows until it is told to stop; knows what is there."""

    def __init__(self, engine: Engine) -> None:
        self.rows: dict[str, tuple[str, int]] = {}
        self.stopping = threading.Event()
        self.rounds = 0
        self._engine = engine
        self._thread = ThreadPoolExecutor(1)
        self._running = self._thread.submit(self._run)

    def stop(self) -> None:
        self.stopping.set()
        self._running.result()
        self._thread.shutdown()

    def _run(self) -> None:
        while not self.stopping.is_set():
            first, second, third, fourth = submit(self._engine, [1, 2, 3, 4], lease_s=0)
            with transaction(self._engine) as connection:
                outcomes = [
                    Outcome(first, 0, 1, True, 0.5),
                    *(Outcome(one, 0, 1, error_message="because") for one in (second, third)),
                ]
                submissions.write_outcomes(connection, outcomes)
            execute(
                self._engine,
                "UPDATE moderation_results SET status = 'pending', error_message = NULL, generation = 1"
                " WHERE message_id = :message_id",
                message_id=third,
            )
            execute(
                self._engine,
                "DELETE FROM moderation_results WHERE message_id = :message_id",
                message_id=fourth,
            )
            self.rows |= {first: ("completed", 0), second: ("failed", 0), third: ("pending", 1)}
            self.rounds += 1


def test_a_large_table_is_widened_beside_its_writers_and_loses_nothing(
    wide_database: Engine, database_url: str, empty_database: str
) -> None:
    before = execute(wide_database, "SELECT id, message_id, created_at FROM moderation_results ORDER BY id")
    writers = [Writer(wide_database) for _ in range(2)]
    migrate(empty_database)
    rounds = [writer.rounds for writer in writers]
    for writer, seen in zip(writers, rounds, strict=True):
        wait_until(
            lambda writer=writer, seen=seen: writer.rounds > seen,  # type: ignore[misc]
            deadline_s=60,
            what="the writers to continue",
        )
        writer.stop()
    assert schema(empty_database) == schema(database_url)
    after = execute(wide_database, "SELECT id, message_id, created_at FROM moderation_results ORDER BY id")
    assert after[: len(before)] == before
    states = execute(
        wide_database,
        "SELECT message_id, status, generation FROM moderation_results WHERE id > :last",
        last=before[-1][0],
    )
    written = {message_id: state for writer in writers for message_id, state in writer.rows.items()}
    assert {message_id: (status, generation) for message_id, status, generation in states} == written
    redriven = sum(generation for _, generation in written.values())
    assert execute(wide_database, "SELECT count(*) FROM submission_history") == [(redriven,)]
    assert execute(wide_database, "SELECT conname FROM pg_constraint WHERE NOT convalidated") == []
    assert execute(wide_database, "SELECT has_table_privilege('public', 'moderation_results', 'SELECT')") == [
        (True,)
    ]


def test_widening_that_was_killed_is_repeated_and_leaves_nothing_behind(
    wide_database: Engine, database_url: str, empty_database: str
) -> None:
    psql = psql_or_skip()
    with wide_database.connect() as reader:  # as long as it reads, the copy cannot take the table's place
        reader.exec_driver_sql("SELECT count(*) FROM moderation_results")
        run = subprocess.Popen([psql, "-q", "-d", empty_database, "-f", FILES[6]], stderr=subprocess.DEVNULL)
        try:
            wait_until(
                lambda: (
                    execute(
                        wide_database, "SELECT to_regclass('moderation_results_by_item_wide') IS NOT NULL"
                    )
                    == [(True,)]
                ),
                deadline_s=60,
                what="the copy to be complete",
            )
        finally:
            run.kill()
            run.wait()
        reader.rollback()
    submit(wide_database, [1])  # the trigger of the killed run is still there
    migrate(empty_database)
    migrate(empty_database)
    assert schema(empty_database) == schema(database_url)
    assert execute(wide_database, "SELECT count(*) FROM moderation_results") == [(2001,)]


def test_a_reader_of_what_the_widening_drops_at_its_end_is_waited_for(
    wide_database: Engine, database_url: str, empty_database: str
) -> None:
    psql = psql_or_skip()
    waits = (
        "SELECT EXISTS (SELECT FROM pg_locks"
        " WHERE relation = to_regclass('moderation_results_noted') AND NOT granted)"
    )
    copies = "SELECT to_regclass('moderation_results_noted') IS NOT NULL"
    run = subprocess.Popen(
        [psql, "-q", "-v", "ON_ERROR_STOP=1", "-d", empty_database, "-f", FILES[6]], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(
            lambda: execute(wide_database, copies) == [(True,)], deadline_s=60, what="the copy to begin"
        )
        with wide_database.connect() as reader:
            reader.exec_driver_sql("SELECT count(*) FROM moderation_results_noted")
            wait_until(
                lambda: run.poll() is not None or execute(wide_database, waits) == [(True,)],
                deadline_s=60,
                what="the widening to wait for the reader",
            )
            wait_until(
                lambda: run.poll() is not None or execute(wide_database, waits) == [(False,)],
                deadline_s=60,
                what="the end of its first attempt",
            )
            reader.rollback()
        assert run.wait(timeout=60) == 0
    finally:
        run.kill()
        run.wait()
    migrate(empty_database)
    assert schema(empty_database) == schema(database_url)


def test_a_run_waits_for_the_end_of_a_killed_one_that_the_server_continues(
    wide_database: Engine, database_url: str, empty_database: str
) -> None:
    psql = psql_or_skip()
    command = [psql, "-q", "-v", "ON_ERROR_STOP=1", "-d", empty_database, "-f", str(FILES[6])]
    copy = "SELECT CAST(to_regclass('moderation_results_wide') AS oid)"
    backends = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CALL pg_temp%'"
    )
    with wide_database.connect() as reader:  # as long as it reads, no copy can take the table's place
        reader.exec_driver_sql("SELECT count(*) FROM moderation_results")
        killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(lambda: execute(wide_database, copy) != [(None,)], deadline_s=60, what="the copy to begin")
        ((first,),) = execute(wide_database, backends)
        ((copied,),) = execute(wide_database, copy)
        killed.kill()
        killed.wait()
        again = subprocess.Popen(command)
        try:

            def has_ended() -> bool:
                """Whether the server has ended the killed run, whose copy nobody may have touched before."""
                found = execute(
                    wide_database,
                    f"SELECT ({copy}), EXISTS (SELECT FROM pg_stat_activity WHERE pid = {first})",
                )
                ((now, lives),) = found
                assert now == copied or not lives
                return not lives

            wait_until(has_ended, deadline_s=60, what="the server to end the killed run")
            reader.rollback()
            assert again.wait(timeout=60) == 0
        finally:
            again.kill()
            again.wait()
    migrate(empty_database)
    assert schema(empty_database) == schema(database_url)
    assert execute(wide_database, "SELECT count(*) FROM moderation_results") == [(2000,)]


def test_migration_files_are_numbered_without_a_gap() -> None:
    assert [file.name[:3] for file in FILES] == [f"V{number:02}" for number in range(1, len(FILES) + 1)]


def test_the_schema_is_not_empty(database_url: str) -> None:
    assert set(schema(database_url)) >= {"users", "items", "moderation_results"}


def test_the_first_two_files_have_the_names_that_the_readme_gives() -> None:
    assert [file.name for file in FILES[:2]] == ["V01__init_schema.sql", "V02__moderation_results.sql"]


@pytest.fixture
def full_database(empty_database: str) -> Iterator[Engine]:
    """A migrated database with a few submissions."""
    migrate(empty_database)
    engine = make_engine(empty_database)
    load_sample_ads(engine, 5)
    submit(engine, [1, 2, 3, 4, 5])
    yield engine
    engine.dispose()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name[:3])
def test_a_migration_repeated_beside_a_long_read_holds_up_no_submission(
    full_database: Engine, empty_database: str, file: Path
) -> None:
    psql = psql_or_skip()
    with full_database.connect() as reader:
        for table in metadata.tables:
            reader.exec_driver_sql(f"SELECT count(*) FROM {table}")
        writer = Writer(full_database)
        run = subprocess.Popen([psql, "-q", "-v", "ON_ERROR_STOP=1", "-d", empty_database, "-f", file])
        try:
            assert run.wait(60) == 0  # it finds everything there, and needs no lock
            rounds = writer.rounds
            wait_until(lambda: writer.rounds > rounds + 1, deadline_s=60, what="submissions to be accepted")
        finally:
            run.kill()
            run.wait()
            writer.stop()
        reader.rollback()


@pytest.mark.parametrize("file", FILES[6:], ids=lambda file: file.name[:3])
def test_a_migration_that_waits_for_a_long_transaction_holds_up_no_submission(
    wide_database: Engine, empty_database: str, file: Path
) -> None:
    psql = psql_or_skip()
    for before in FILES[6 : FILES.index(file)]:
        subprocess.run([psql, "-q", "-d", empty_database, "-f", before], check=True, capture_output=True)
    with wide_database.connect() as reader:
        for table in ("users", "items", "moderation_results", "judgements"):
            reader.exec_driver_sql(f"SELECT count(*) FROM {table}")
        # As an UPDATE does: a trigger is created beside reads, and not beside changes.
        reader.exec_driver_sql("LOCK TABLE users IN ROW EXCLUSIVE MODE")
        writer = Writer(wide_database)
        run = subprocess.Popen([psql, "-q", "-d", empty_database, "-f", file], stderr=subprocess.DEVNULL)
        try:
            waiting = (
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND application_name = 'psql' AND datname = current_database()"
            )
            for _ in range(3):
                wait_until(
                    lambda: execute(wide_database, waiting), deadline_s=60, what="the migration to wait"
                )
                rounds = writer.rounds
                wait_until(
                    lambda n=rounds: writer.rounds > n + 1,  # type: ignore[misc]
                    deadline_s=60,
                    what="submissions to be accepted",
                )
            assert run.poll() is None
            reader.rollback()
            assert run.wait(60) == 0
        finally:
            run.kill()
            run.wait()
            writer.stop()


def psql_or_skip() -> str:
    psql = shutil.which("psql")
    if psql is None:
        if os.environ.get("CI"):
            pytest.fail("there is no psql")
        pytest.skip("there is no psql")
    return psql
