"""The OpenAPI document: valid, complete, and true of what the API really answers."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate
from sqlalchemy import Engine

from api import create_app
from api.docs.page import first_page
from db import idempotency, submissions
from db.engine import transaction
from db.submissions import Outcome
from tests.api.conftest import CONSOLE_URL
from tests.db.rows import submit

# The last only says that task_id is missing; the metrics are in docs/metrics.md.
UNDOCUMENTED = {"/", "/openapi.json", "/docs", "/metrics", "/moderation_result"}


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


def test_the_document_has_every_route_and_no_other(document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(\w+):str>", r"{\1}", f"/{route.path}"), method.lower())
        for route in create_app().router.routes
        for method in route.methods
        if method != "HEAD"
    }
    documented = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert documented == {(path, method) for path, method in routes if path not in UNDOCUMENTED}


AD = {
    "item_id": 1,
    "seller_id": 1,
    "is_verified_seller": True,
    "name": "Велосипед",
    "description": "",
    "category": 19,
    "images_qty": 0,
}
TOO_LARGE = {"content": b" " * 2_000_000}


def a_key(value: str) -> dict[str, str]:
    return {"idempotency-key": value}


def answers(database: Engine) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Requests that meet every answer we can provoke: method, path template, path, what they carry."""
    done, failed, _, _ = submit(database, [1, 2, 3, 1])
    with transaction(database) as connection:
        outcomes = [Outcome(done, 0, 1, True, 0.5), Outcome(failed, 0, 2, error_message="because")]
        submissions.write_outcomes(connection, outcomes)
    result = "/moderation_result/{task_id}"
    cancel = "/moderation_result/{task_id}/cancel"
    details = "/submissions/{task_id}"
    bulk = "/async_predict/bulk"
    explanation = "/moderation_result/{task_id}/explanation"
    return [
        ("get", result, "/moderation_result/1", {}),
        ("get", result, "/moderation_result/2", {}),
        ("get", result, "/moderation_result/3", {}),
        ("get", result, "/moderation_result/99", {}),
        ("get", result, "/moderation_result/x", {}),
        ("post", "/async_predict", "/async_predict?item_id=1", {}),
        ("post", "/async_predict", "/async_predict", {"json": {"item_id": 1}}),
        ("post", "/async_predict", "/async_predict?item_id=99", {}),
        ("post", "/async_predict", "/async_predict", {}),
        ("post", "/async_predict", "/async_predict", TOO_LARGE),
        ("post", "/async_predict", "/async_predict?item_id=1", {"headers": a_key("")}),
        ("post", "/async_predict", "/async_predict?item_id=1", {"headers": a_key("held")}),
        ("post", bulk, bulk, {"json": {"item_ids": [1, 99]}}),
        ("post", bulk, bulk, {"json": {"item_ids": []}}),
        ("post", bulk, bulk, TOO_LARGE),
        ("post", bulk, bulk, {"json": {"item_ids": [1]}, "headers": a_key("")}),
        ("post", bulk, bulk, {"json": {"item_ids": [1]}, "headers": a_key("held")}),
        ("get", "/moderation_results", "/moderation_results?limit=2", {}),
        ("get", "/moderation_results", "/moderation_results?limit=200", {}),
        ("get", "/moderation_results", "/moderation_results?limit=0", {}),
        ("post", cancel, "/moderation_result/4/cancel", {}),
        ("get", result, "/moderation_result/4", {}),
        ("post", cancel, "/moderation_result/1/cancel", {}),
        ("post", cancel, "/moderation_result/99/cancel", {}),
        ("post", cancel, "/moderation_result/x/cancel", {}),
        ("post", cancel, "/moderation_result/4/cancel", TOO_LARGE),
        ("get", details, "/submissions/1", {}),
        ("get", details, "/submissions/2", {}),
        ("get", details, "/submissions/3", {}),
        ("get", details, "/submissions/99", {}),
        ("get", details, "/submissions/x", {}),
        ("post", "/predict", "/predict", {"json": AD}),
        ("post", "/predict", "/predict", {"json": {**AD, "category": 101}}),
        ("post", "/predict", "/predict", TOO_LARGE),
        ("post", "/simple_predict", "/simple_predict?item_id=1", {}),
        ("post", "/simple_predict", "/simple_predict?item_id=99", {}),
        ("post", "/simple_predict", "/simple_predict", {}),
        ("post", "/simple_predict", "/simple_predict", TOO_LARGE),
        ("post", "/items", "/items", {"json": AD}),
        ("post", "/items", "/items", {"json": {**AD, "item_id": 1001}}),
        ("post", "/items", "/items", {}),
        ("post", "/items", "/items", TOO_LARGE),
        ("post", "/items/bulk", "/items/bulk", {"json": {"items": [AD, {**AD, "item_id": 1002}]}}),
        ("post", "/items/bulk", "/items/bulk", {"json": {"items": []}}),
        ("post", "/items/bulk", "/items/bulk", TOO_LARGE),
        ("get", explanation, "/moderation_result/1/explanation", {}),
        ("get", explanation, "/moderation_result/3/explanation", {}),
        ("get", explanation, "/moderation_result/99/explanation", {}),
        ("get", explanation, "/moderation_result/x/explanation", {}),
        ("get", "/livez", "/livez", {}),
        ("get", "/readyz", "/readyz", {}),
    ]


