"""When servers are away the API says so, and carries on when they are back."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
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
def start(stack: Stack, server_home: Callable[[], Path], namespace: str) -> Iterator[Callable[..., Api]]:
    """Starts APIs with the session's servers where the test names no other; kills them in the end."""
    started: list[Api] = []

    def start(**env: str) -> Api:
        started.append(Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": namespace, **env}))
        started[-1].start()
        return started[-1]

    yield start
    for api in started:
        api.child.kill()


@pytest.fixture
def serve(start: Callable[..., Api]) -> Iterator[Callable[..., httpx.Client]]:
    """Starts an API and returns a client of it."""
    with ExitStack() as clients:
        yield lambda **env: clients.enter_context(start(**env).client())


def is_ready(client: httpx.Client) -> bool:
    return bool(client.get("/readyz").status_code == 200)


def wait_until_nothing_is_missing(client: httpx.Client) -> None:
    """Each dependency has two seconds for its answer, which a busy machine may need more than once."""
    wait_until(
        lambda: client.get("/readyz").json() == {"status": "ready", "missing": {}},
        deadline_s=60,
        what="nothing to be missing",
    )


def test_with_everything_there_the_api_is_ready(serve: Callable[..., httpx.Client]) -> None:
    client = serve()
    wait_until_nothing_is_missing(client)
    assert client.get("/readyz").status_code == 200
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
    wait_until(lambda: is_ready(client), deadline_s=60, what="the API to find PostgreSQL")


def test_a_postgresql_that_hangs_is_503_too_and_holds_up_nothing_else(
    serve: Callable[..., httpx.Client], postgres_server: PostgresServer
) -> None:
    client = serve(DATABASE_URL=postgres_server.url("moderation"))
    assert client.post("/async_predict?item_id=1").status_code == 404
    postgres_server.pause()
    try:
        with ThreadPoolExecutor(1) as thread:
            # On the connection that is there already: nothing but the API's own deadline ends this one.
            hanging = thread.submit(client.post, "/async_predict?item_id=1")
            assert "postgresql" in assert_problem(client.get("/readyz"), 503)
            assert client.get("/livez").status_code == 200
            assert_problem(hanging.result(), 503)
    finally:
        postgres_server.resume()
    wait_until(lambda: is_ready(client), deadline_s=60, what="the API to recover")
    assert client.post("/async_predict?item_id=1").status_code == 404


def test_an_api_is_stopped_in_time_although_postgresql_hangs(
    start: Callable[..., Api], postgres_server: PostgresServer
) -> None:
    api = start(DATABASE_URL=postgres_server.url("moderation"), API_SHUTDOWN_TIMEOUT_S="1")
    with api.client() as client, ThreadPoolExecutor(1) as thread:
        assert client.post("/async_predict?item_id=1").status_code == 404
        postgres_server.pause()
        hanging = thread.submit(client.post, "/async_predict?item_id=1")
        try:
            assert_problem(
                client.get("/readyz"), 503
            )  # takes its time: the other request is in flight by now
            api.child.ask_to_stop()
            assert api.child.wait(40) == 0
        finally:
            postgres_server.resume()
        # It is told so; if that takes the API too long, its connection is closed.
        with suppress(httpx.TransportError):
            assert_problem(hanging.result(), 503)


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
    wait_until_nothing_is_missing(client)
    kafka_server.kill()
    degraded = client.get("/readyz")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert list(degraded.json()["missing"]) == ["kafka"]
    kafka_server.start()
    wait_until_nothing_is_missing(client)


def test_everything_that_is_missing_is_named_at_once(serve: Callable[..., httpx.Client]) -> None:
    port = free_port()
    nobody = f"127.0.0.1:{port}"
    client = serve(DATABASE_URL=f"postgresql://user@{nobody}/moderation", KAFKA_BOOTSTRAP_SERVERS=nobody)
    detail = assert_problem(client.get("/readyz"), 503)
    assert "postgresql" in detail
    assert "kafka" in detail
    # Anybody may ask. What the servers said, and where they are, is in the log.
    assert str(port) not in detail
    assert "refused" not in detail
