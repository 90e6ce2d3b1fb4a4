"""A client that closes its sending side after its request, as ``nc -N`` does."""

import json
import socket

import httpx
import pytest
from sqlalchemy import Engine

from dev.ports import HOST
from tests.db.rows import execute, submit
from tests.service import Api

SUBMIT = b"POST /async_predict?item_id=1 HTTP/1.1\r\nhost: x\r\n\r\n"


def answer(api: Api, request: bytes) -> tuple[int, bytes]:
    """Send all of it, close the sending side, and return the status and the body; 0 without an answer."""
    with socket.create_connection((HOST, api.port), timeout=60) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))  # until the server closes
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, body


@pytest.mark.usefixtures("client")
def test_a_complete_request_is_answered_and_the_connection_closed(api: Api, database: Engine) -> None:
    status, body = answer(api, SUBMIT)
    assert status == 200
    assert execute(database, "SELECT id FROM moderation_results") == [(json.loads(body)["task_id"],)]


@pytest.mark.usefixtures("client")
def test_a_request_with_a_body_is_answered(api: Api) -> None:
    content = json.dumps({"item_ids": [1, 2]}).encode()
    head = (
        "POST /async_predict/bulk HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    status, body = answer(api, head.encode() + content)
    assert (status, json.loads(body)["accepted"]) == (200, 2)


@pytest.mark.usefixtures("client")
def test_requests_that_were_sent_together_are_all_answered(api: Api, database: Engine) -> None:
    assert answer(api, SUBMIT * 3)[0] == 200
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(3,)]


def test_one_that_waits_for_an_outcome_gets_the_present_state(
    api: Api, database: Engine, client: object
) -> None:
    submit(database, lease_s=3600)
    status, body = answer(api, b"GET /moderation_result/1?wait=10 HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (status, json.loads(body)["status"]) == (200, "pending")


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST /async_predict?it",
        b"POST /async_predict HTTP/1.1\r\nhost: x\r\ncontent-length: 40\r\n\r\n{",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_an_incomplete_request_gets_no_answer(
    api: Api, client: httpx.Client, database: Engine, beginning: bytes
) -> None:
    assert answer(api, beginning)[0] == 0
    assert client.get("/livez").status_code == 200
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(0,)]
