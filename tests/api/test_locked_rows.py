"""A row that somebody keeps locked delays the requests that need it, for a moment, and no others."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from tests.api.problems import assert_problem
from tests.db.rows import execute, submit

AD: dict[str, Any] = {
    "item_id": 1,
    "seller_id": 1,
    "is_verified_seller": False,
    "name": "Диван",
    "description": "Мягкий",
    "category": 5,
    "images_qty": 3,
}


@pytest.mark.parametrize(
    ("lock", "method", "path", "body"),
    [
        ("moderation_results", "POST", "/moderation_result/1/cancel", None),
        ("items", "POST", "/items", AD),
        ("users", "POST", "/items/bulk", {"items": [AD]}),
    ],
)
def test_a_change_of_a_locked_row_is_503_and_the_other_requests_are_answered(
    client: httpx.Client, database: Engine, lock: str, method: str, path: str, body: object
) -> None:
    submit(database, [1, 2])
    clients = 12
    with database.connect() as somebody, ThreadPoolExecutor(clients) as threads:
        somebody.exec_driver_sql(f"SELECT FROM {lock} WHERE id = 1 FOR UPDATE")
        locked = [threads.submit(client.request, method, path, json=body) for _ in range(clients)]
        assert client.post("/moderation_result/2/cancel").json()["status"] == "cancelled"
        assert client.post("/items", json={**AD, "item_id": 4, "seller_id": 4}).status_code == 200
        assert len(client.get("/moderation_results").json()["results"]) == 2
        for response in locked:
            assert_problem(response.result(), 503)
        somebody.rollback()
    assert client.request(method, path, json=body).status_code == 200


def test_the_locked_row_of_an_expired_key_delays_that_key_only(
    client: httpx.Client, database: Engine
) -> None:
    execute(
        database,
        "INSERT INTO idempotency_keys VALUES ('locked', 'x', '{}', now() - interval '1 day')",
    )

    def ask(key: str) -> httpx.Response:
        return client.post("/async_predict?item_id=1", headers={"idempotency-key": key})

    with database.connect() as somebody, ThreadPoolExecutor(9) as threads:
        somebody.exec_driver_sql("SELECT FROM idempotency_keys WHERE key = 'locked' FOR UPDATE")
        asked = [threads.submit(ask, key) for key in ("locked", *map(str, range(8)))]
        assert_problem(asked[0].result(), 503)
        assert [one.result().status_code for one in asked[1:]] == [200] * 8
        somebody.rollback()
    assert ask("locked").status_code == 200


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("judgements", "/submissions/1"),
        ("submission_history", "/submissions/1"),
        ("moderation_results", "/moderation_result/1"),
        ("moderation_results", "/moderation_results"),
        ("items", "/async_predict?item_id=1"),
    ],
)
def test_a_request_whose_table_is_locked_is_503_and_the_others_are_answered_before(
    client: httpx.Client, database: Engine, table: str, path: str
) -> None:
    submit(database)
    method = "POST" if "predict" in path else "GET"
    others = ["/livez", "/docs"]
    if table in ("judgements", "submission_history"):
        others += ["/moderation_result/1", "/moderation_results"]
    with database.connect() as somebody, ThreadPoolExecutor(16) as threads:
        somebody.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        locked = [threads.submit(client.request, method, path) for _ in range(16)]
        for other in others:
            assert client.get(other).status_code == 200
        if table in ("judgements", "submission_history"):  # one after the other, for many times as long
            assert not all(one.done() for one in locked)
        for response in locked:
            assert_problem(response.result(), 503)
        somebody.rollback()
    assert client.request(method, path).status_code == 200


def test_a_locked_table_of_keys_fails_no_request_without_a_key(
    client: httpx.Client, database: Engine
) -> None:
    def ask(key: str) -> httpx.Response:
        return client.post("/async_predict?item_id=1", headers={"idempotency-key": key} if key else {})

    with database.connect() as somebody, ThreadPoolExecutor(16) as threads:
        somebody.exec_driver_sql("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE")
        asked = [(key, threads.submit(ask, key)) for key in ("1", "", "2", "", "3", "", "4", "") * 4]
        for key, response in asked:
            assert response.result().status_code == (503 if key else 200)
        somebody.rollback()
    assert ask("1").status_code == 200
