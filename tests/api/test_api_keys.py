"""API keys over HTTP: who may do what, to whose submissions, how often."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from api.routes import OPERATIONS
from api.routes.operation import Operation
from dev.ports import HOST
from dev.postgres import PostgresServer
from dev.stack import Stack
from settings import Settings
from submissions.callers import SCOPES
from submissions.database import Database
from submissions.keys import ApiKeys, KeyLimits
from tests.api.problems import assert_problem
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Api
from tests.waiting import wait_until

AD: dict[str, Any] = {
    "item_id": 1,
    "seller_id": 1,
    "is_verified_seller": False,
    "name": "Диван",
    "description": "Мягкий",
    "category": 5,
    "images_qty": 3,
}
GUARDED = [operation for operation in OPERATIONS if operation.scope]
#: Bodies and queries with which an operation gets past its parameters.
WANTED: dict[str, dict[str, Any]] = {
    "/async_predict": {"params": {"item_id": 1}},
    "/async_predict/bulk": {"json": {"item_ids": [1]}},
    "/items": {"json": AD},
    "/items/bulk": {"json": {"items": [AD]}},
    "/predict": {"json": AD},
    "/simple_predict": {"params": {"item_id": 1}},
}


@pytest.fixture(scope="module")
def guarded_api(
    stack: Stack, server_home: Callable[[], Path], new_namespace: Callable[[], str]
) -> Iterator[Api]:
    """An API of two processes that needs keys."""
    env = {**stack.env(), "KAFKA_NAMESPACE": new_namespace(), "API_KEYS": "on", "API_WORKERS": "2"}
    api = Api(server_home(), env)
    api.start()
    yield api
    api.child.stop()


@pytest.fixture
def keys(database: Engine) -> ApiKeys:
    load_sample_ads(database, 3)
    url = database.url.render_as_string(hide_password=False)
    return ApiKeys(Database(Settings(database_url=url)))


#: Makes a client with a new key: the client's name, scopes, and limits.
Shop = Callable[..., httpx.Client]


@pytest.fixture
def shop(guarded_api: Api, keys: ApiKeys) -> Iterator[Shop]:
    clients: list[httpx.Client] = []

    def make(name: str = "shop", *scopes: str, **limits: Any) -> httpx.Client:
        key, made = keys.create(
            name, scopes=scopes or ("submit", "read"), limits=KeyLimits(**limits), by="test"
        )
        client = guarded_api.client()
        client.headers["authorization"] = f"Bearer {key}"
        client.key_id = made.key_id  # type: ignore[attr-defined]
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def nobody(guarded_api: Api, keys: ApiKeys) -> Iterator[httpx.Client]:
    """A client without a key."""
    with guarded_api.client() as client:
        yield client


def call(client: httpx.Client, operation: Operation, **more: Any) -> httpx.Response:
    path = operation.path.replace("{task_id}", "1")
    return client.request(operation.method, path, **{**WANTED.get(operation.path, {}), **more})


def task_of(response: httpx.Response) -> int:
    assert response.status_code == 200, response.text
    task_id: int = response.json()["task_id"]
    return task_id


def listed(client: httpx.Client) -> list[int]:
    return [one["task_id"] for one in client.get("/moderation_results").json()["results"]]


@pytest.mark.parametrize("operation", GUARDED, ids=lambda one: one.name)
def test_a_request_without_a_key_is_401_and_changes_nothing(
    nobody: httpx.Client, database: Engine, operation: Operation
) -> None:
    submit(database)
    response = call(nobody, operation)
    assert "Authorization: Bearer" in assert_problem(response, 401)
    assert response.headers["www-authenticate"] == 'Bearer realm="moderation"'
    assert execute(database, "SELECT status FROM moderation_results") == [("pending",)]


@pytest.mark.parametrize("operation", GUARDED, ids=lambda one: one.name)
def test_a_key_without_the_scope_is_403(shop: Shop, database: Engine, operation: Operation) -> None:
    submit(database)
    others = [one for one in SCOPES if one not in (operation.scope, "admin")]
    if operation.scope == "read":
        others.remove("review")
    response = call(shop("shop", *others), operation)
    assert str(operation.scope) in assert_problem(response, 403)
    assert response.headers["www-authenticate"] == (
        f'Bearer realm="moderation", error="insufficient_scope", scope="{operation.scope}"'
    )


@pytest.mark.parametrize("operation", GUARDED, ids=lambda one: one.name)
def test_a_key_with_the_scope_or_admin_gets_through(
    shop: Shop, database: Engine, operation: Operation
) -> None:
    submit(database)
    for scope in (str(operation.scope), "admin"):
        assert call(shop("shop", scope), operation).status_code not in (401, 403)


def test_health_and_documents_need_no_key(nobody: httpx.Client) -> None:
    for path in ("/", "/docs", "/openapi.json", "/livez", "/readyz"):
        assert nobody.get(path, headers={"authorization": "Bearer nonsense"}).status_code == 200, path
        assert nobody.head(path).status_code == 200, path


def test_metrics_of_all_clients_need_review(nobody: httpx.Client, shop: Shop) -> None:
    assert_problem(nobody.get("/metrics"), 401)
    assert_problem(shop().get("/metrics"), 403)
    assert shop("monitoring", "review").get("/metrics").status_code == 200


def test_the_document_says_that_keys_are_needed(nobody: httpx.Client) -> None:
    document = nobody.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    for operation in OPERATIONS:
        described = document["paths"][operation.path][operation.method.lower()]
        assert described.get("security") == ([{"apiKey": [operation.scope]}] if operation.scope else None)


def test_head_needs_a_key_as_get_does_and_options_answers_no_origin(nobody: httpx.Client, shop: Shop) -> None:
    assert nobody.head("/moderation_results").status_code == 401
    assert shop().head("/moderation_results").status_code == 200
    preflight = {"origin": "https://example.org", "access-control-request-method": "POST"}
    response = nobody.options("/async_predict", headers=preflight)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_body_without_a_key_is_refused_before_it_arrives(guarded_api: Api, keys: ApiKeys) -> None:
    connection = HTTPConnection(HOST, guarded_api.port, timeout=60)
    connection.putrequest("POST", "/items")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", "900000")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("Bearer {}", 200),
        ("bearer {}", 200),
        ("BEARER   {}", 200),
        ("Bearer\t{}", 401),
        ("Bearer{}", 401),
        ("{}", 401),
        ("Basic {}", 401),
        ("Bearer", 401),
        ("Bearer {}x", 401),
        ("Bearer x{}", 401),
        ("Bearer {} {}", 401),
        ("Bearer {}, Bearer {}", 401),
        ('Bearer "{}"', 401),
        ("Bearer mod_aaaaaaaaaaaa_" + "a" * 43, 401),
        ("Bearer " + "a" * 5000, 401),
    ],
)
def test_a_key_is_read_as_rfc_6750_has_it(shop: Shop, value: str, status: int) -> None:
    client = shop()
    key = client.headers["authorization"].removeprefix("Bearer ")
    client.headers["authorization"] = value.replace("{}", key)
    assert client.get("/moderation_results").status_code == status


def test_two_keys_in_a_request_are_401(guarded_api: Api, shop: Shop) -> None:
    one, other = (shop().headers["authorization"] for _ in range(2))
    with guarded_api.client() as client:
        headers = [("authorization", one), ("authorization", other)]
        assert_problem(client.get("/moderation_results", headers=headers), 401)


def test_a_key_in_the_url_is_not_read(nobody: httpx.Client, shop: Shop) -> None:
    key = shop().headers["authorization"].removeprefix("Bearer ")
    for name in ("access_token", "api_key", "key", "token"):
        assert_problem(nobody.get("/moderation_results", params={name: key}), 401)


def test_a_revoked_key_is_refused_by_every_process_within_seconds(
    guarded_api: Api, shop: Shop, keys: ApiKeys
) -> None:
    client = shop()

    def statuses() -> set[int]:
        answers = set()
        for _ in range(12):  # each with a connection of its own, which any process may have
            with guarded_api.client() as one:
                answers.add(one.get("/moderation_results", headers=client.headers).status_code)
        return answers

    assert statuses() == {200}
    assert keys.revoke(client.key_id, reason="lost", by="test")  # type: ignore[attr-defined]
    wait_until(lambda: statuses() == {401}, deadline_s=30, what="every process to refuse the key")
    assert "revoked" in assert_problem(client.get("/moderation_results"), 401)
    assert not keys.revoke(client.key_id, reason="again", by="test")  # type: ignore[attr-defined]


def test_an_expired_key_is_refused(shop: Shop) -> None:
    client = shop(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert "expired" in assert_problem(client.get("/moderation_results"), 401)


def test_a_client_sees_and_cancels_its_own_submissions_only(shop: Shop, database: Engine) -> None:
    submit(database)  # task 1, without a key, as before there were keys
    mine, second, other = shop("mine"), shop("mine"), shop("other")
    task_id = task_of(mine.post("/async_predict?item_id=1"))
    other_id = task_of(other.post("/async_predict?item_id=1"))
    for client in (mine, second):
        assert listed(client) == [task_id]
        assert client.get("/moderation_results?item_id=1").json()["results"][0]["task_id"] == task_id
        assert client.get(f"/submissions/{task_id}").json()["client_id"] == 1
    assert listed(other) == [other_id]
    paths = ["/moderation_result/{}", "/moderation_result/{}?wait=10", "/submissions/{}"]
    for invisible in (1, task_id):
        for path in (*paths, "/moderation_result/{}/explanation"):
            assert_problem(other.get(path.format(invisible)), 404)
        assert_problem(other.post(f"/moderation_result/{invisible}/cancel"), 404)
    assert second.post(f"/moderation_result/{task_id}/cancel").json()["status"] == "cancelled"


def test_review_sees_the_submissions_of_all_and_admin_also_cancels_them(shop: Shop, database: Engine) -> None:
    submit(database)
    task_id = task_of(shop("mine").post("/async_predict?item_id=1"))
    reviewer, admin = shop("reviewer", "review", "submit"), shop("admin", "admin")
    for client in (reviewer, admin):
        assert listed(client) == [task_id, 1]
        assert client.get("/submissions/1").json()["client_id"] is None
    assert_problem(reviewer.post("/moderation_result/1/cancel"), 404)
    assert admin.post("/moderation_result/1/cancel").json()["status"] == "cancelled"


def test_an_edited_ad_is_handed_in_again_for_its_client(shop: Shop, database: Engine) -> None:
    client = shop("shop", "submit", "read", "items")
    first = task_of(client.post("/async_predict?item_id=1"))
    for change in (
        {"name": "другой"},
        {"is_verified_seller": True},
        {"seller_id": 77, "is_verified_seller": False},
    ):
        assert client.post("/items", json={**AD, **change}).status_code == 200
    found = listed(client)
    assert found[-1] == first
    assert len(found) >= 3
    assert execute(database, "SELECT DISTINCT client_id FROM moderation_results") == [(1,)]


def test_idempotency_keys_are_those_of_a_client(shop: Shop, database: Engine) -> None:
    execute(
        database,
        "INSERT INTO idempotency_keys VALUES ('same', 'x', '{7}', now() + interval '1 day')",
    )
    mine, second, other = shop("mine"), shop("mine"), shop("other")
    headers = {"idempotency-key": "same"}
    task_id = task_of(mine.post("/async_predict?item_id=1", headers=headers))
    assert task_of(second.post("/async_predict?item_id=1", headers=headers)) == task_id
    assert task_of(other.post("/async_predict?item_id=1", headers=headers)) not in (7, task_id)


def test_a_rate_that_is_used_up_is_429(guarded_api: Api, keys: ApiKeys, shop: Shop) -> None:
    client = shop(rate=(2, 3600))
    answers = [client.get("/moderation_results") for _ in range(3)]  # one connection: one process
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert_problem(answers[2], 429)
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"rate";q=2;w=3600'}
    assert [answer.headers["ratelimit"].split(";")[:2] for answer in answers] == [
        ['"rate"', "r=1"],
        ['"rate"', "r=0"],
        ['"rate"', "r=0"],
    ]
    assert 0 < int(answers[2].headers["retry-after"]) <= 1800


def test_a_key_without_limits_has_no_headers_of_limits(shop: Shop) -> None:
    assert "ratelimit" not in shop().get("/moderation_results").headers


def test_a_quota_is_exact_over_several_processes(guarded_api: Api, shop: Shop, database: Engine) -> None:
    client = shop(quota_per_day=25)

    def ask(_: int) -> httpx.Response:
        with guarded_api.client() as one:
            return one.post("/async_predict?item_id=1", headers=client.headers)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(40)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 15
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(25,)]
    for answer in refused:
        assert_problem(answer, 429)
        assert '"quota";r=0;t=' in answer.headers["ratelimit"]
        assert answer.headers["ratelimit-policy"] == '"quota";q=25;qu="ads";w=86400'
        assert int(answer.headers["retry-after"]) > 0


def test_a_repetition_and_an_unknown_ad_need_no_quota(shop: Shop, database: Engine) -> None:
    client = shop(quota_per_day=3)

    def ask(key: str, *item_ids: int) -> httpx.Response:
        headers = {"idempotency-key": key}
        if len(item_ids) == 1:
            return client.post(f"/async_predict?item_id={item_ids[0]}", headers=headers)
        return client.post("/async_predict/bulk", json={"item_ids": item_ids}, headers=headers)

    single, bulk = ask("single", 1), ask("bulk", 2, 3)
    assert single.status_code == bulk.status_code == 200
    for repeated, first in ((ask("single", 1), single), (ask("bulk", 2, 3), bulk)):
        assert repeated.status_code == 200
        assert repeated.json() == first.json()
        assert '"quota";r=0;' in repeated.headers["ratelimit"]
    assert_problem(ask("single", 2), 422)
    assert_problem(ask("new", 1), 429)
    assert_problem(ask("new", 1, 2), 429)
    for unknown in (client.post("/async_predict?item_id=99"), ask("new", 99)):
        assert_problem(unknown, 404)
        assert '"quota";r=0;' in unknown.headers["ratelimit"]
    assert execute(database, "SELECT used FROM api_key_usage") == [(3,)]
    assert execute(database, "SELECT count(*) FROM moderation_results") == [(3,)]


def test_a_locked_row_of_a_quota_refuses_the_ads_of_its_key_only(shop: Shop, database: Engine) -> None:
    locked, other = shop("locked", quota_per_day=1000), shop("other", quota_per_day=1000)
    for client in (locked, other):
        assert client.post("/async_predict?item_id=1").status_code == 200
    key_id = locked.key_id  # type: ignore[attr-defined]
    with database.connect() as somebody, ThreadPoolExecutor(8) as threads:
        somebody.exec_driver_sql("SELECT FROM api_key_usage WHERE key_id = %s FOR UPDATE", (key_id,))
        asked = [
            (client, threads.submit(client.post, "/async_predict?item_id=1"))
            for client in (locked, other) * 12
        ]
        for client, answer in asked:
            assert answer.result().status_code == (503 if client is locked else 200)
        somebody.rollback()
    assert locked.post("/async_predict?item_id=1").status_code == 200
    assert execute(database, "SELECT used FROM api_key_usage ORDER BY used") == [(2,), (13,)]


def test_ads_that_are_not_handed_in_do_not_count(shop: Shop, database: Engine) -> None:
    client = shop(quota_per_day=4)
    assert_problem(client.post("/async_predict?item_id=99"), 404)
    for _ in range(3):
        answer = client.post("/async_predict?item_id=1", headers={"idempotency-key": "once"})
        assert answer.status_code == 200
    bulk = client.post("/async_predict/bulk", json={"item_ids": [1, 99, 98]})
    assert bulk.json()["accepted"] == 1
    assert '"quota";r=2;' in bulk.headers["ratelimit"]
    assert_problem(client.post("/async_predict/bulk", json={"item_ids": [1, 2, 3]}), 429)
    assert client.post("/async_predict/bulk", json={"item_ids": [1, 2]}).status_code == 200
    assert_problem(client.post("/async_predict?item_id=1"), 429)
    assert execute(database, "SELECT used FROM api_key_usage") == [(4,)]
    assert client.get("/moderation_results").status_code == 200  # reading has no quota


def test_the_audit_log_names_key_action_and_what_was_changed(shop: Shop, keys: ApiKeys) -> None:
    client = shop("shop", "submit", "read", "items")
    one = task_of(client.post("/async_predict?item_id=1"))
    bulk = client.post("/async_predict/bulk", json={"item_ids": [2, 99]}).json()["results"][0]["task_id"]
    keyed = task_of(client.post("/async_predict?item_id=3", headers={"idempotency-key": "k"}))
    client.post(f"/moderation_result/{one}/cancel")
    client.post("/items", json=AD | {"item_id": 7})
    key_id = client.key_id  # type: ignore[attr-defined]
    keys.revoke(key_id, reason="done", by="somebody")
    done = [(entry.action, entry.task_ids, entry.item_ids) for entry in reversed(keys.entries(key_id=key_id))]
    assert done == [
        ("submit", [one], None),
        ("submit", [bulk], None),
        ("submit", [keyed], None),
        ("cancel", [one], None),
        ("store_ads", None, [7]),
    ]
    assert [entry.action for entry in keys.entries(task_id=one)] == ["cancel", "submit"]
    assert [entry.key_id for entry in keys.entries(item_id=7)] == [key_id]
    newest = keys.entries(limit=1)[0]
    assert (newest.action, newest.subject, newest.done_by, newest.reason) == (
        "revoke_key",
        key_id,
        "somebody",
        "done",
    )


def test_no_log_and_no_answer_of_the_api_has_a_key(guarded_api: Api, shop: Shop) -> None:
    client = shop()
    key = client.headers["authorization"].removeprefix("Bearer ")
    answers = [
        client.get(f"/nothing/{key}"),
        client.get(f"/moderation_result/{key}"),
        client.get("/moderation_results", params={"api_key": key, "cursor": key}),
        client.post("/items", content=b"{", headers={"content-type": "application/json"}),
        client.get("/moderation_results", headers={"authorization": f"Bearer {key}x"}),
    ]
    assert not [answer.text for answer in answers if key in answer.text]
    assert key not in guarded_api.child.log.read_text()


def test_where_keys_are_off_a_request_without_one_sees_all_and_a_key_is_checked(
    api: Api, client: httpx.Client, keys: ApiKeys
) -> None:
    anonymous = task_of(client.post("/async_predict?item_id=1"))
    key, _ = keys.create("shop", scopes=("submit", "read"), by="test")
    with api.client() as shop:
        shop.headers["authorization"] = f"Bearer {key}"
        mine = task_of(shop.post("/async_predict?item_id=1"))
        assert listed(shop) == [mine]
        assert_problem(shop.post("/items", json=AD), 403)
        shop.headers["authorization"] = f"Bearer {key}x"
        assert_problem(shop.get("/moderation_results"), 401)
        shop.headers["authorization"] = "Basic c29tZTpvbmU="  # for a proxy
        assert listed(shop) == [mine, anonymous]
    assert listed(client) == [mine, anonymous]


def test_without_postgresql_a_key_is_503_and_accepted_again_afterwards(
    postgres_server: PostgresServer, stack: Stack, server_home: Callable[[], Path], namespace: str
) -> None:
    url = postgres_server.url("moderation")
    database = Database(Settings(database_url=url))
    key, _ = ApiKeys(database).create("shop", scopes=("read",), by="test")
    env = {**stack.env(), "KAFKA_NAMESPACE": namespace, "DATABASE_URL": url, "API_KEYS": "on"}
    api = Api(server_home(), env)
    try:
        api.start()
        with api.client() as client:
            client.headers["authorization"] = f"Bearer {key}"
            assert client.get("/moderation_results").status_code == 200
            postgres_server.kill()
            for _ in range(3):
                assert_problem(client.get("/moderation_results"), 503)
            with api.client() as nobody:
                assert_problem(nobody.get("/moderation_results"), 401)
            assert client.get("/livez").status_code == 200
            postgres_server.start()
            wait_until(
                lambda: client.get("/moderation_results").status_code == 200,
                deadline_s=60,
                what="the key to be accepted again",
            )
    finally:
        api.child.kill()
