"""GET /moderation_result/{task_id}/explanation says why."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import httpx
from sqlalchemy import Engine

from db.engine import transaction
from db.items import load_ads
from db.judgements import Judgement, write_verdicts
from db.submissions import Outcome, write_outcomes
from scoring import Ad
from tests.api.problems import assert_problem
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Api
from tests.waiting import wait_until

AD = Ad(1, 1, False, "Диван", "Мягкий. Звоните 8 916 000-12-34, Олег", category=5, images_qty=3)


def verdict_on(database: Engine, ad: Ad, judgement: Judgement | None = None) -> None:
    """Task 1: the ad, found to be a violation."""
    with transaction(database) as connection:
        load_ads(connection, [ad])
    [message_id] = submit(database, [1])
    with transaction(database) as connection:
        outcomes = [Outcome(message_id, 0, 1, True, 0.97)]
        if judgement:
            write_verdicts(connection, outcomes, [replace(judgement, message_id=message_id)])
        else:
            write_outcomes(connection, outcomes)


def test_the_rule_and_the_words_that_broke_it_are_named(client: httpx.Client, database: Engine) -> None:
    verdict_on(database, AD, Judgement("", 0, "text-0+old", 0.5, 0.08, 0.92, "reject"))
    body = client.get("/moderation_result/1/explanation").json()
    assert (body["task_id"], body["is_violation"], body["probability"]) == (1, True, 0.97)
    assert (body["verdict"]["model_version"], body["verdict"]["decision"]) == ("text-0+old", "reject")
    explained = body["explanation"]
    assert explained["rule"] == "contacts"
    assert "916 000-12-34" in explained["parts"][0]["text"]
    assert "contacts.any" in [feature["name"] for feature in explained["features"]]


def test_a_verdict_from_before_judgements_were_kept_is_explained_too(
    client: httpx.Client, database: Engine
) -> None:
    verdict_on(database, AD)
    assert client.get("/moderation_result/1/explanation").json()["verdict"] is None


def test_without_a_verdict_there_is_nothing_to_explain(client: httpx.Client, database: Engine) -> None:
    submit(database, [1])
    assert "Task 1 is pending" in assert_problem(client.get("/moderation_result/1/explanation"), 409)


def test_without_its_ad_a_verdict_cannot_be_explained(client: httpx.Client, database: Engine) -> None:
    verdict_on(database, AD)
    execute(database, "DELETE FROM items WHERE id = 1")
    assert "Ad 1 is gone" in assert_problem(client.get("/moderation_result/1/explanation"), 409)


def test_explanations_that_wait_for_each_other_hold_up_no_other_request(api: Api, database: Engine) -> None:
    load_sample_ads(database, 3)
    [message_id] = submit(database, [1])
    with transaction(database) as connection:
        write_outcomes(connection, [Outcome(message_id, 0, 1, True, 0.97)])
    submit(database, [2])
    clients = 20
    with (
        api.client() as client,
        database.connect() as somebody,
        ThreadPoolExecutor(clients) as threads,
    ):
        # An explanation needs this table, and the other requests below do not.
        somebody.exec_driver_sql("LOCK TABLE judgements IN ACCESS EXCLUSIVE MODE")
        explained = [threads.submit(client.get, "/moderation_result/1/explanation") for _ in range(clients)]
        wait_until(lambda: sum(one.done() for one in explained) == 3, deadline_s=60, what="17 to wait")
        ad = {**asdict(AD), "item_id": 4}
        assert client.post("/items", json=ad).status_code == 200
        assert client.get("/moderation_results").status_code == 200
        assert client.post("/moderation_result/2/cancel").status_code == 200
        somebody.rollback()
    statuses = Counter(one.result().status_code for one in explained)
    assert statuses == {200: clients - 3, 503: 3}


def test_an_unknown_task_is_404(client: httpx.Client) -> None:
    assert "no task with task_id 77" in assert_problem(client.get("/moderation_result/77/explanation"), 404)
