"""Ids beyond 32 bits, of ads, sellers and tasks, pass through every route as JSON numbers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from db import submissions
from db.engine import transaction
from db.submissions import MAX_ID, Outcome
from tests.api.test_long_polling import LISTENING
from tests.db.rows import execute, submission_of
from tests.waiting import wait_until

PAST_32_BITS = 2**31


def ad(item_id: int) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "seller_id": item_id,
        "is_verified_seller": True,
        "name": "Велосипед",
        "description": "",
        "category": 19,
        "images_qty": 0,
    }


@pytest.mark.parametrize("item_id", [PAST_32_BITS, MAX_ID])
def test_an_ad_with_a_wide_id_is_stored_scored_and_submitted(
    client: httpx.Client, database: Engine, item_id: int
) -> None:
    assert client.post("/items", json=ad(item_id)).json() == {"item_id": item_id, "status": "created"}
    assert client.post(f"/simple_predict?item_id={item_id}").status_code == 200
    assert client.post("/predict", json=ad(item_id)).status_code == 200
    assert client.post(f"/async_predict?item_id={item_id}").json()["task_id"] == 1
    assert client.post("/async_predict", json={"item_id": item_id}).json()["task_id"] == 2
    bulk = client.post("/async_predict/bulk", json={"item_ids": [1, item_id]}).json()
    assert [result["task_id"] for result in bulk["results"]] == [3, 4]
    assert client.get("/submissions/4").json()["item_id"] == item_id
    listed = client.get(f"/moderation_results?item_id={item_id}").json()["results"]
    assert [result["task_id"] for result in listed] == [4, 2, 1]


@pytest.mark.parametrize("first", [PAST_32_BITS - 1, MAX_ID - 4])
def test_a_task_with_a_wide_id_is_found_paged_repeated_and_cancelled(
    client: httpx.Client, database: Engine, first: int
) -> None:
    execute(database, f"ALTER SEQUENCE moderation_results_id_seq RESTART WITH {first}")
    key = {"idempotency-key": "wide"}
    assert client.post("/async_predict?item_id=1", headers=key).json()["task_id"] == first
    assert client.post("/async_predict?item_id=1", headers=key).json()["task_id"] == first
    bulk = client.post("/async_predict/bulk", json={"item_ids": [1, 2]}).json()
    assert [result["task_id"] for result in bulk["results"]] == [first + 1, first + 2]
    assert client.get(f"/moderation_result/{first + 2}").json()["task_id"] == first + 2
    page = client.get("/moderation_results?limit=2").json()
    assert [result["task_id"] for result in page["results"]] == [first + 2, first + 1]
    following = client.get(f"/moderation_results?cursor={page['next_cursor']}").json()
    assert [result["task_id"] for result in following["results"]] == [first]
    assert client.post(f"/moderation_result/{first + 1}/cancel").json()["status"] == "cancelled"


def test_who_waits_for_a_task_with_a_wide_id_hears_of_its_outcome(
    client: httpx.Client, database: Engine
) -> None:
    execute(database, f"ALTER SEQUENCE moderation_results_id_seq RESTART WITH {MAX_ID}")
    others = set(execute(database, LISTENING))
    task_id = client.post("/async_predict?item_id=1").json()["task_id"]
    [(message_id,)] = execute(database, "SELECT message_id FROM moderation_results")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.get, f"/moderation_result/{task_id}?wait=10")
        wait_until(
            lambda: set(execute(database, LISTENING)) - others or others,
            deadline_s=60,
            what="the API to listen",
        )
        with transaction(database) as connection:
            submissions.write_outcomes(connection, [Outcome(str(message_id), 0, 1, True, 0.5)])
        assert waiting.result().json()["status"] == "completed"
    found = submission_of(database, str(message_id))
    assert found is not None
    assert found.task_id == MAX_ID


def test_the_outcomes_of_many_tasks_with_wide_ids_fit_into_their_notifications(
    client: httpx.Client, database: Engine
) -> None:
    count = 1_000
    execute(database, f"ALTER SEQUENCE moderation_results_id_seq RESTART WITH {MAX_ID - count}")
    assert client.post("/async_predict/bulk", json={"item_ids": [1] * count}).json()["accepted"] == count
    rows = execute(database, "SELECT message_id FROM moderation_results")
    with transaction(database) as connection:
        outcomes = [Outcome(str(message_id), 0, 1, True, 0.5) for (message_id,) in rows]
        assert len(submissions.write_outcomes(connection, outcomes)) == count
