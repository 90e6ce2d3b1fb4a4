"""GET /moderation_result/{task_id}: the seed's three shapes."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import Engine

from db import submissions
from db.engine import transaction
from db.submissions import MAX_ID, Outcome
from tests.api.problems import assert_problem
from tests.db.rows import submit


def finish(engine: Engine, outcome: Outcome) -> None:
    with transaction(engine) as connection:
        submissions.write_outcomes(connection, [outcome])


def test_a_pending_task_has_neither_verdict_nor_error(client: httpx.Client, database: Engine) -> None:
    submit(database)
    response = client.get("/moderation_result/1")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert list(response.json().items()) == [
        ("task_id", 1),
        ("status", "pending"),
        ("is_violation", None),
        ("probability", None),
    ]


def test_a_completed_task_has_its_verdict_and_no_error(client: httpx.Client, database: Engine) -> None:
    [message_id] = submit(database)
    finish(database, Outcome(message_id, 0, 1, is_violation=True, probability=0.87))
    assert list(client.get("/moderation_result/1").json().items()) == [
        ("task_id", 1),
        ("status", "completed"),
        ("is_violation", True),
        ("probability", 0.87),
    ]


def test_a_failed_task_has_its_error_and_no_verdict(client: httpx.Client, database: Engine) -> None:
    [message_id] = submit(database)
    finish(database, Outcome(message_id, 0, 1, error_message='a "quoted" ошибка\n'))
    assert list(client.get("/moderation_result/1").json().items()) == [
        ("task_id", 1),
        ("status", "failed"),
        ("is_violation", None),
        ("probability", None),
        ("error", 'a "quoted" ошибка\n'),
    ]


@pytest.mark.parametrize("probability", [0.0, 1.0, 0.1 + 0.2, 1e-17])
def test_a_probability_is_given_exactly(client: httpx.Client, database: Engine, probability: float) -> None:
    [message_id] = submit(database)
    finish(database, Outcome(message_id, 0, 1, is_violation=False, probability=probability))
    assert client.get("/moderation_result/1").json()["probability"] == probability


@pytest.mark.parametrize("task_id", [1, MAX_ID])
def test_an_unknown_task_is_404_and_never_pending(client: httpx.Client, task_id: int) -> None:
    assert str(task_id) in assert_problem(client.get(f"/moderation_result/{task_id}"), 404)


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        "abc",
        "0",
        "-1",
        "1.5",
        "+1",
        "%2B1",
        "1%20",
        "1%2F2",
        "%D9%A1",
        "%ff",
        "%00",
        "null",
        str(MAX_ID + 1),
        "9" * 5000,
        "0" * 5000,
        "-" + "0" * 5000 + "1",
        "0" * 5000 + "9" * 100,
    ],
    ids=lambda task_id: task_id[:20],
)
def test_a_task_id_that_is_no_integer_in_range_is_422(client: httpx.Client, task_id: str) -> None:
    assert "task_id" in assert_problem(client.get(f"/moderation_result/{task_id}"), 422)


@pytest.mark.parametrize("zeros", [1, 4_299, 5_000])
def test_leading_zeros_of_an_integer_mean_nothing_however_many_there_are(
    client: httpx.Client, database: Engine, zeros: int
) -> None:
    submit(database)
    one = "0" * zeros + "1"
    assert client.get(f"/moderation_result/{one}").json()["task_id"] == 1
    assert client.get(f"/submissions/{one}").json()["task_id"] == 1
    for parameter in ("limit", "item_id"):
        listed = client.get(f"/moderation_results?{parameter}={one}").json()["results"]
        assert [row["task_id"] for row in listed] == [1]
    assert client.get(f"/moderation_results?cursor={one}").json()["results"] == []
    assert client.get(f"/moderation_result/1?wait={'0' * zeros}").status_code == 200
    assert client.post(f"/async_predict?item_id={one}").json()["task_id"] == 2


def test_an_absent_task_id_is_422(client: httpx.Client) -> None:
    assert "task_id" in assert_problem(client.get("/moderation_result"), 422)


def test_results_asked_together_are_not_mixed_up(client: httpx.Client, database: Engine) -> None:
    submit(database, [1, 2, 3] * 20)
    asked = [1 + n % 70 for n in range(210)]  # 61..70 do not exist
    with ThreadPoolExecutor(32) as threads:
        responses = list(threads.map(lambda id_: client.get(f"/moderation_result/{id_}"), asked))
    for task_id, response in zip(asked, responses, strict=True):
        if task_id > 60:
            assert_problem(response, 404)
        else:
            assert response.json()["task_id"] == task_id


def test_head_gives_the_headers_of_get_without_a_body(client: httpx.Client, database: Engine) -> None:
    submit(database)
    got, headed = client.get("/moderation_result/1"), client.head("/moderation_result/1")
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-length"] == got.headers["content-length"]
