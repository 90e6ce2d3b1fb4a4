"""The engine: psycopg2 whatever the URL says, deadlines everywhere, errors in our own words."""

import os

import pytest
from psycopg2.extensions import connection as Psycopg2Connection
from psycopg2.extensions import set_wait_callback
from sqlalchemy import Engine, make_url

from db import waiting
from db.engine import autocommitting, make_engine, psycopg2_url, transaction
from db.errors import DatabaseAway, DatabaseBusy, DatabaseRefused, DatabaseUnavailable, SchemaMissing
from dev.ports import free_port
from dev.postgres import PostgresServer
from tests.db.rows import execute
from tests.waiting import wait_until


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_usual_spelling_of_the_url_means_psycopg2(scheme: str) -> None:
    url = psycopg2_url(f"{scheme}://user:p%40ss@host:5433/moderation?sslmode=require")
    assert url.drivername == "postgresql+psycopg2"
    assert (url.password, url.port, url.query["sslmode"]) == ("p@ss", 5433, "require")


@pytest.mark.parametrize(
    "url",
    ["mysql://user@host/db", "postgresql+psycopg://user@host/db", "not a url", "postgresql://host:port/db"],
)
def test_another_url_is_refused_with_what_it_should_look_like(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://"):
        make_engine(url)


def test_a_statement_past_its_deadline_is_a_temporary_error(database: Engine) -> None:
    engine = make_engine(database.url.render_as_string(hide_password=False), statement_timeout_s=0.1)
    with pytest.raises(DatabaseBusy, match="statement timeout"):
        execute(engine, "SELECT pg_sleep(10)")
    engine.dispose()


def test_a_parameter_in_the_url_wins_over_the_default(database: Engine) -> None:
    url = database.url.update_query_dict({"application_name": "from the url"})
    engine = make_engine(url.render_as_string(hide_password=False))
    assert execute(engine, "SHOW application_name") == [("from the url",)]
    engine.dispose()


def test_a_pool_without_a_free_connection_is_a_temporary_error(database: Engine) -> None:
    url = database.url.render_as_string(hide_password=False)
    engine = make_engine(url, pool_size=1, statement_timeout_s=0.1)
    with transaction(engine), pytest.raises(DatabaseBusy, match="pool"):
        execute(engine, "SELECT 1")
    engine.dispose()


def test_no_server_at_the_address_is_a_temporary_connection_error() -> None:
    engine = make_engine(f"postgresql://user@127.0.0.1:{free_port()}/moderation")
    with pytest.raises(DatabaseAway) as raised:
        execute(engine, "SELECT 1")
    assert isinstance(raised.value, ConnectionError)
    assert isinstance(raised.value, DatabaseUnavailable)


def test_a_database_that_does_not_exist_yet_is_a_temporary_error(database: Engine) -> None:
    engine = make_engine(database.url.set(database="nowhere").render_as_string(hide_password=False))
    with pytest.raises(DatabaseAway, match="nowhere"):
        execute(engine, "SELECT 1")


def test_a_missing_table_says_that_the_migrations_are_not_applied(database: Engine) -> None:
    with pytest.raises(SchemaMissing, match="migrations"):
        execute(database, "SELECT * FROM no_such_table")


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1 / 0", "INSERT INTO items (seller_id) VALUES (1)", "SELEC", "SELECT CAST('x' AS int)"],
)
def test_what_postgresql_will_never_take_is_a_permanent_error(database: Engine, statement: str) -> None:
    with pytest.raises(DatabaseRefused) as raised:
        execute(database, statement)
    assert not isinstance(raised.value, DatabaseUnavailable)


def test_a_failed_block_leaves_nothing_behind(database: Engine) -> None:
    def fail_half_way() -> None:
        with transaction(database) as connection:
            connection.exec_driver_sql("INSERT INTO users DEFAULT VALUES")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert execute(database, "SELECT count(*) FROM users") == [(0,)]


