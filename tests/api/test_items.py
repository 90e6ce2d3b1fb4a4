"""POST /items and /items/bulk: a user's own ads, without SQL."""

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from db.items import HIGHEST_FOLLOWED_ID
from db.submissions import MAX_ID
from tests.api.problems import assert_problem
from tests.db.rows import execute

AD: dict[str, Any] = {
    "item_id": 1001,
    "seller_id": 77,
    "is_verified_seller": True,
    "name": "Велосипед 🚲",
    "description": 'Почти "новый"\n\'; DROP TABLE items; --',
    "category": 19,
    "images_qty": 2,
}


def stored(engine: Engine, item_id: int) -> dict[str, Any] | None:
    rows = execute(
        engine,
        "SELECT items.id, seller_id, is_verified_seller, name, description, category, images_qty"
        " FROM items JOIN users ON users.id = seller_id WHERE items.id = :item_id",
        item_id=item_id,
    )
    return dict(zip(AD, rows[0], strict=True)) if rows else None


def test_a_new_ad_is_created_with_its_seller(client: httpx.Client, database: Engine) -> None:
    response = client.post("/items", json=AD)
    assert (response.status_code, response.json()) == (200, {"item_id": 1001, "status": "created"})
    assert stored(database, 1001) == AD
    assert client.post("/async_predict?item_id=1001").status_code == 200


def test_an_ad_that_is_there_is_overwritten_and_so_is_its_seller(
    client: httpx.Client, database: Engine
) -> None:
    client.post("/items", json=AD)
    changed = {**AD, "name": "", "description": "", "category": 0, "is_verified_seller": False}
    assert client.post("/items", json=changed).json() == {"item_id": 1001, "status": "updated"}
    assert stored(database, 1001) == changed


def test_many_ads_are_stored_at_once_with_a_status_for_each(client: httpx.Client, database: Engine) -> None:
    ads = [{**AD, "item_id": item_id} for item_id in (1003, 2, 1002)]
    response = client.post("/items/bulk", json={"items": ads})
    assert response.json() == {
        "results": [
            {"item_id": 1003, "status": "created"},
            {"item_id": 2, "status": "updated"},
            {"item_id": 1002, "status": "created"},
        ]
    }
    assert [stored(database, item_id) for item_id in (1003, 2, 1002)] == ads


def test_an_ad_without_a_given_id_finds_a_free_one_afterwards(client: httpx.Client, database: Engine) -> None:
    client.post("/items", json=AD)
    client.post("/items", json={**AD, "item_id": 5})
    [(item_id,)] = execute(
        database,
        "INSERT INTO items (seller_id, name, description, category) VALUES (77, '', '', 1) RETURNING id",
    )
    assert item_id == 1002


@pytest.mark.parametrize("given", [MAX_ID, MAX_ID - 1, HIGHEST_FOLLOWED_ID, HIGHEST_FOLLOWED_ID + 1], ids=str)
def test_no_given_id_uses_up_the_free_ones(client: httpx.Client, database: Engine, given: int) -> None:
    high = {**AD, "item_id": given, "seller_id": given}
    for _ in range(2):
        assert client.post("/items", json=high).status_code == 200
    assert client.post("/items/bulk", json={"items": [AD, high]}).status_code == 200
    [(seller_id,)] = execute(database, "INSERT INTO users DEFAULT VALUES RETURNING id")
    [(item_id,)] = execute(
        database,
        "INSERT INTO items (seller_id, name, description, category) VALUES (77, '', '', 1) RETURNING id",
    )
    assert (seller_id, item_id) == (
        (given + 1, given + 1) if given <= HIGHEST_FOLLOWED_ID else (AD["seller_id"] + 1, AD["item_id"] + 1)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("item_id", 0),
        ("item_id", "1"),
        ("item_id", MAX_ID + 1),
        ("seller_id", -1),
        ("seller_id", None),
        ("is_verified_seller", 1),
        ("is_verified_seller", "true"),
        ("name", None),
        ("name", 5),
        ("name", "x" * 1_001),
        ("name", "a\x00b"),
        ("description", "\ud800"),
        ("description", "x" * 100_001),
        ("category", -1),
        ("category", 101),
        ("category", 1.5),
        ("images_qty", -1),
        ("images_qty", True),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_value_that_no_ad_has_is_422_and_named_and_nothing_is_stored(
    client: httpx.Client, database: Engine, key: str, value: Any
) -> None:
    wrong = {**AD, key: value}
    for path, body in (("/items", wrong), ("/items/bulk", {"items": [AD, wrong]}), ("/predict", wrong)):
        response = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert key in assert_problem(response, 422)
    assert execute(database, "SELECT count(*) FROM items") == [(3,)]


def test_no_key_of_an_ad_may_be_absent(client: httpx.Client) -> None:
    for key in AD:
        incomplete = {name: value for name, value in AD.items() if name != key}
        assert key in assert_problem(client.post("/items", json=incomplete), 422)


def test_of_ads_that_contradict_each_other_the_last_is_stored(client: httpx.Client, database: Engine) -> None:
    ads = [AD, {**AD, "item_id": 1002}, {**AD, "name": "last", "is_verified_seller": False}]
    assert client.post("/items/bulk", json={"items": ads}).json()["results"] == [
        {"item_id": 1001, "status": "created"},
        {"item_id": 1002, "status": "created"},
        {"item_id": 1001, "status": "updated"},
    ]
    assert stored(database, 1001) == ads[2]
    assert stored(database, 1002) == {**ads[1], "is_verified_seller": False}


@pytest.mark.parametrize("number", ["1001.0", "1.001e3", "10010e-1"])
def test_an_integer_is_one_however_json_spells_it(client: httpx.Client, number: str) -> None:
    body = json.dumps(AD).replace("1001", number)
    response = client.post("/items", content=body, headers={"content-type": "application/json"})
    assert response.json() == {"item_id": 1001, "status": "created"}


@pytest.mark.parametrize("number", ["1.5", "1e400", "1e999999999", "1e9999999999999999999", "9.3e18", "-0.0"])
def test_what_is_no_integer_in_range_is_422_however_json_spells_it(client: httpx.Client, number: str) -> None:
    body = json.dumps(AD).replace("1001", number)
    response = client.post("/items", content=body, headers={"content-type": "application/json"})
    assert "item_id" in assert_problem(response, 422)
