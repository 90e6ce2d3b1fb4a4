"""When servers are away the API says so, and carries on when they are back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from db.engine import make_engine
from dev.ports import free_port
from dev.postgres import PostgresServer
from dev.server import Server
from dev.stack import Stack
from tests.api.problems import assert_problem
from tests.db.rows import load_sample_ads
from tests.service import Api
from tests.waiting import wait_until


@pytest.fixture
def serve(
    stack: Stack, server_home: Callable[[], Path], namespace: str
) -> Iterator[Callable[..., httpx.Client]]:
    """Starts an API with the session's servers where the test names no other; returns its client."""
    started: list[tuple[Api, httpx.Client]] = []

    def serve(**env: str) -> httpx.Client:
        api = Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": namespace, **env})
        api.start()
        started.append((api, api.client()))
        return started[-1][1]

    yield serve
    for api, client in started:
        client.close()
        api.child.kill()


def is_ready(client: httpx.Client) -> bool:
    return bool(client.get("/readyz").status_code == 200)


def test_with_everything_there_the_api_is_ready(serve: Callable[..., httpx.Client]) -> None:
    client = serve()
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "missing": {}})
    assert client.get("/livez").json() == {"status": "alive"}


def test_without_postgresql_requests_are_503_until_it_is_back(
    serve: Callable[..., httpx.Client], postgres_server: PostgresServer
) -> None:
    url = postgres_server.url("moderation")
    engine = make_engine(url)
    load_sample_ads(engine, 3)
    engine.dispose()
    client = serve(DATABASE_URL=url)
    assert client.post("/async_predict?item_id=1").status_code == 200
    postgres_server.kill()
    for response in (client.post("/async_predict?item_id=1"), client.get("/moderation_result/1")):
        assert "database" in assert_problem(response, 503)
    assert "postgresql" in assert_problem(client.get("/readyz"), 503)
    assert client.get("/livez").status_code == 200
    # What is wrong with a request is known without PostgreSQL.
    assert_problem(client.post("/async_predict?item_id=x"), 422)
    postgres_server.start()
    assert client.post("/async_predict?item_id=1").status_code == 200
    assert client.get("/moderation_result/1").status_code == 200
    assert is_ready(client)


def test_the_api_starts_without_postgresql(
    serve: Callable[..., httpx.Client], postgres_server: PostgresServer
) -> None:
    postgres_server.stop()
    client = serve(DATABASE_URL=postgres_server.url("moderation"))
    assert "postgresql" in assert_problem(client.get("/readyz"), 503)
    postgres_server.start()
    wait_until(lambda: is_ready(client), deadline_s=20, what="the API to find PostgreSQL")


def test_a_postgresql_that_hangs_is_503_too_and_holds_up_nothing_else(
    serve: Callable[..., httpx.Client], postgres_server: PostgresServer
) -> None:
    client = serve(DATABASE_URL=postgres_server.url("moderation"))
    assert client.post("/async_predict?item_id=1").status_code == 404
    postgres_server.pause()
    try:
        assert "postgresql" in assert_problem(client.get("/readyz"), 503)
        assert client.get("/livez").status_code == 200
        assert_problem(client.post("/async_predict?item_id=1"), 503)
    finally:
        postgres_server.resume()
    wait_until(lambda: is_ready(client), deadline_s=30, what="the API to recover")
    assert client.post("/async_predict?item_id=1").status_code == 404


def test_without_migrations_the_api_names_what_is_missing(
    serve: Callable[..., httpx.Client], postgres_server: PostgresServer
) -> None:
    client = serve(DATABASE_URL=postgres_server.ensure_database("not_migrated"))
    detail = assert_problem(client.get("/readyz"), 503)
    assert "migrations" in detail
    assert "moderation_results" in detail
    assert "postgresql" not in detail
    assert_problem(client.post("/async_predict?item_id=1"), 503)


def test_without_kafka_the_api_is_degraded_and_says_so(
    serve: Callable[..., httpx.Client], kafka_server: Server
) -> None:
    client = serve(KAFKA_BOOTSTRAP_SERVERS=kafka_server.address)
    assert client.get("/readyz").json()["status"] == "ready"
    kafka_server.kill()
    degraded = client.get("/readyz")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert list(degraded.json()["missing"]) == ["kafka"]
    kafka_server.start()
    assert client.get("/readyz").json() == {"status": "ready", "missing": {}}


def test_everything_that_is_missing_is_named_at_once(serve: Callable[..., httpx.Client]) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    client = serve(DATABASE_URL=f"postgresql://user@{nobody}/moderation", KAFKA_BOOTSTRAP_SERVERS=nobody)
    detail = assert_problem(client.get("/readyz"), 503)
    assert "postgresql" in detail
    assert "kafka" in detail
