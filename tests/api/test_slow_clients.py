"""A client that is slow, or says nothing, is ended by a deadline and takes nobody's place."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from dev.ports import HOST
from dev.stack import Stack
from tests.api.problems import assert_problem
from tests.db.rows import load_sample_ads
from tests.service import Api
from tests.waiting import wait_until

MAX_CONNECTIONS = 30
MAX_BODY_BYTES = 2_000_000
ROOM = {"API_MAX_CONNECTIONS": str(MAX_CONNECTIONS), "API_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
REQUEST_TIMEOUT_S = 4


@pytest.fixture(scope="module")
def quick_api(
    stack: Stack, server_home: Callable[[], Path], new_namespace: Callable[[], str]
) -> Iterator[Api]:
    """An API with short deadlines."""
    timeouts = {"API_FIRST_BYTE_TIMEOUT_S": "2", "API_REQUEST_TIMEOUT_S": str(REQUEST_TIMEOUT_S)}
    api = Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": new_namespace(), **timeouts})
    api.start()
    yield api
    api.child.stop()


@pytest.fixture
def patient_api(
    stack: Stack, server_home: Callable[[], Path], namespace: str, database: Engine
) -> Iterator[Api]:
    """An API with little room, and with deadlines for which no test waits."""
    load_sample_ads(database, 3)
    timeouts = {"API_FIRST_BYTE_TIMEOUT_S": "3600", "API_REQUEST_TIMEOUT_S": "3600"}
    api = Api(server_home(), {**stack.env(), "KAFKA_NAMESPACE": namespace, **ROOM, **timeouts})
    api.start()
    yield api
    api.child.kill()


class Dripping:
    """A client that sends a few bytes every fifth of a second until the server ends the connection."""

    def __init__(self, port: int, beginning: bytes, piece: bytes = b"x") -> None:
        self.answer = b""
        self.is_ended = threading.Event()
        self._socket = socket.create_connection((HOST, port), timeout=60)
        self._socket.sendall(beginning)
        self._socket.settimeout(0.2)
        self._piece = piece
        threading.Thread(target=self._drip, daemon=True).start()

    def close(self) -> None:
        self.is_ended.set()
        self._socket.close()

    def _drip(self) -> None:
        while not self.is_ended.is_set():
            try:
                self._socket.sendall(self._piece)
                received = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            self.answer += received
            if not received:
                break
        self.is_ended.set()


HEAD = b"POST /predict HTTP/1.1\r\nhost: api\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"GET /livez HTTP/1.1\r\nx: ", b"x"),
        (HEAD + b"content-length: 1000\r\n\r\n", b" "),
        (HEAD + b"transfer-encoding: chunked\r\n\r", b"\n1\r\n \r"),
    ],
    ids=["head", "body", "chunks"],
)
def test_a_request_that_drips_is_408_when_its_deadline_is_over(
    quick_api: Api, beginning: bytes, piece: bytes
) -> None:
    client = Dripping(quick_api.port, beginning, piece)
    assert client.is_ended.wait(60)
    assert client.answer.startswith(b"HTTP/1.1 408 "), client.answer
    assert b"application/problem+json" in client.answer


def test_a_connection_without_a_byte_is_closed(quick_api: Api) -> None:
    with socket.create_connection((HOST, quick_api.port), timeout=60) as silent:
        assert silent.recv(1) == b""


def test_a_client_that_drips_the_rest_of_a_refused_body_is_ended(quick_api: Api) -> None:
    beginning = b"POST /nope HTTP/1.1\r\nhost: api\r\ncontent-length: 1000\r\n\r\n"
    client = Dripping(quick_api.port, beginning)
    assert client.is_ended.wait(60)
    assert client.answer.startswith(b"HTTP/1.1 404 "), client.answer


def test_each_request_of_a_connection_has_a_deadline_of_its_own(quick_api: Api) -> None:
    began_s = time.monotonic()
    with socket.create_connection((HOST, quick_api.port), timeout=60) as connection:
        while time.monotonic() - began_s < REQUEST_TIMEOUT_S + 2:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: api\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_slow_connections_make_room_for_others(patient_api: Api) -> None:
    def ask() -> int:
        with patient_api.client() as client:
            return client.get("/livez").status_code

    with ExitStack() as slow:
        for _ in range(MAX_CONNECTIONS):
            slow.callback(Dripping(patient_api.port, b"GET /livez HTTP/1.1\r\nx: ").close)
        wait_until(lambda: ask() == 200, deadline_s=60, what="one of them to have been slow for long enough")
        assert [ask() for _ in range(100)] == [200] * 100


def test_slow_bodies_make_room_for_others(patient_api: Api) -> None:
    announced = HEAD + b"content-length: 1000000\r\n\r\n"
    body = b'{"x": "' + b"x" * 500_000 + b'"}'

    with ExitStack() as slow, patient_api.client() as client:

        def ask() -> httpx.Response:
            return client.post("/predict", content=body, headers={"content-type": "application/json"})

        held = []
        for _ in range(3):
            held.append(Dripping(patient_api.port, announced + b" " * 600_000))
            slow.callback(held[-1].close)
        # Only the first answers may be 503: the bodies have not been slow for long enough, or are not there.
        wait_until(
            lambda: ask().status_code == 422 and any(b" 408 " in one.answer for one in held),
            deadline_s=60,
            what="one of them to make room",
        )
        for _ in range(20):
            assert_problem(ask(), 422)
