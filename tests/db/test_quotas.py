"""The numbers of quotas: exact, of a day each, and no key waits for the lock of another one."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from db.api_keys import Taken, Unused, Wanted, give_back_in_loop, take_in_loop
from db.errors import RowLocked
from db.in_loop import LoopConnections, make_loop_connections
from tests.db.rows import execute


def run(engine: Engine, use: Callable[[LoopConnections], Awaitable[Any]]) -> Any:
    async def in_loop() -> Any:
        connections = make_loop_connections(engine.url.render_as_string(hide_password=False))
        try:
            return await use(connections)
        finally:
            connections.close()

    return asyncio.run(in_loop())


def used(engine: Engine) -> list[tuple[object, ...]]:
    return execute(engine, "SELECT key_id, day, used FROM api_key_usage ORDER BY key_id, day")


@pytest.fixture
def today(database: Engine) -> date:
    [(day,)] = execute(database, "SELECT CAST(now() AT TIME ZONE 'UTC' AS date)")
    assert isinstance(day, date)
    if datetime.now(UTC).hour == 23 and datetime.now(UTC).minute == 59:
        pytest.skip("the day ends")
    return day


def test_a_key_gets_as_many_ads_as_its_quota_has_left(database: Engine, today: date) -> None:
    async def use(connections: LoopConnections) -> list[dict[str, Taken]]:
        wanted = [Wanted("b", 5, 3), Wanted("a", 4, 9)]
        return [await take_in_loop(connections, wanted) for _ in range(2)]

    assert run(database, use) == [
        {"a": Taken(4, 4, today), "b": Taken(3, 3, today)},
        {"a": Taken(0, 4, today), "b": Taken(2, 5, today)},
    ]


def test_ads_return_to_the_day_from_which_they_were_taken(database: Engine, today: date) -> None:
    yesterday = today - timedelta(days=1)
    for day in (yesterday, today):
        execute(database, f"INSERT INTO api_key_usage VALUES ('a', '{day}', 9, 9), ('b', '{day}', 9, 9)")
    unused = [Unused("b", today, 2), Unused("a", yesterday, 4), Unused("a", today, 1), Unused("c", today, 1)]
    assert run(database, lambda connections: give_back_in_loop(connections, unused)) == {
        ("a", yesterday): 5,
        ("a", today): 8,
        ("b", today): 7,
    }
    assert used(database) == [
        ("a", yesterday, 5),
        ("a", today, 8),
        ("b", yesterday, 9),
        ("b", today, 7),
    ]


def test_a_locked_number_is_left_out_beside_others(database: Engine, today: date) -> None:
    execute(database, f"INSERT INTO api_key_usage VALUES ('a', '{today}', 9, 9), ('b', '{today}', 9, 9)")

    async def use(connections: LoopConnections) -> tuple[object, object]:
        taken = await take_in_loop(connections, [Wanted("c", 5, 1), Wanted("b", 20, 2), Wanted("a", 20, 1)])
        unused = [Unused("b", today, 1), Unused("a", today, 1)]
        return taken, await give_back_in_loop(connections, unused)

    with database.connect() as somebody:
        somebody.exec_driver_sql("SELECT FROM api_key_usage WHERE key_id = 'a' FOR UPDATE")
        assert run(database, use) == (
            {"b": Taken(2, 11, today), "c": Taken(1, 1, today)},
            {("b", today): 10},
        )
        somebody.rollback()
    assert used(database) == [("a", today, 9), ("b", today, 10), ("c", today, 1)]


def test_a_locked_number_is_waited_for_a_moment(database: Engine, today: date) -> None:
    execute(database, f"INSERT INTO api_key_usage VALUES ('a', '{today}', 9, 9)")
    with database.connect() as somebody:
        somebody.exec_driver_sql("SELECT FROM api_key_usage FOR UPDATE")
        with pytest.raises(RowLocked):
            run(database, lambda connections: give_back_in_loop(connections, [Unused("a", today, 1)]))
        with pytest.raises(RowLocked):
            run(database, lambda connections: take_in_loop(connections, [Wanted("a", 20, 1)]))
        somebody.rollback()
    assert used(database) == [("a", today, 9)]
