"""Idempotency-Key: a request sent again leads to the same tasks, whoever meets whom."""

import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import Engine

from db import idempotency
from db.engine import transaction
from tests.api.problems import assert_problem
from tests.db.rows import execute

BULK = "/async_predict/bulk"


def submit(client: httpx.Client, key: str, item_id: int = 1) -> httpx.Response:
    return client.post(f"/async_predict?item_id={item_id}", headers={"idempotency-key": key})


def rows(engine: Engine) -> int:
    [(count,)] = execute(engine, "SELECT count(*) FROM moderation_results")
    assert isinstance(count, int)
    return count


def test_the_same_request_again_is_the_same_task(client: httpx.Client, database: Engine) -> None:
    first, again = submit(client, '"a"'), submit(client, '"a"')
    assert first.status_code == 200
    assert again.json() == first.json()
    in_body = client.post("/async_predict", json={"item_id": 1}, headers={"idempotency-key": '"a"'})
    assert in_body.json() == first.json()
    assert rows(database) == 1


def test_another_key_is_another_task(client: httpx.Client) -> None:
    task_ids = {submit(client, f'"{key}"').json()["task_id"] for key in range(3)}
    assert len(task_ids) == 3


def test_the_same_key_with_another_request_is_422_and_accepts_nothing(
    client: httpx.Client, database: Engine
) -> None:
    submit(client, '"a"')
    assert "Idempotency-Key" in assert_problem(submit(client, '"a"', item_id=2), 422)
    bulk = client.post(BULK, json={"item_ids": [1]}, headers={"idempotency-key": '"a"'})
    assert "Idempotency-Key" in assert_problem(bulk, 422)
    assert rows(database) == 1


def test_a_bulk_request_again_is_the_same_tasks_in_the_same_places(
    client: httpx.Client, database: Engine
) -> None:
    headers = {"idempotency-key": '"a"'}
    first = client.post(BULK, json={"item_ids": [3, 99, 1, 3]}, headers=headers)
    again = client.post(BULK, json={"item_ids": [3, 99, 1, 3]}, headers=headers)
    assert again.json() == first.json()
    assert rows(database) == 3
    assert_problem(client.post(BULK, json={"item_ids": [3, 1, 99, 3]}, headers=headers), 422)


def test_a_request_that_named_no_ad_leaves_its_key_free(client: httpx.Client) -> None:
    assert_problem(submit(client, '"a"', item_id=99), 404)
    assert submit(client, '"a"', item_id=1).status_code == 200


@pytest.mark.parametrize(("one", "other"), [('"a-b"', "a-b"), (r'"a\"b\\c"', r'"a\"b\\c"')])
def test_quotes_are_no_part_of_the_key(client: httpx.Client, one: str, other: str) -> None:
    assert submit(client, one).json() == submit(client, other).json()


@pytest.mark.parametrize(
    "key", ["", '""', '"', '"a', 'a"b', "a b", '"a" "b"', "a,b", '"a";q=1', r'"\a"', '"' + "x" * 256 + '"']
)
def test_a_key_that_is_no_string_is_400(client: httpx.Client, database: Engine, key: str) -> None:
    assert "Idempotency-Key" in assert_problem(submit(client, key), 400)
    assert rows(database) == 0


def test_two_keys_are_400(client: httpx.Client) -> None:
    headers = [("idempotency-key", '"a"'), ("idempotency-key", '"b"')]
    assert_problem(client.post("/async_predict?item_id=1", headers=headers), 400)


def test_after_its_time_a_key_is_free(client: httpx.Client, database: Engine) -> None:
    first = submit(client, '"a"').json()["task_id"]
    execute(database, "UPDATE idempotency_keys SET expires_at = now()")
    second = submit(client, '"a"', item_id=2)
    assert second.status_code == 200
    assert second.json()["task_id"] != first
    assert submit(client, '"a"', item_id=2).json() == second.json()


def test_while_a_request_with_the_key_is_under_way_elsewhere_it_is_409_and_nobody_else_waits(
    client: httpx.Client, database: Engine
) -> None:
    with transaction(database) as elsewhere, ThreadPoolExecutor(2) as threads:
        assert idempotency.lock_free(elsewhere, ["held"])
        twin = threads.submit(submit, client, '"held"')
        assert submit(client, '"other"').status_code == 200
        assert client.post("/async_predict?item_id=2").status_code == 200
        response = twin.result()
        assert_problem(response, 409)
        assert int(response.headers["retry-after"]) > 0
    assert submit(client, '"held"').status_code == 200


def test_a_key_is_remembered_only_with_its_rows(client: httpx.Client, database: Engine) -> None:
    execute(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '22000'; END $$",
    )
    execute(
        database,
        "CREATE TRIGGER refuse BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    try:
        assert_problem(submit(client, '"a"'), 500)
    finally:
        execute(database, "DROP TRIGGER refuse ON idempotency_keys")
        execute(database, "DROP FUNCTION refuse")
    assert rows(database) == 0
    assert submit(client, '"a"').status_code == 200


def test_concurrent_twins_are_one_task_and_their_neighbours_get_their_own(
    client: httpx.Client, database: Engine
) -> None:
    seeded = random.Random(7)
    # One key in three is absent; a quarter of the rest ask for something else than their twins.
    asked = [
        (f'"{seeded.randrange(20)}"' if seeded.random() < 0.7 else "", 1 if seeded.random() < 0.75 else 2)
        for _ in range(200)
    ]

    def ask(one: tuple[str, int]) -> httpx.Response:
        key, item_id = one
        return client.post(
            f"/async_predict?item_id={item_id}", headers={"idempotency-key": key} if key else {}
        )

    with ThreadPoolExecutor(32) as threads:
        responses = list(threads.map(ask, asked))
    tasks: dict[str, set[tuple[int, int]]] = {}
    unnamed = 0
    for (key, item_id), response in zip(asked, responses, strict=True):
        if response.status_code == 200 and key:
            tasks.setdefault(key, set()).add((response.json()["task_id"], item_id))
        elif key:
            assert_problem(response, 422)
        else:
            assert response.status_code == 200
            unnamed += 1
    assert len(tasks) == len({key for key, _ in asked if key})
    assert all(len(of_key) == 1 for of_key in tasks.values())
    assert rows(database) == unnamed + len(tasks)
