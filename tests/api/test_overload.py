"""Beyond what it can take the API says so at once, with 503 and when to come again, and takes the rest."""

import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dev.ports import HOST
from dev.stack import Stack
from tests.api.problems import assert_problem
from tests.api.test_long_polling import LISTENING, finish
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Api
from tests.waiting import wait_until

MAX_WAITING = 3
MAX_CONNECTIONS = 20
MAX_BODY_BYTES = 1_000_000
BLOCKED = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND query LIKE '%INSERT%'"
)


@pytest.fixture(scope="module")
def small_api(
    stack: Stack, server_home: Callable[[], Path], new_namespace: Callable[[], str]
) -> Iterator[Api]:
    """An API that can take little."""
    limits = {
        "API_MAX_WAITING": str(MAX_WAITING),
        "API_MAX_LONG_POLLS": "1",
        "API_MAX_CONNECTIONS": str(MAX_CONNECTIONS),
        "API_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    }
    api = Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": new_namespace(), **limits})
    api.start()
    yield api
    api.child.stop()


@pytest.fixture
def small(small_api: Api, database: Engine) -> Iterator[httpx.Client]:
    load_sample_ads(database, 3)
    with small_api.client() as client:
        yield client


def ask(threads: ThreadPoolExecutor, client: httpx.Client) -> Future[httpx.Response]:
    return threads.submit(client.post, "/async_predict?item_id=1")


def test_while_postgresql_is_behind_as_many_wait_as_may_and_the_rest_are_503(
    small: httpx.Client, database: Engine
) -> None:
    with ThreadPoolExecutor(16) as threads:
        with database.begin() as lock:
            lock.exec_driver_sql("LOCK TABLE moderation_results IN ACCESS EXCLUSIVE MODE")
            taken = []
            for under_way in (1, 2):
                taken.append(ask(threads, small))
                wait_until(
                    lambda wanted=under_way: len(execute(database, BLOCKED)) == wanted,  # type: ignore[misc]
                    deadline_s=60,
                    what="a group to be under way",
                )
            more = [ask(threads, small) for _ in range(MAX_WAITING + 4)]
            wait_until(lambda: sum(one.done() for one in more) == 4, deadline_s=60, what="four to be refused")
            for refused in (one for one in more if one.done()):
                assert "waiting" in assert_problem(refused.result(), 503)
            assert small.get("/livez").status_code == 200
        accepted = [one.result() for one in [*taken, *more] if one.result().status_code == 200]
    assert len(accepted) == 2 + MAX_WAITING
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(len(accepted),)]


def test_one_more_long_poll_than_may_wait_is_503(small: httpx.Client, database: Engine) -> None:
    first, _ = submit(database, [1, 2])
    others = set(execute(database, LISTENING))  # the API that the other tests share may listen here, too
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(small.get, "/moderation_result/1?wait=10")
        wait_until(lambda: set(execute(database, LISTENING)) - others, deadline_s=60, what="somebody to wait")
        assert_problem(small.get("/moderation_result/2?wait=10"), 503)
        assert small.get("/moderation_result/2").status_code == 200
        finish(database, first)
        assert waiting.result().json()["status"] == "completed"


def test_bodies_that_are_too_much_together_are_503_until_others_are_answered_or_gone(
    small_api: Api, small: httpx.Client
) -> None:
    def ask(characters: int) -> httpx.Response:
        return small.post("/predict", content=b'{"x": "' + b"x" * characters + b'"}')

    def is_full() -> bool:
        response = ask(MAX_BODY_BYTES // 2)
        if response.status_code != 503:
            assert_problem(response, 422)
            return False
        assert "bodies" in assert_problem(response, 503)
        assert response.headers["retry-after"]
        return True

    for _ in range(5):
        assert not is_full()  # one after the other they fit
    with ExitStack() as slow_requests:

        def send_most_of_a_body() -> socket.socket:
            slow = slow_requests.enter_context(socket.create_connection((HOST, small_api.port), timeout=60))
            announced = f"content-length: {MAX_BODY_BYTES}\r\n".encode()
            slow.sendall(b"POST /predict HTTP/1.1\r\nhost: api\r\n" + announced + b"\r\n")
            assert not is_full()  # what is only announced takes no room
            slow.sendall(b"x" * (MAX_BODY_BYTES * 3 // 4))
            return slow

        slow = send_most_of_a_body()

        def is_full_beside_it() -> bool:
            nonlocal slow
            if is_full():
                return True
            if is_answered(slow):  # on a busy machine the API may give it up before it is full
                slow = send_most_of_a_body()
            return False

        wait_until(is_full_beside_it, deadline_s=60, what="the API to have that much of the body")
        assert small.post("/async_predict?item_id=1").status_code == 200
        assert small.post("/async_predict", json={"item_id": 1}).status_code == 200
    wait_until(lambda: not is_full(), deadline_s=60, what="the API to have room")


def is_answered(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable)


def test_one_more_connection_than_there_may_be_is_503_until_another_is_closed(
    small_api: Api, small: httpx.Client
) -> None:
    def is_full() -> bool:
        with small_api.client() as client:
            response = client.get("/livez")
        if response.status_code == 200:
            return False
        assert "connections" in assert_problem(response, 503)
        return True

    held: list[socket.socket] = []
    try:
        while len(held) < 3 * MAX_CONNECTIONS:
            held.append(socket.create_connection((HOST, small_api.port), timeout=60))
        wait_until(is_full, deadline_s=60, what="the API to be full")
    finally:
        for one in held:
            one.close()
    wait_until(lambda: not is_full(), deadline_s=60, what="the API to have room")


def test_a_client_that_hangs_up_is_no_error_of_the_servers(
    small_api: Api, small: httpx.Client, database: Engine
) -> None:
    with database.begin() as lock:
        lock.exec_driver_sql("LOCK TABLE moderation_results IN ACCESS EXCLUSIVE MODE")
        with socket.create_connection((HOST, small_api.port), timeout=60) as client:
            client.sendall(b"POST /async_predict?item_id=1 HTTP/1.1\r\nhost: api\r\n\r\n")
            wait_until(lambda: execute(database, BLOCKED), deadline_s=60, what="the request to wait")
        assert small.get("/livez").status_code == 200  # so the loop has seen that the other is gone
    wait_until(
        lambda: execute(database, "SELECT FROM moderation_results"),
        deadline_s=60,
        what="its row",
    )
    assert small.post("/async_predict?item_id=1").status_code == 200
    assert " failed" not in small_api.child.tail(100_000)
