"""GET /metrics: requests, verdicts, statements and the outbox, in one process and in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from dev.ports import free_port
from dev.stack import Stack
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Api
from tests.waiting import wait_until
from training.sample_ads import sample_ads

DEADLINE_S = 60.0


def scrape(client: httpx.Client) -> dict[tuple[str, tuple[str, ...]], float]:
    """The values by the name of the series and the sorted values of its labels."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.fixture
def start(
    stack: Stack, server_home: Callable[[], Path], namespace: str
) -> Iterator[Callable[..., httpx.Client]]:
    """Starts an API and returns a client of it."""
    with ExitStack() as ended:

        def start(**env: str) -> httpx.Client:
            api = Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": namespace, **env})
            ended.callback(api.child.stop)
            api.start()
            return ended.enter_context(api.client())

        yield start


def test_requests_are_counted_by_route_and_status_and_never_by_id(client: httpx.Client) -> None:
    before = scrape(client)
    for item_id in (1, 2, 99):
        client.post(f"/simple_predict?item_id={item_id}")
    client.get("/moderation_result/123")
    client.get("/no/such/path/123")
    after = scrape(client)

    def increase(*labels: str) -> float:
        name = "http_requests_total"
        return after.get((name, labels), 0.0) - before.get((name, labels), 0.0)

    assert increase("POST", "/simple_predict", "200") == 2
    assert increase("POST", "/simple_predict", "404") == 1
    assert increase("GET", "/moderation_result/<task_id:str>", "404") == 1
    assert increase("GET", "(none)", "404") == 1
    assert increase("GET", "/metrics", "200") == 1
    assert not any("123" in value for _, labels in after for value in labels)
    count = ("http_request_duration_seconds_count", ("/simple_predict",))
    assert after[count] - before.get(count, 0.0) == 3


def test_verdicts_are_counted_with_their_probability_and_duration(client: httpx.Client) -> None:
    before = scrape(client)
    probability = client.post("/predict", json=asdict(sample_ads(1, seed=1)[0])).json()["probability"]
    after = scrape(client)

    def increase(name: str) -> float:
        return sum(
            value - before.get((found, labels), 0.0)
            for (found, labels), value in after.items()
            if found == name
        )

    assert increase("predictions_total") == 1
    assert increase("prediction_duration_seconds_count") == 1
    assert increase("model_prediction_probability_count") == 1
    assert increase("model_prediction_probability_sum") == pytest.approx(probability)
    assert increase("prediction_errors_total") == 0


def test_statements_and_the_outbox_are_measured(client: httpx.Client, database: Engine) -> None:
    submit(database, [1, 2], lease_s=600)
    execute(
        database,
        "UPDATE moderation_results SET created_at = now() - interval '1 hour', publish_after = now() + "
        "interval '1 day'",
    )

    def two_wait() -> dict[tuple[str, tuple[str, ...]], float] | None:
        found = scrape(client)  # statistics are read again after some seconds
        return found if found["moderation_outbox_messages", ()] == 2 else None

    found = wait_until(two_wait, deadline_s=DEADLINE_S, what="the two submissions in the metrics")
    assert found["moderation_database_up", ()] == 1
    assert found["moderation_outbox_age_seconds", ()] >= 3600
    assert found["moderation_pending_age_seconds", ()] >= 3600
    assert found["moderation_latest_submissions", ("", "pending")] == 2
    assert found["db_query_duration_seconds_count", ("select",)] >= 1


def test_a_postgresql_that_does_not_answer_is_a_metric(start: Callable[..., httpx.Client]) -> None:
    client = start(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    found = scrape(client)
    assert found["moderation_database_up", ()] == 0
    assert ("moderation_outbox_messages", ()) not in found


def test_two_processes_serve_one_sum(start: Callable[..., httpx.Client], database: Engine) -> None:
    load_sample_ads(database, 1)
    client = start(API_WORKERS="2")
    for _ in range(20):
        # A connection of its own may reach the other process.
        httpx.post(f"{client.base_url}/simple_predict?item_id=1", timeout=DEADLINE_S).raise_for_status()
    for _ in range(5):
        with httpx.Client(base_url=client.base_url, timeout=DEADLINE_S) as scraper:
            assert scrape(scraper)["http_requests_total", ("POST", "/simple_predict", "200")] == 20
