"""POST /moderation_result/{task_id}/cancel: possible until there is an outcome, and final then."""

import threading

import httpx
import pytest
from sqlalchemy import Engine

from db import cancelling, outbox, submissions
from db.engine import transaction
from db.submissions import Outcome
from tests.api.problems import assert_problem
from tests.db.rows import execute, submission_of, submit
from tests.waiting import wait_until

CANCELLED = {"task_id": 1, "status": "cancelled", "is_violation": None, "probability": None}


def write(engine: Engine, outcome: Outcome) -> set[str]:
    with transaction(engine) as connection:
        return submissions.write_outcomes(connection, [outcome])


def cancel(client: httpx.Client, task_id: int = 1) -> httpx.Response:
    return client.post(f"/moderation_result/{task_id}/cancel")


def test_a_pending_task_is_cancelled_once_and_stays_so(client: httpx.Client, database: Engine) -> None:
    submit(database)
    for response in (cancel(client), cancel(client), client.get("/moderation_result/1")):
        assert (response.status_code, response.json()) == (200, CANCELLED)
        assert list(response.json()) == list(CANCELLED)


@pytest.mark.parametrize(
    "outcome", [{"is_violation": True, "probability": 0.75}, {"error_message": "because"}], ids=str
)
def test_what_has_its_outcome_is_409_and_keeps_it(
    client: httpx.Client, database: Engine, outcome: dict[str, object]
) -> None:
    [message_id] = submit(database)
    write(database, Outcome(message_id, 0, 1, **outcome))  # type: ignore[arg-type]
    before = submission_of(database, message_id)
    assert "already" in assert_problem(cancel(client), 409)
    assert submission_of(database, message_id) == before


def test_an_unknown_task_is_404_and_what_is_no_id_422(client: httpx.Client) -> None:
    assert_problem(cancel(client, 1), 404)
    assert_problem(client.post("/moderation_result/x/cancel"), 422)


def test_a_late_verdict_or_failure_of_a_cancelled_task_changes_nothing(
    client: httpx.Client, database: Engine
) -> None:
    [message_id] = submit(database)
    cancel(client)
    assert write(database, Outcome(message_id, 0, 1, is_violation=True, probability=0.75)) == set()
    assert write(database, Outcome(message_id, 0, 1, error_message="because")) == set()
    assert client.get("/moderation_result/1").json() == CANCELLED


def test_a_cancelled_task_is_not_published_any_more(client: httpx.Client, database: Engine) -> None:
    submit(database, lease_s=3600)
    cancel(client)
    with transaction(database) as connection:
        assert outbox.claim_due(connection, limit=10, lease_s=30) == []
    assert execute(database, "SELECT publish_after FROM moderation_results") == [(None,)]


def test_of_a_verdict_and_a_cancelling_at_the_same_moment_the_first_wins(database: Engine) -> None:
    [message_id] = submit_over_an_ad(database)
    cancelled: list[bool] = []

    def cancel_too() -> None:
        with transaction(database) as connection:
            cancelled.append(cancelling.cancel(connection, 1))

    with transaction(database) as first:
        outcome = Outcome(message_id, 0, 1, is_violation=True, probability=0.75)
        assert submissions.write_outcomes(first, [outcome]) == {message_id}
        second = threading.Thread(target=cancel_too)
        second.start()
        wait_until(
            lambda: execute(database, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
            deadline_s=30,
            what="the cancelling to meet the verdict's lock",
        )
    second.join(60)
    assert cancelled == [False]
    found = submission_of(database, message_id)
    assert found is not None
    assert found.status == "completed"


def submit_over_an_ad(engine: Engine) -> list[str]:
    execute(engine, "INSERT INTO users DEFAULT VALUES")
    execute(engine, "INSERT INTO items (seller_id, name, description, category) VALUES (1, '', '', 1)")
    return submit(engine)
