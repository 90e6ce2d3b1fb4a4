"""Who may ask for what. One place decides, and these tests look at every route."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from broker.console.web.app import Identification, create_app
from broker.console.web.guard import Asked, refusal
from broker.console.web.looks import Console
from broker.console.web.sessions import Attempts, Sessions
from broker.console.web.users import Access, User, UserRole, Users, UsersRefused, hash_of
from broker.testing import Kit, advance
from tests.broker.console.web.conftest import USERS, Open

OPEN = {("GET", "/log-in"), ("POST", "/log-in"), ("POST", "/log-out"), ("GET", "/static/<name:path>")}


@pytest.fixture
def routes(console: Console) -> list[tuple[str, str, Access]]:
    """All routes of the application: method, path and right."""
    app = create_app(console, Identification(USERS, Sessions(b"k")))
    return [
        (method, "/" + route.path, route.ctx.right) for route in app.router.routes for method in route.methods
    ]


def url_of(path: str) -> str:
    return re.sub(r"<[^:]*:int>", "0", re.sub(r"<[^:]*:(str|path)>", "mail", path))


def test_only_the_log_in_and_its_style_are_open_to_nobody(
    routes: list[tuple[str, str, Access]], open_as: Open
) -> None:
    nobody = open_as(None)
    for method, path, right in routes:
        assert (right is Access.PUBLIC) == ((method, path) in OPEN), path
        if (method, path) in OPEN:
            continue
        answer = nobody.ask(method, url_of(path))
        assert (answer.status_code, answer.headers["location"][:11]) == (303, "/log-in?to="), path
        answer = nobody.ask(method, url_of(path), headers={"Accept": "application/json"})
        assert answer.status_code == 401, path


def test_no_route_that_changes_something_is_open_to_a_viewer_or_without_an_origin(
    routes: list[tuple[str, str, Access]], console: Console, open_as: Open
) -> None:
    read_only = dataclasses.replace(console, is_read_only=True)
    for method, path, right in routes:
        if method == "GET":
            continue
        url = url_of(path)
        for headers in (
            {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
            {"Origin": "http://elsewhere"}, {"Origin": "null"}, {"Origin": None, "Sec-Fetch-Site": None},
        ):  # fmt: skip
            answer = open_as("anna").post(url, headers=headers)
            assert answer.status_code == 403, (path, headers)
        if (method, path) in OPEN:
            continue
        assert right >= Access.OPERATE, path
        assert open_as("vera").post(url).status_code == 403, path
        assert open_as("anna", read_only).post(url).status_code == 403, path
        if right is Access.ADMINISTER:
            assert open_as("otto").post(url).status_code == 403, path


def test_a_page_that_somebody_adds_without_a_right_is_refused(console: Console, open_as: Open) -> None:
    asked = Asked("GET", None, USERS.get("anna"), "h", None, None)
    refused = refusal(asked, is_read_only=False)
    assert refused is not None
    assert refused.status == 403


def test_a_change_needs_the_right_to_operate_whatever_its_route_names() -> None:
    for role, status in ((UserRole.VIEWER, 403), (UserRole.OPERATOR, None)):
        asked = Asked("POST", Access.VIEW, User("u", role), "h", "http://h", "same-origin")
        refused = refusal(asked, is_read_only=False)
        assert (refused and refused.status) == status


def test_every_answer_forbids_frames_and_inline_scripts(
    routes: list[tuple[str, str, Access]], console: Console, open_as: Open
) -> None:
    console.collector.read_once()
    anna = open_as("anna")
    for method, path, _ in routes:
        if method == "GET" and path != "/events":
            answer = anna.get(url_of(path))
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy, path
            assert "unsafe" not in policy
            if "html" in answer.headers["content-type"]:
                assert not re.search(r"<script(?! src)|\son\w+=|\sstyle=|<style|javascript:", answer.text), (
                    path
                )
    assert "unsafe" not in anna.get("/other").headers["content-security-policy"]


@pytest.fixture(scope="module")
def users() -> Users:
    return Users.of_password("correct horse")


def test_a_log_in_gives_a_strict_cookie_that_opens_the_pages(open_as: Open, users: Users) -> None:
    browser = open_as(None, users=users)
    answer = browser.post("/log-in", {"user": "admin", "password": "correct horse", "to": "/queues?a=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/queues?a=1")
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
    value = cookie.partition(";")[0]
    assert browser.get("/", headers={"Cookie": value}).status_code == 200
    assert browser.get("/", headers={"Cookie": value[:-1] + "0"}).status_code == 303
    assert browser.post("/log-out", headers={"Cookie": value}).status_code == 303
    assert browser.get("/", headers={"Cookie": value}).status_code == 303


@pytest.mark.parametrize("to", ["//elsewhere", "/\\elsewhere", "http://elsewhere", "", "/a\nb"])
def test_a_log_in_leads_to_this_site_alone(open_as: Open, users: Users, to: str) -> None:
    answer = open_as(None, users=users).post(
        "/log-in", {"user": "admin", "password": "correct horse", "to": to}
    )
    assert answer.headers["location"] == "/"


def test_failed_log_ins_are_limited_and_in_the_audit(
    kit: Kit, console: Console, open_as: Open, users: Users
) -> None:
    browser = open_as(None, users=users)
    codes = [browser.post("/log-in", {"user": "admin", "password": "x"}).status_code for _ in range(6)]
    assert codes == [401] * 5 + [429]
    right = {"user": "admin", "password": "correct horse"}
    answer = browser.post("/log-in", right)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) <= 61
    advance(seconds=61)
    assert browser.post("/log-in", right).status_code == 303
    assert [row["outcome"] for row in console.audit.rows()] == ["refused"] * 5 + ["done"]


def test_attempts_of_many_names_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.console.web.sessions.MAX_REMEMBERED", 10)
    attempts = Attempts()
    for number in range(100):
        attempts.note_failure(f"user {number}")
    assert len(vars(attempts)["_failures"]) == 10


def test_a_session_expires(kit: Kit) -> None:
    sessions = Sessions(b"k" * 32)
    cookie = sessions.begin("anna")
    assert sessions.read(cookie) is not None
    assert Sessions(b"l" * 32).read(cookie) is None
    assert sessions.read(None) is sessions.read("x.y") is sessions.read("") is None
    advance(hours=13)
    assert sessions.read(cookie) is None


def test_a_proxy_names_the_user_only_from_its_address(open_as: Open) -> None:
    header: dict[str, Any] = {"proxy_header": "X-User", "proxy_addresses": frozenset({"127.0.0.1"})}
    browser = open_as(None, **header)
    assert browser.get("/", headers={"X-User": "vera"}).status_code == 200
    assert browser.get("/", headers={"X-User": "stranger"}).status_code == 303
    assert browser.get("/").status_code == 303
    header["proxy_addresses"] = frozenset({"192.0.2.1"})
    assert open_as(None, **header).get("/", headers={"X-User": "vera"}).status_code == 303


def test_a_file_of_users_names_roles_and_hashes(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    file.write_text(
        f"[users.anna]\nrole = 'admin'\npassword = '{hash_of('a')}'\narguments = true\n"
        "[users.vera]\nrole = 'viewer'\n"
    )
    users = Users.of_file(file)
    anna = users.verify("anna", "a")
    assert anna is not None
    assert (anna.name, anna.role, anna.may_see_arguments) == ("anna", UserRole.ADMIN, True)
    assert users.verify("anna", "b") is users.verify("vera", "") is users.verify("nobody", "nobody") is None
    assert users.get("vera") == User("vera", UserRole.VIEWER)
    for content, text in (
        ("", "needs tables"), ("[users.a]\nrole='root'", "no role"), ("[users.a]\nrol='admin'", "other keys"),
        ("[users.a]\nrole='admin'\npassword='plain'", "no argon2 hash"), ("[", "cannot be read"),
        ("[users.a]\nrole='admin'\narguments='yes'", "true or false"),
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(UsersRefused, match=text):
            Users.of_file(file)
