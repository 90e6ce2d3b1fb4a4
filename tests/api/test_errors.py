"""Whatever is wrong with a request, the answer has one shape."""

import socket

import httpx
import pytest
from sqlalchemy import Engine

from dev.ports import HOST
from tests.api.problems import assert_problem
from tests.db.rows import execute
from tests.service import Api


def send_raw(api: Api, request: bytes) -> httpx.Response:
    """Send bytes that no well-behaved client would."""
    with socket.create_connection((HOST, api.port), timeout=60) as connection:
        connection.sendall(request)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *header_lines = head.decode().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in header_lines)]
    return httpx.Response(int(status_line.split()[1]), headers=headers, content=body)


@pytest.mark.parametrize(
    "path",
    ["/nope", "/async_predict/1", "/moderation_result/1/2", "/%zz", "/%ff", "/..%2f", "/docs/x"],
)
def test_an_unknown_path_is_404(client: httpx.Client, path: str) -> None:
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/async_predict", {"POST"}),
        ("PUT", "/async_predict", {"POST"}),
        ("OPTIONS", "/async_predict", {"POST"}),
        ("POST", "/moderation_result/1", {"GET", "HEAD"}),
        ("DELETE", "/livez", {"GET", "HEAD"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
        ("BREW", "/readyz", {"GET", "HEAD"}),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(
    client: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    response = client.request(method, path)
    assert_problem(response, 405)
    assert set(response.headers["allow"].replace(" ", "").split(",")) == allowed


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GARBAGE", 400),
        (b"GET /livez HTTP/3.7", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET livez HTTP/1.1", 400),
        (b"GET http://[::1 HTTP/1.1", 400),
        (b"GET http://host:99999/livez HTTP/1.1", 400),
        (b"GET http://host/nope HTTP/1.1", 404),
        (b"CONNECT host:80 HTTP/1.1", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1", 413),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else str(value),
)
def test_a_request_that_cannot_be_read_is_answered_all_the_same(
    api: Api, request_line: bytes, status: int
) -> None:
    assert_problem(send_raw(api, request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n"), status)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Length: many", 400),
        (b"Content-Length: -1", 400),
        (b"Content-Length: 1\r\nContent-Length: 2", 400),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"Content-Length: 1\r\nExpect: wonders\r\n\r\n1", 417),
        (b"no colon", 400),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else str(value),
)
def test_headers_that_make_no_sense_are_answered_all_the_same(api: Api, headers: bytes, status: int) -> None:
    request = b"POST /async_predict?item_id=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers
    assert_problem(send_raw(api, request + b"\r\n\r\n"), status)


def test_a_mistake_of_ours_is_500_and_tells_the_client_nothing_of_our_insides(
    client: httpx.Client, database: Engine
) -> None:
    # A trigger that refuses what the statement gives is none of the errors that the API knows.
    execute(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '22000'; END $$",
    )
    execute(
        database,
        "CREATE TRIGGER refuse BEFORE INSERT ON moderation_results FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    try:
        assert "secret" not in assert_problem(client.post("/async_predict?item_id=1"), 500)
    finally:
        execute(database, "DROP TRIGGER refuse ON moderation_results")
        execute(database, "DROP FUNCTION refuse")
    assert client.post("/async_predict?item_id=1").status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: \u0661\u0661",
        "Content-Length : 15",
        "Content-Length: 0x0f",
        "Content-Length: +15",
        "Content-Length: 15, 15",
        "Content Length: 15",
        "(x): 1\r\nContent-Length: 15",
    ],
)
def test_a_length_that_another_server_may_read_otherwise_is_400_and_ends_the_connection(
    api: Api, client: httpx.Client, head: str
) -> None:
    start = "POST /async_predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    rest = '\r\n\r\n{"item_id": 1} ' + "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    response = send_raw(api, (start + head + rest).encode())
    assert_problem(response, 400)
    assert b"HTTP/1.1" not in response.content  # the rest is no request


@pytest.mark.parametrize("size", ["0xf", "\u0661", " f", "+f", "f g"])
def test_a_size_of_a_chunk_that_is_not_hexadecimal_is_400(api: Api, client: httpx.Client, size: str) -> None:
    start = "POST /async_predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    chunks = f'Transfer-Encoding: chunked\r\n\r\n{size}\r\n{{"item_id": 1}} \r\n0\r\n\r\n'
    assert_problem(send_raw(api, (start + chunks).encode()), 400)


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b'{"item_id": ' + b"1" * 5_000 + b"}", "integer of too many digits"),
        ('{"item_id": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"item_id": "\xff"}', "not UTF-8"),
    ],
    ids=["digits", "utf-16", "bytes"],
)
def test_the_problem_of_a_body_names_the_mistake(client: httpx.Client, content: bytes, detail: str) -> None:
    response = client.post("/async_predict", content=content, headers={"content-type": "application/json"})
    assert_problem(response, 422)
    assert detail in response.json()["detail"]


def test_the_problem_of_a_long_name_speaks_of_characters(client: httpx.Client) -> None:
    ad = {"item_id": 1, "seller_id": 1, "is_verified_seller": True, "name": "x" * 1_001}
    ad |= {"description": "", "category": 1, "images_qty": 0}
    assert "at most 1000 characters" in client.post("/items", json=ad).json()["detail"]


def test_a_content_type_that_is_given_twice_is_422(client: httpx.Client) -> None:
    headers = [("content-type", "application/json"), ("content-type", "text/plain")]
    assert_problem(client.post("/async_predict", content=b'{"item_id": 1}', headers=headers), 422)
