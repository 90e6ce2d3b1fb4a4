"""GET /moderation_results: pages of submissions, newest first. GET /submissions/{task_id}: one, in full."""

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from db import redrive, submissions
from db.engine import transaction
from db.submissions import Outcome
from tests.api.problems import assert_problem
from tests.db.rows import execute, submit

PATH = "/moderation_results"


def pages(client: httpx.Client, **wanted: str | int) -> list[list[int]]:
    """The task ids of each page, until there is no next one."""
    found = []
    cursor: dict[str, str] = {}
    while True:
        response = client.get(PATH, params={**wanted, **cursor})
        assert response.status_code == 200, response.text
        body = response.json()
        found.append([one["task_id"] for one in body["results"]])
        if body["next_cursor"] is None:
            return found
        cursor = {"cursor": body["next_cursor"]}


def finish(engine: Engine, *outcomes: Outcome) -> None:
    with transaction(engine) as connection:
        submissions.write_outcomes(connection, outcomes)


@pytest.fixture
def seven(database: Engine, client: httpx.Client) -> None:
    """Tasks 1..7 of the ads 1, 2, 3, 1, 2, 3, 1: 2 failed, 4 and 7 completed, 5 cancelled."""
    ids = submit(database, [1, 2, 3, 1, 2, 3, 1])
    finish(
        database,
        Outcome(ids[1], 0, 2, error_message="because"),
        Outcome(ids[3], 0, 1, is_violation=True, probability=0.9),
        Outcome(ids[6], 0, 1, is_violation=False, probability=0.1),
    )
    assert client.post("/moderation_result/5/cancel").status_code == 200


@pytest.mark.usefixtures("seven")
def test_pages_follow_one_another_newest_first_without_gap_or_overlap(client: httpx.Client) -> None:
    assert pages(client) == [[7, 6, 5, 4, 3, 2, 1]]
    assert pages(client, limit=3) == [[7, 6, 5], [4, 3, 2], [1]]
    assert pages(client, limit=7) == [[7, 6, 5, 4, 3, 2, 1]]


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"status": "pending"}, [6, 3, 1]),
        ({"status": "completed"}, [7, 4]),
        ({"status": "failed"}, [2]),
        ({"status": "cancelled"}, [5]),
        ({"item_id": 1}, [7, 4, 1]),
        ({"item_id": 99}, []),
        ({"item_id": 1, "status": "completed"}, [7, 4]),
        ({"item_id": 2, "status": "completed"}, []),
    ],
)
def test_only_what_is_asked_for_is_listed(
    client: httpx.Client, wanted: dict[str, Any], expected: list[int]
) -> None:
    assert pages(client, **wanted) == [expected]
    assert [task_id for page in pages(client, limit=1, **wanted) for task_id in page] == expected


def test_what_arrives_between_two_pages_disturbs_nothing(client: httpx.Client, database: Engine) -> None:
    submit(database, [1] * 4)
    first = client.get(PATH, params={"limit": 2}).json()
    submit(database, [1] * 3)
    second = client.get(PATH, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["task_id"] for one in first["results"] + second["results"]] == [4, 3, 2, 1]


@pytest.mark.usefixtures("seven")
def test_a_listed_submission_has_every_key(client: httpx.Client) -> None:
    [failed] = client.get(PATH, params={"status": "failed"}).json()["results"]
    assert failed.pop("created_at").endswith("+00:00")
    assert failed.pop("processed_at").endswith("+00:00")
    assert failed == {
        "task_id": 2,
        "item_id": 2,
        "status": "failed",
        "is_violation": None,
        "probability": None,
        "error": "because",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("status", ""),
        ("item_id", "x"),
        ("item_id", "0"),
        ("cursor", "x"),
        ("cursor", ""),
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "x"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_422_and_named(
    client: httpx.Client, name: str, value: str
) -> None:
    assert name in assert_problem(client.get(PATH, params={name: value}), 422)
    twice = client.get(PATH, params=[(name, "1"), (name, "1")])
    assert name in assert_problem(twice, 422)


def test_a_submission_in_full_names_its_message_and_whether_kafka_has_it(
    client: httpx.Client, database: Engine
) -> None:
    [message_id] = submit(database, [2])
    full = client.get("/submissions/1").json()
    assert (full["task_id"], full["item_id"], full["message_id"]) == (1, 2, message_id)
    assert (full["status"], full["generation"], full["is_published"]) == ("pending", 0, False)
    assert full["processed_at"] is None
    execute(database, "UPDATE moderation_results SET publish_after = NULL")
    assert client.get("/submissions/1").json()["is_published"] is True


def test_a_redriven_submission_keeps_what_it_came_to_before(client: httpx.Client, database: Engine) -> None:
    [message_id] = submit(database)
    finish(database, Outcome(message_id, 0, 1, error_message="because"))
    with transaction(database) as connection:
        assert redrive.redrive(connection, [1], by="somebody", reason="repaired")
    finish(database, Outcome(message_id, 1, 1, is_violation=False, probability=0.1))
    full = client.get("/submissions/1").json()
    assert (full["status"], full["generation"], full["error"]) == ("completed", 1, None)
    [past] = full["history"]
    assert (past["generation"], past["status"], past["error"]) == (0, "failed", "because")
    assert (past["redriven_by"], past["reason"]) == ("somebody", "repaired")


def test_an_unknown_submission_is_404(client: httpx.Client) -> None:
    assert_problem(client.get("/submissions/1"), 404)
