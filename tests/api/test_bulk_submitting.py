"""POST /async_predict/bulk: many ids, a status for each."""

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from api.schemas.submitting import MAX_BULK
from db.submissions import MAX_ID
from tests.api.problems import assert_problem
from tests.db.rows import execute
from tests.waiting import wait_until

PATH = "/async_predict/bulk"


def rows(engine: Engine) -> list[tuple[object, ...]]:
    return execute(engine, "SELECT id, item_id, status FROM moderation_results ORDER BY id")


def test_each_id_has_its_status_in_the_order_of_the_request(client: httpx.Client, database: Engine) -> None:
    response = client.post(PATH, json={"item_ids": [3, 99, 1, 3]})
    assert response.status_code == 200
    assert response.json() == {
        "accepted": 3,
        "results": [
            {"item_id": 3, "task_id": 1, "status": "pending"},
            {"item_id": 99, "task_id": None, "status": "not_found"},
            {"item_id": 1, "task_id": 2, "status": "pending"},
            {"item_id": 3, "task_id": 3, "status": "pending"},
        ],
    }
    assert rows(database) == [(1, 3, "pending"), (2, 1, "pending"), (3, 3, "pending")]


def test_a_thousand_ids_are_taken_and_one_more_is_422(client: httpx.Client, database: Engine) -> None:
    taken = client.post(PATH, json={"item_ids": [1, 2] * (MAX_BULK // 2)}).json()
    assert taken["accepted"] == len({one["task_id"] for one in taken["results"]}) == MAX_BULK
    assert "item_ids" in assert_problem(client.post(PATH, json={"item_ids": [1] * (MAX_BULK + 1)}), 422)
    assert len(rows(database)) == MAX_BULK


def test_bulk_submissions_are_published(client: httpx.Client, database: Engine) -> None:
    client.post(PATH, json={"item_ids": [1, 2, 3]})
    published = "SELECT count(*) FROM moderation_results WHERE publish_after IS NULL"
    wait_until(lambda: execute(database, published) == [(3,)], deadline_s=60, what="Kafka to have them")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"item_ids": None},
        {"item_ids": 1},
        {"item_ids": []},
        {"item_ids": {}},
        {"item_ids": [1, "2"]},
        {"item_ids": [1, 2.5]},
        {"item_ids": [1, True]},
        {"item_ids": [1, None]},
        {"item_ids": [0]},
        {"item_ids": [MAX_ID + 1]},
        {"item_ids": [10**30]},
        {"item_ids": [[1]]},
    ],
    ids=repr,
)
def test_a_body_that_is_not_a_list_of_ids_is_422_and_nothing_is_accepted(
    client: httpx.Client, database: Engine, body: Any
) -> None:
    assert "item_ids" in assert_problem(client.post(PATH, json=body), 422)
    assert rows(database) == []


def test_the_text_names_the_place_of_a_wrong_id(client: httpx.Client) -> None:
    assert "item_ids[2]" in assert_problem(client.post(PATH, json={"item_ids": [1, 2, "x", 4]}), 422)


def test_of_many_mistakes_some_are_named(client: httpx.Client) -> None:
    detail = assert_problem(client.post(PATH, json={"item_ids": ["x"] * MAX_BULK}), 422)
    assert detail.endswith(f"and {MAX_BULK - 3} more")


def test_without_a_body_the_text_says_what_is_expected(client: httpx.Client) -> None:
    assert "item_ids" in assert_problem(client.post(PATH), 422)
