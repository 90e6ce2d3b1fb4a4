"""The pages of API keys in the web console, on a real PostgreSQL."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from broker.console.web.looks import Console
from broker.console.web.sections import section_of
from dev.ports import HOST, free_port
from settings import get_settings
from submissions.callers import parse_key
from submissions.console.pages import KeyPages
from submissions.database import Database
from submissions.keys import ApiKeys, KeyLimits
from tests.broker.console.web.conftest import Browser, Open
from tests.db.rows import execute

KEY = re.compile(r"mod_[a-z2-7]{12}_[A-Za-z0-9_-]{43}")

OpenKeys = Callable[[str | None], Browser]


def keys_at(url: str) -> ApiKeys:
    return ApiKeys(Database(get_settings().model_copy(update={"database_url": url})))


@pytest.fixture
def keys(database: Engine) -> ApiKeys:
    return keys_at(database.url.render_as_string(hide_password=False))


@pytest.fixture
def open_keys(open_as: Open, keys: ApiKeys) -> OpenKeys:
    """Opens a browser at a console with the pages."""
    section = KeyPages(lambda: keys).section()
    return lambda user: open_as(user, sections=[section])


def post(browser: Browser, path: str, **data: Any) -> Any:
    answer = browser.post(path, data, headers={"Accept": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_pages_are_found_by_the_name_that_make_run_gives() -> None:
    assert section_of("submissions.console.pages:API_KEYS").href == "/api-keys"


def test_a_created_key_is_in_its_answer_alone(
    open_keys: OpenKeys, console: Console, database: Engine, keys: ApiKeys
) -> None:
    anna = open_keys("anna")
    form = {"client": "магазин <b>", "scope": ["submit", "items"], "rate": "100/m", "quota": "5000"}
    answer = anna.post("/api-keys/create", {**form, "expires": "90d", "reason": "new shop"})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    [text] = KEY.findall(answer.text)
    assert "data-live" not in answer.text  # a page that follows would lose the key
    [key], _ = keys.list()
    assert (key.client, key.scopes, key.created_by) == ("магазин <b>", ("submit", "items"), "anna")
    assert (key.rate_requests, key.rate_window_s, key.quota_per_day) == (100, 60, 5000)
    assert key.expires_at is not None
    kept = parse_key(text)
    assert kept is not None
    assert kept.digest == key.digest
    page = anna.get("/api-keys").text
    assert key.key_id in page
    assert "магазин &lt;b&gt;" in page
    secret = text.rpartition("_")[2]
    everything = [page, anna.get("/audit").text, console.audit.path.read_text()]
    everything += [str(row) for row in execute(database, "SELECT CAST(l AS text) FROM audit_log AS l")]
    assert not [one for one in everything if secret in one]
    noted = [(row["who"], row["what"], row["subject"], row["why"]) for row in console.audit.rows()]
    assert noted[-1] == ("anna", "create API key", "магазин <b>: submit, items", "new shop")
    assert [entry.done_by for entry in keys.entries()] == ["anna"]


def test_a_revoked_key_says_who_revoked_it_and_why(
    open_keys: OpenKeys, keys: ApiKeys, console: Console
) -> None:
    _, key = keys.create("shop", scopes=["submit"])
    anna = open_keys("anna")
    assert anna.post("/api-keys/revoke", {"key_id": key.key_id}).status_code == 400  # no reason
    answer = anna.post("/api-keys/revoke", {"key_id": key.key_id, "reason": "lost <i>"})
    assert answer.headers["location"] == "/api-keys?told=revoked"
    page = anna.get(answer.headers["location"]).text
    assert "refuses it within two seconds" in page
    assert "by anna: lost &lt;i&gt;" in page
    assert 'action="/api-keys/revoke"' not in page
    newest = keys.entries()[0]
    assert (newest.action, newest.done_by) == ("revoke_key", "anna")
    again = anna.post("/api-keys/revoke", {"key_id": key.key_id, "reason": "lost"})
    assert again.status_code == 404
    assert console.audit.rows()[-2]["outcome"].startswith("failed: There is no key")


@pytest.mark.parametrize("key_id", ["nothing", "x\x00y", "ключ", "a" * 5_000, "'; DROP TABLE api_keys"])
def test_an_unknown_key_is_not_found(open_keys: OpenKeys, key_id: str) -> None:
    answer = open_keys("anna").post("/api-keys/revoke", {"key_id": key_id, "reason": "lost\x00"})
    assert answer.status_code == 404, answer.text


def test_only_administrators_change_keys_and_viewers_see_them(open_keys: OpenKeys, keys: ApiKeys) -> None:
    _, key = keys.create("shop", scopes=["submit"], limits=KeyLimits(quota_per_day=7))
    for user in ("vera", "otto"):
        browser = open_keys(user)
        page = browser.get("/api-keys").text
        assert key.key_id in page
        assert "Create a key" not in page
        assert "/api-keys/revoke" not in page
        assert browser.post("/api-keys/create", {"client": "mine", "scope": "admin"}).status_code == 403
        revoked = browser.post("/api-keys/revoke", {"key_id": key.key_id, "reason": "envy"})
        assert revoked.status_code == 403
    assert open_keys(None).get("/api-keys").status_code == 303
    [row] = open_keys("vera").document("/api-keys")["keys"]
    assert (row["state"], row["quota_per_day"], row["used_today"]) == ("valid", 7, None)
    assert "digest" not in row


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"scope": "submit"}, "Name the client"),
        ({"client": "shop"}, "A key needs scopes"),
        ({"client": "shop", "scope": ["submit", "root"]}, "A key needs scopes"),
        ({"client": "a\x00b", "scope": "submit"}, "is no name"),
        ({"client": "a" * 201, "scope": "submit"}, "is no name"),
        ({"client": "shop", "scope": "submit", "rate": "fast"}, "is no rate"),
        ({"client": "shop", "scope": "submit", "rate": "0/s"}, "is no rate"),
        ({"client": "shop", "scope": "submit", "quota": "-1"}, "is no number"),
        ({"client": "shop", "scope": "submit", "quota": "9" * 16}, "is no number"),
        ({"client": "shop", "scope": "submit", "expires": "yesterday"}, "is no time"),
        ({"client": "shop", "scope": "submit", "expires": "2020-01-01T00:00Z"}, "is in the past"),
        ({"client": "shop", "scope": "submit", "expires": "2030-01-01"}, "no time zone"),
    ],
)
def test_a_form_that_makes_no_key_is_refused_with_the_reason(
    open_keys: OpenKeys, keys: ApiKeys, form: dict[str, Any], said: str
) -> None:
    answer = open_keys("anna").post("/api-keys/create", form)
    assert answer.status_code == 400
    assert said in answer.text
    assert keys.list()[0] == []


def test_a_client_and_a_state_narrow_the_list_down(open_keys: OpenKeys, keys: ApiKeys) -> None:
    _, old = keys.create("shop", scopes=["submit"])
    _, new = keys.create("shop", scopes=["submit"])
    keys.create("other", scopes=["read"])
    keys.revoke(old.key_id, reason="replaced")
    vera = open_keys("vera")
    everything = vera.document("/api-keys")
    assert everything["counts"] == {"valid": 2, "expired": 0, "revoked": 1}
    assert [row["key_id"] for row in everything["keys"]][-1] == old.key_id
    found = vera.document("/api-keys?client=shop&state=valid")["keys"]
    assert [row["key_id"] for row in found] == [new.key_id]
    assert vera.document("/api-keys?state=nonsense")["keys"] == []


def test_a_database_that_is_away_is_named_and_the_other_pages_go_on(open_as: Open) -> None:
    away = keys_at(f"postgresql://nobody@{HOST}:{free_port()}/moderation")
    anna = open_as("anna", sections=[KeyPages(lambda: away).section()])
    answer = anna.get("/api-keys")
    assert answer.status_code == 502
    assert "PostgreSQL" in answer.text
    assert anna.post("/api-keys/create", {"client": "shop", "scope": "submit"}).status_code == 502
    assert anna.get("/").status_code == 200


def test_a_client_that_json_asks_for_a_key_gets_it(open_keys: OpenKeys) -> None:
    document = post(open_keys("anna"), "/api-keys/create", client="shop", scope=["submit"])
    assert KEY.fullmatch(document["key"])
    assert document["scopes"] == ["submit"]
