"""A PgBouncer between the product and PostgreSQL, in session mode and in transaction mode."""

import asyncio
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg2
import pytest
from sqlalchemy import Engine, text

from bench import plans
from db import sessions, submissions
from db.engine import autocommitting, make_engine, transaction
from db.errors import DatabaseBusy
from db.in_loop import Statement, make_loop_connections
from db.outcome_notifications import OutcomeListener, with_outcome
from db.sessions import SessionsAreShared
from db.submissions import Outcome
from tests.db.rows import execute, load_sample_ads, submit
from tests.pgbouncer import PgBouncer

both_modes = pytest.mark.parametrize("mode", ["session", "transaction"])
LIMITS = "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
NONE = ("0", "0")
DEADLINE_S = 60


@contextmanager
def engine_on(url: str, **arguments: float) -> Iterator[Engine]:
    engine = make_engine(url, **arguments)  # type: ignore[arg-type]
    yield engine
    engine.dispose()


def as_another_client(pooler: PgBouncer, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(pooler.url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())
    finally:
        connection.close()


def finish(engine: Engine, message_id: str) -> None:
    with transaction(engine) as connection:
        submissions.write_outcomes(
            connection, [Outcome(message_id, 0, 1, is_violation=True, probability=0.9)]
        )


# ------------------------------------------------------------------ limits


@both_modes
def test_transactions_have_their_limits_behind_a_pooler_and_other_clients_do_not(
    pgbouncer: Callable[..., PgBouncer], mode: str
) -> None:
    pooler = pgbouncer(mode, default_pool_size="1")
    with engine_on(pooler.url, statement_timeout_s=5) as engine:
        with transaction(engine) as connection:
            assert connection.execute(text("SELECT 1")).one() == (1,)
            assert connection.execute(text(LIMITS)).one() == ("5s", "1min")
        with transaction(autocommitting(engine)) as connection:
            assert connection.execute(text(LIMITS)).one() == ("5s", "0")
    assert as_another_client(pooler, LIMITS) == [NONE]
    assert pooler.warnings == []


@both_modes
def test_a_statement_past_its_deadline_is_cancelled_behind_a_pooler(
    pgbouncer: Callable[..., PgBouncer], mode: str
) -> None:
    with engine_on(pgbouncer(mode).url, statement_timeout_s=0.1) as engine:
        for limited in (engine, autocommitting(engine)):
            with pytest.raises(DatabaseBusy, match="statement timeout"):
                execute(limited, "SELECT pg_sleep(10)")


@both_modes
def test_statements_of_a_loop_have_their_limit_behind_a_pooler(
    pgbouncer: Callable[..., PgBouncer], mode: str
) -> None:
    pooler = pgbouncer(mode, default_pool_size="1")

    async def use() -> None:
        connections = make_loop_connections(pooler.url, statement_timeout_s=0.5)
        try:
            assert await connections.execute(Statement(text(LIMITS)), {}) == [("500ms", "0")]
            with pytest.raises(DatabaseBusy, match="statement timeout"):
                await connections.execute(Statement(text("SELECT pg_sleep(10)")), {})
        finally:
            connections.close()

    asyncio.run(use())
    assert as_another_client(pooler, LIMITS) == [NONE]
    assert pooler.warnings == []


def test_a_limit_in_the_options_of_the_url_wins(database: Engine) -> None:
    url = database.url.update_query_dict({"options": "-c statement_timeout=7s"})
    with engine_on(url.render_as_string(hide_password=False)) as engine, transaction(engine) as connection:
        assert connection.execute(text(LIMITS)).one() == ("7s", "1min")


# ------------------------------------------------------------------ sessions


def test_no_statement_of_the_product_leaves_anything_in_a_session(
    database: Engine, pgbouncer: Callable[..., PgBouncer]
) -> None:
    plans.load(database, 1_000)
    pooler = pgbouncer("transaction", default_pool_size="1")
    [before] = as_another_client(pooler, "SELECT pg_backend_pid()")
    with engine_on(pooler.url) as engine:
        for call in plans.CALLS.values():
            with transaction(engine) as connection:
                call(connection)
        with pytest.raises(SessionsAreShared):
            OutcomeListener(engine)
    left = as_another_client(
        pooler,
        "SELECT 'setting ' || name FROM pg_settings WHERE source = 'session'"
        # What a client names in its first message, PgBouncer sets in the session that the client gets.
        " AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone',"
        "  'standard_conforming_strings')"
        " UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements"
        " UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''"
        " UNION ALL SELECT 'channel ' || channel FROM pg_listening_channels() AS channel"
        " UNION ALL SELECT 'lock ' || objid FROM pg_locks"
        "  WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        " UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    )
    assert left == []
    assert as_another_client(pooler, "SELECT pg_backend_pid()") == [before]
    assert pooler.warnings == []


@both_modes
def test_migrations_are_refused_where_sessions_are_shared(
    pgbouncer: Callable[..., PgBouncer], mode: str
) -> None:
    refusal = sessions.main(pgbouncer(mode).url)
    assert (refusal is None) == (mode == "session")
    assert refusal is None or "name PostgreSQL itself" in refusal


# ------------------------------------------------------------------ outcomes


def test_an_outcome_is_notified_through_a_pooler_in_session_mode(
    database: Engine, pgbouncer: Callable[..., PgBouncer]
) -> None:
    load_sample_ads(database, 1)
    [message_id] = submit(database)
    pooler = pgbouncer("session")
    with engine_on(pooler.url) as engine:
        listener = OutcomeListener(engine)
        finish(engine, message_id)
        assert select.select([listener], [], [], DEADLINE_S)[0]
        assert listener.read() == [1]
        listener.close()
    assert pooler.warnings == []


@pytest.mark.parametrize(
    "settings",
    [{}, {"server_round_robin": "1"}, {"default_pool_size": "1"}],
    ids=["last used first", "in turn", "one session"],
)
def test_nothing_listens_through_a_pooler_in_transaction_mode(
    database: Engine, pgbouncer: Callable[..., PgBouncer], settings: dict[str, str]
) -> None:
    load_sample_ads(database, 1)
    pending, message_id = submit(database, [1, 1])
    pooler = pgbouncer("transaction", **settings)
    with engine_on(pooler.url) as engine:
        for _ in range(3):
            with pytest.raises(SessionsAreShared):
                OutcomeListener(engine)
        finish(engine, message_id)
        with transaction(autocommitting(engine)) as connection:
            assert with_outcome(connection, [1, 2, 77]) == [2]
    assert pending != message_id
    assert pooler.warnings == []


def test_a_pooler_in_transaction_mode_is_known_while_others_use_it(
    pgbouncer: Callable[..., PgBouncer],
) -> None:
    pooler = pgbouncer("transaction")
    is_over = threading.Event()

    def use(engine: Engine) -> None:
        while not is_over.is_set():
            execute(engine, "SELECT pg_sleep(0.001)")

    with ExitStack() as stack:
        engines = [stack.enter_context(engine_on(pooler.url)) for _ in range(5)]
        users = [threading.Thread(target=use, args=[engine]) for engine in engines[1:]]
        for user in users:
            user.start()
        try:
            for _ in range(20):
                with pytest.raises(SessionsAreShared):
                    OutcomeListener(engines[0])
        finally:
            is_over.set()
            for user in users:
                user.join()
    assert pooler.warnings == []