def test_every_answer_is_one_that_the_document_describes(
    client: httpx.Client, database: Engine, document: dict[str, Any]
) -> None:
    with transaction(database) as held:
        assert idempotency.lock_free(held, ["held"])  # as a request does that is under way elsewhere
        met = meet_all(client, document, answers(database))
    described_statuses = {
        (method, template, int(status))
        for template, methods in document["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }
    # 503 needs servers that are away: tests/api/test_outages.py; the others need keys: test_api_keys.py.
    assert met == {one for one in described_statuses if one[2] not in (401, 403, 429, 503)}


def meet_all(
    client: httpx.Client, document: dict[str, Any], requests: list[tuple[str, str, str, dict[str, Any]]]
) -> set[tuple[str, str, int]]:
    """Hold each answer against its description; return what was met: method, path template, status."""
    met = set()
    for method, template, path, carried in requests:
        response = client.request(method, path, **carried)
        described = document["paths"][template][method]["responses"][str(response.status_code)]
        [(media_type, content)] = described["content"].items()
        assert response.headers["content-type"] == media_type, path
        jsonschema.validate(response.json(), {**content["schema"], "components": document["components"]})
        met.add((method, template, response.status_code))
    return met


@pytest.mark.parametrize(
    "body",
    [
        {"task_id": 1, "status": "completed", "is_violation": None, "probability": None},
        {"task_id": 1, "status": "pending", "is_violation": None, "probability": None, "error": "x"},
        {"task_id": 1, "status": "failed", "is_violation": None, "probability": None},
        {"task_id": 0, "status": "pending", "is_violation": None, "probability": None},
    ],
)
def test_the_document_forbids_what_a_result_never_is(document: dict[str, Any], body: dict[str, Any]) -> None:
    described = document["paths"]["/moderation_result/{task_id}"]["get"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, {**schema, "components": document["components"]})


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_first_page_says_what_this_is_and_links_to_what_there_is(client: httpx.Client) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = Elements(response.text)
    assert "Moderation of classified ads" in page.text
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert links == {"/docs", "/openapi.json", "/readyz", "/livez", CONSOLE_URL}
    for link in links - {CONSOLE_URL}:
        assert link is not None
        assert client.get(link).status_code == 200
    assert client.head("/").status_code == 200


def test_the_first_page_of_an_api_without_a_console_names_none(document: dict[str, Any]) -> None:
    page = Elements(first_page(document, console_url=""))
    assert {attributes["href"] for tag, attributes in page.elements if tag == "a"} == {
        *("/docs", "/openapi.json", "/readyz", "/livez"),
    }


def test_json_is_utf_8_and_escapes_no_letter(client: httpx.Client) -> None:
    for response in (
        client.get("/openapi.json"),
        client.get("/docs"),
        client.post("/async_predict", json={"item_id": "Велосипед"}),
        client.post("/async_predict?item_id=Велосипед"),
        client.post("/items", json={"item_id": ["Велосипед"]}),
        client.get("/moderation_results?status=Велосипед"),
        client.get("/Велосипед"),
    ):
        assert b"\\u04" not in response.content, response.url
    assert "Велосипед" in client.post("/async_predict", json={"item_id": "Велосипед"}).text
    assert "Велосипед" in client.get("/moderation_results?status=Велосипед").text


@pytest.fixture
def page(client: httpx.Client) -> Elements:
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    return Elements(response.text)


def test_the_docs_page_loads_nothing(page: Elements) -> None:
    loading = {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [tag for tag, _ in page.elements if tag in loading]
    attributes = [(name, value) for _, attrs in page.elements for name, value in attrs.items()]
    assert not [
        name for name, _ in attrs_that(attributes, lambda name: name == "src" or name.startswith("on"))
    ]
    links = [value for _, value in attrs_that(attributes, lambda name: name == "href")]
    assert links
    assert all(link and link.startswith(("#", "/")) for link in links)


def attrs_that(
    attributes: list[tuple[str, str | None]], wanted: Callable[[str], bool]
) -> list[tuple[str, str | None]]:
    return [(name, value) for name, value in attributes if wanted(name)]


def test_the_docs_page_describes_every_operation(page: Elements, document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in page.text
            assert operation["summary"] in page.text


def test_every_link_within_the_docs_page_has_its_target(page: Elements) -> None:
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {attributes["href"] for _, attributes in page.elements if "href" in attributes}
    assert {link.removeprefix("#") for link in links if link and link.startswith("#")} <= targets
