"""POST /predict and /simple_predict: a verdict at once, the same that the worker comes to."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dev.stack import ROOT, Stack
from scoring import load_model
from tests.api.problems import assert_problem
from tests.db.rows import execute, load_sample_ads
from tests.service import Api
from tests.waiting import wait_until
from training.sample_ads import sample_ads

ADS = sample_ads(40, seed=1)


def test_the_ad_in_the_body_gets_the_models_verdict_and_nothing_is_stored(
    client: httpx.Client, database: Engine
) -> None:
    [expected] = load_model(ROOT / "model.pkl").score(ADS[:1])
    response = client.post("/predict", json=asdict(ADS[0]))
    assert response.status_code == 200
    assert list(response.json().items()) == [
        ("is_violation", expected.is_violation),
        ("probability", pytest.approx(expected.probability)),
    ]
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(0,)]


def test_a_stored_ad_gets_the_verdict_that_its_text_gets(client: httpx.Client) -> None:
    in_body = client.post("/predict", json=asdict(sample_ads(3, seed=1)[1]))
    stored = client.post("/simple_predict?item_id=2")
    assert (stored.status_code, stored.json()) == (200, in_body.json())
    assert client.post("/simple_predict", json={"item_id": 2}).json() == in_body.json()


def test_an_unknown_ad_is_404(client: httpx.Client) -> None:
    assert "99" in assert_problem(client.post("/simple_predict?item_id=99"), 404)


@pytest.mark.parametrize("query", ["", "item_id=x", "item_id=0", "item_id=1&item_id=2"])
def test_a_stored_ad_must_be_named_by_one_id(client: httpx.Client, query: str) -> None:
    assert "item_id" in assert_problem(client.post(f"/simple_predict?{query}"), 422)


def test_verdicts_asked_together_are_not_mixed_up(client: httpx.Client) -> None:
    expected = load_model(ROOT / "model.pkl").score(ADS)
    with ThreadPoolExecutor(32) as threads:
        responses = list(threads.map(lambda ad: client.post("/predict", json=asdict(ad)), ADS))
    assert [response.json()["probability"] for response in responses] == [
        pytest.approx(verdict.probability) for verdict in expected
    ]


@pytest.fixture
def without_model(
    stack: Stack, server_home: Callable[[], Path], namespace: str, database: Engine
) -> Iterator[tuple[Path, httpx.Client]]:
    """An API whose model is absent, over the ads 1, 2 and 3; and where the model should be."""
    load_sample_ads(database, 3)
    home = server_home()
    path = home / "model.pkl"
    api = Api(home, {**stack.env(), "KAFKA_NAMESPACE": namespace, "MODEL_PATH": str(path)})
    try:
        api.start()
        with api.client() as client:
            yield path, client
    finally:
        api.child.kill()


def test_without_a_model_only_verdicts_at_once_are_503_until_there_is_one(
    without_model: tuple[Path, httpx.Client],
) -> None:
    path, client = without_model
    for response in (
        client.post("/predict", json=asdict(ADS[0])),
        client.post("/simple_predict?item_id=1"),
    ):
        assert "model" in assert_problem(response, 503)
    accepted = client.post("/async_predict?item_id=1")
    assert accepted.status_code == 200
    assert client.get(f"/moderation_result/{accepted.json()['task_id']}").status_code == 200
    wait_until(  # a busy machine's Kafka may answer too late, and be missing, too
        lambda: list(client.get("/readyz").json()["missing"]) == ["model"],
        deadline_s=60,
        what="the model alone to be missing",
    )
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    for name in ("model.json", "model.pkl"):
        (path.parent / name).write_bytes((ROOT / name).read_bytes())
    wait_until(
        lambda: client.post("/simple_predict?item_id=1").status_code == 200,
        deadline_s=60,
        what="the model to be found",
    )
