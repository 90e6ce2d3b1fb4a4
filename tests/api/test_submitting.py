"""POST /async_predict: an ad's id goes in, a task's id comes out, or a sentence on what was wrong."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from db.submissions import MAX_ID
from tests.api.problems import assert_problem
from tests.db.rows import execute

JSON = {"content-type": "application/json"}


def rows(engine: Engine) -> list[tuple[object, ...]]:
    return execute(engine, "SELECT id, item_id, status FROM moderation_results ORDER BY id")


def test_an_ad_is_accepted_with_the_keys_of_the_seed_in_its_order(
    client: httpx.Client, database: Engine
) -> None:
    response = client.post("/async_predict?item_id=2")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert list(response.json().items()) == [
        ("task_id", 1),
        ("status", "pending"),
        ("message", "Moderation request accepted"),
    ]
    assert rows(database) == [(1, 2, "pending")]


def test_the_id_may_come_in_a_json_body(client: httpx.Client, database: Engine) -> None:
    assert client.post("/async_predict", json={"item_id": 3}).json()["task_id"] == 1
    assert rows(database) == [(1, 3, "pending")]


def test_further_keys_and_parameters_are_ignored(client: httpx.Client) -> None:
    assert client.post("/async_predict?source=shop", json={"item_id": 3, "note": [1]}).status_code == 200


def test_the_same_ad_again_is_another_task(client: httpx.Client) -> None:
    task_ids = {client.post("/async_predict?item_id=1").json()["task_id"] for _ in range(3)}
    assert task_ids == {1, 2, 3}


@pytest.mark.parametrize("item_id", [4, MAX_ID])
def test_an_unknown_ad_is_404_and_leaves_nothing_behind(
    client: httpx.Client, database: Engine, item_id: int
) -> None:
    detail = assert_problem(client.post(f"/async_predict?item_id={item_id}"), 404)
    assert str(item_id) in detail
    assert rows(database) == []


@pytest.mark.parametrize(
    "query",
    [
        "",
        "item_id=",
        "item_id=abc",
        "item_id=1.5",
        "item_id=1.",
        "item_id=.0",
        "item_id=1e3",
        "item_id=%2B1",
        "item_id=+1",
        "item_id=1+",
        "item_id=true",
        "item_id=null",
        "item_id=1_0",
        "item_id=%D9%A1",
        "item_id=0x1",
        "item_id=%00",
        "item_id=0",
        "item_id=-1",
        f"item_id={MAX_ID + 1}",
        "item_id=99999999999999999999",
        f"item_id={'9' * 5000}",
        "item_id=1&item_id=1",
        "item_id=1&item_id=2",
        "Item_Id=1",
    ],
)
def test_a_query_without_one_integer_in_range_is_422(
    client: httpx.Client, database: Engine, query: str
) -> None:
    detail = assert_problem(client.post(f"/async_predict?{query}"), 422)
    assert "item_id" in detail
    assert rows(database) == []


@pytest.mark.parametrize(
    "item_id", [True, False, None, 1.5, "1", [], [1], {}, 0, -1, MAX_ID + 1, 10**30], ids=repr
)
def test_a_body_whose_item_id_is_no_integer_in_range_is_422(
    client: httpx.Client, database: Engine, item_id: Any
) -> None:
    detail = assert_problem(client.post("/async_predict", json={"item_id": item_id}), 422)
    assert "item_id" in detail
    assert rows(database) == []


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "nothing",
        "[]",
        "[1]",
        "1",
        "null",
        '"item_id"',
        "{}",
        '{"item_id": NaN}',
        '{"item_id": 1}}',
        '{"item_id": 1, "item_id": 1}',
        '{"item_id": 1, "item_id": 2}',
        "[" * 100000,
        "\x00",
        "{'item_id': 1}",
        '{"item_id": ' + "9" * 5000 + "}",
        '{"ITEM_ID": 1}',
    ],
    ids=lambda body: body[:30],
)
def test_a_body_that_is_no_json_object_with_one_item_id_is_422(
    client: httpx.Client, database: Engine, body: str
) -> None:
    assert_problem(client.post("/async_predict", content=body, headers=JSON), 422)
    assert rows(database) == []


@pytest.mark.parametrize("body", [b"\xff", b'{"item_id": "\xff"}', b"\xff\xfe{"])
def test_a_body_that_is_not_text_is_422(client: httpx.Client, body: bytes) -> None:
    assert_problem(client.post("/async_predict", content=body, headers=JSON), 422)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_of_another_type_is_422_and_named(client: httpx.Client, content_type: str) -> None:
    response = client.post("/async_predict", content='{"item_id": 1}', headers={"content-type": content_type})
    assert content_type in assert_problem(response, 422)


def test_a_body_without_a_type_is_422(client: httpx.Client) -> None:
    assert "Content-Type" in assert_problem(client.post("/async_predict", content='{"item_id": 1}'), 422)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        'application/json;v=1; Charset="UTF-8"; x=y',
        "application/json; charset=us-ascii",
        "Application/JSON",
        "application/x+json",
    ],
)
def test_every_spelling_of_json_is_json(client: httpx.Client, content_type: str) -> None:
    response = client.post("/async_predict", content='{"item_id": 1}', headers={"content-type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-16",
        "application/json;charset=koi8-r",
        'application/json; x=y; CHARSET = "latin-1"',
        "application/json; charset=",
    ],
)
def test_a_charset_that_is_not_utf_8_is_422(client: httpx.Client, content_type: str) -> None:
    response = client.post("/async_predict", content='{"item_id": 1}', headers={"content-type": content_type})
    assert "UTF-8" in assert_problem(response, 422)


def test_an_id_in_the_query_and_in_the_body_is_422(client: httpx.Client, database: Engine) -> None:
    detail = assert_problem(client.post("/async_predict?item_id=1", json={"item_id": 1}), 422)
    assert "once" in detail
    assert rows(database) == []


def test_a_body_beyond_the_limit_is_413(client: httpx.Client) -> None:
    assert_problem(client.post("/async_predict", content=b" " * 1_100_000, headers=JSON), 413)


def test_a_body_sent_in_pieces_is_read_whole(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"item'
        yield b'_id": 2}'

    assert client.post("/async_predict", content=pieces(), headers=JSON).json()["status"] == "pending"


def test_requests_that_arrive_together_each_get_their_own_answer(
    client: httpx.Client, database: Engine
) -> None:
    item_ids = [1 + n % 4 for n in range(200)]  # ad 4 does not exist
    with ThreadPoolExecutor(32) as threads:
        responses = list(threads.map(lambda id_: client.post(f"/async_predict?item_id={id_}"), item_ids))
    accepted = {}
    for item_id, response in zip(item_ids, responses, strict=True):
        assert response.status_code == (404 if item_id == 4 else 200)
        if response.status_code == 200:
            accepted[response.json()["task_id"]] = item_id
    assert {task_id: item_id for task_id, item_id, _ in rows(database)} == accepted
    assert len(accepted) == 150
