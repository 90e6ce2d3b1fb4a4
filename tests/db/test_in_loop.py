"""Statements from an event loop: committed one by one, with the errors and the deadlines of the engine's."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.errors import DatabaseAway, DatabaseBusy, DatabaseRefused, SchemaMissing
from db.in_loop import LoopConnections, Statement, make_loop_connections
from db.submissions import NewSubmission, insert_pending_in_loop
from dev.ports import free_port
from dev.postgres import PostgresServer
from tests.db.rows import execute, load_sample_ads, submission_of
from tests.waiting import wait_until

WHO_AM_I = Statement(text("SELECT pg_backend_pid()"))
WHO_AM_I_ONCE_LOCKED = Statement(text("SELECT pg_advisory_xact_lock_shared(7), pg_backend_pid()"))
WAITING_FOR_THE_LOCK = (
    "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND NOT granted AND application_name = 'in the loop'"
)
MINE = "SELECT pid FROM pg_stat_activity WHERE application_name = 'in the loop'"


def connections_to(url: str, **limits: Any) -> LoopConnections:
    return make_loop_connections(url, application_name="in the loop", **limits)


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def run(url: str, use: Callable[[LoopConnections], Awaitable[Any]], **limits: Any) -> Any:
    async def in_loop() -> Any:
        connections = connections_to(url, **limits)
        try:
            return await use(connections)
        finally:
            connections.close()

    return asyncio.run(in_loop())


def test_what_was_inserted_is_committed_and_ads_that_are_not_there_get_no_row(database: Engine) -> None:
    load_sample_ads(database, 2)
    new = [NewSubmission("a", 2), NewSubmission("b's", 77), NewSubmission('c\\"{}%(x)s', 1)]
    task_ids = run(url_of(database), lambda c: insert_pending_in_loop(c, new, lease_s=30))
    assert set(task_ids) == {"a", 'c\\"{}%(x)s'}
    for message_id, task_id in task_ids.items():
        found = submission_of(database, message_id)
        assert found is not None
        assert (found.task_id, found.status) == (task_id, "pending")


def test_a_connection_serves_one_statement_after_the_other_and_three_at_once_take_three(
    database: Engine,
) -> None:
    with database.connect() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(7)"))

        async def use(connections: LoopConnections) -> list[set[Any]]:
            in_turn = {(await connections.execute(WHO_AM_I, {}))[0][0] for _ in range(5)}
            concurrent = asyncio.gather(*(connections.execute(WHO_AM_I_ONCE_LOCKED, {}) for _ in range(3)))
            await asyncio.to_thread(
                wait_until,
                lambda: len(execute(database, WAITING_FOR_THE_LOCK)) == 3,
                deadline_s=60,
                what="three statements to be under way at the same time",
            )
            holder.rollback()
            return [in_turn, {rows[0][1] for rows in await concurrent}]

        in_turn, concurrent = run(url_of(database), use)
    assert len(in_turn) == 1
    assert len(concurrent) == 3
    wait_until(lambda: not execute(database, MINE), deadline_s=60, what="the connections to be closed")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT 1 / 0", DatabaseRefused),
        ("SELECT * FROM no_such_table", SchemaMissing),
        ("SELECT pg_sleep(10)", DatabaseBusy),
    ],
)
def test_errors_are_told_apart_and_the_next_statement_is_answered(
    database: Engine, statement: str, error: type[Exception]
) -> None:
    async def use(connections: LoopConnections) -> Any:
        with pytest.raises(error):
            await connections.execute(Statement(text(statement)), {})
        return await connections.execute(WHO_AM_I, {})

    assert run(url_of(database), use, statement_timeout_s=0.1)


def test_no_server_at_the_address_is_a_temporary_connection_error() -> None:
    with pytest.raises(DatabaseAway):
        run(f"postgresql://user@127.0.0.1:{free_port()}/moderation", lambda c: c.execute(WHO_AM_I, {}))


def test_connections_are_good_again_after_postgresql_was_killed(postgres_server: PostgresServer) -> None:
    async def use(connections: LoopConnections) -> None:
        await connections.execute(WHO_AM_I, {})
        await asyncio.to_thread(postgres_server.kill)
        await asyncio.to_thread(postgres_server.start)
        assert await connections.execute(WHO_AM_I, {})

    run(postgres_server.url("moderation"), use)


def test_a_frozen_server_is_given_up_and_the_loop_goes_on_meanwhile(postgres_server: PostgresServer) -> None:
    turns = 0

    async def use(connections: LoopConnections) -> None:
        await connections.execute(WHO_AM_I, {})
        postgres_server.pause()
        try:
            asking = asyncio.ensure_future(connections.execute(WHO_AM_I, {}))
            nonlocal turns
            while not asking.done():
                turns += 1
                await asyncio.wait([asking], timeout=0.05)
            with pytest.raises(DatabaseAway, match="did not answer"):
                await asking
        finally:
            postgres_server.resume()

    run(postgres_server.url("moderation"), use, statement_timeout_s=0.5)
    assert turns > 1, "the loop stood still until the statement was given up"


def test_a_statement_that_was_given_up_does_not_answer_the_next_one(database: Engine) -> None:
    async def use(connections: LoopConnections) -> Any:
        slow = asyncio.ensure_future(connections.execute(Statement(text("SELECT 'slow', pg_sleep(5)")), {}))
        began_s = time.monotonic()
        while not execute(database, f"{MINE} AND query LIKE '%slow%' AND state = 'active'"):
            assert time.monotonic() < began_s + 20
            await asyncio.sleep(0)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        return await connections.execute(Statement(text("SELECT 'next'")), {})

    assert run(url_of(database), use) == [("next",)]