def test_connections_are_good_again_after_postgresql_was_killed(postgres_server: PostgresServer) -> None:
    engine = make_engine(postgres_server.url("moderation"))
    execute(engine, "SELECT 1")
    postgres_server.kill()
    postgres_server.start()
    assert execute(engine, "SELECT 1") == [(1,)]
    engine.dispose()


def test_a_connection_that_postgresql_ended_while_it_was_idle_is_replaced(database: Engine) -> None:
    engine = make_engine(database.url.render_as_string(hide_password=False), pool_size=1)
    for _ in range(3):
        [(pid,)] = execute(engine, "SELECT pg_backend_pid()")
        assert execute(engine, "SELECT pg_backend_pid()") == [(pid,)]  # until then it is kept
        execute(database, "SELECT pg_terminate_backend(:pid, 20000)", pid=pid)
        assert execute(engine, "SELECT pg_backend_pid()") != [(pid,)]
    engine.dispose()


def test_a_connection_that_breaks_in_a_transaction_is_a_temporary_error(
    postgres_server: PostgresServer,
) -> None:
    engine = make_engine(postgres_server.url("moderation"))

    def lose_the_server_half_way() -> None:
        with transaction(engine) as connection:
            connection.exec_driver_sql("INSERT INTO users DEFAULT VALUES")
            postgres_server.kill()
            connection.exec_driver_sql("INSERT INTO users DEFAULT VALUES")

    with pytest.raises(DatabaseAway):
        lose_the_server_half_way()
    engine.dispose()


def test_a_frozen_server_is_a_temporary_connection_error_and_not_waited_for(
    postgres_server: PostgresServer,
) -> None:
    engine = make_engine(postgres_server.url("moderation"), statement_timeout_s=0.2, connect_timeout_s=1)
    execute(engine, "SELECT 1")
    postgres_server.pause()
    for _ in range(2):  # on the connection that there is, then on a new one
        with pytest.raises(DatabaseAway, match="did not answer"):
            execute(engine, "SELECT 1")
    postgres_server.resume()
    assert execute(engine, "SELECT 1") == [(1,)]
    engine.dispose()


def test_a_server_that_freezes_after_the_last_statement_fails_nothing_and_costs_the_pool_no_connection(
    postgres_server: PostgresServer,
) -> None:
    engine = make_engine(postgres_server.url("moderation"), pool_size=1, statement_timeout_s=0.2)
    execute(engine, "DELETE FROM users")
    with transaction(autocommitting(engine)) as connection:
        connection.exec_driver_sql("SELECT 1")
    with transaction(autocommitting(engine)) as connection:
        connection.exec_driver_sql("INSERT INTO users DEFAULT VALUES")
        postgres_server.pause()
    postgres_server.resume()
    assert execute(engine, "SELECT count(*) FROM users") == [(1,)]
    engine.dispose()


def test_a_statement_that_is_committed_by_itself_costs_one_round_trip(database: Engine) -> None:
    round_trips = 0

    def count(connection: Psycopg2Connection) -> None:
        nonlocal round_trips
        round_trips += 1
        waiting._wait(connection)

    engine = make_engine(database.url.render_as_string(hide_password=False), pool_size=1)
    execute(engine, "SELECT 1")  # connects
    set_wait_callback(count)
    try:
        for _ in range(3):
            with transaction(autocommitting(engine)) as connection:
                connection.exec_driver_sql("SELECT 1")
    finally:
        set_wait_callback(waiting._wait)
    assert round_trips == 3
    engine.dispose()


def test_a_forked_child_leaves_its_parents_connections_alone(database: Engine) -> None:
    engine = make_engine(make_url(database.url).render_as_string(hide_password=False), pool_size=1)
    parents = execute(engine, "SELECT pg_backend_pid()")
    child = os.fork()
    if child == 0:
        # Its own connection, not the inherited one; and leaving must not close the parent's.
        os._exit(0 if execute(engine, "SELECT pg_backend_pid()") != parents else 1)
    _, status = wait_until(lambda: os.waitpid(child, 0), deadline_s=60, what="the child")
    assert os.waitstatus_to_exitcode(status) == 0
    assert execute(engine, "SELECT pg_backend_pid()") == parents
    engine.dispose()
