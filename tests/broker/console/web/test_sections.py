"""Pages that an application adds to the console."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.console.command import app
from broker.console.web.looks import Console
from broker.console.web.sections import (
    Access,
    Look,
    Redirect,
    Route,
    Section,
    SectionRefused,
    Unreachable,
    View,
    carry_out,
    reason_of,
    section_of,
)
from tests.broker.console.web.conftest import Open

STOCK = {"hats": 3}
let_answer, asked = threading.Event(), threading.Event()


def stock(look: Look) -> View:
    return View("stock/stock.html", "stock", "Stock", {"stock": dict(STOCK), "who": look.user.name})


def take(look: Look) -> Redirect:
    reason = reason_of(look)
    carry_out(look, "take", "hats", reason, lambda: STOCK.update(hats=STOCK["hats"] - 1))
    return Redirect(look.url("/stock", told="taken"), {"left": STOCK["hats"]})


def away(look: Look) -> View:
    raise Unreachable("The store of hats does not answer.")


def hang(look: Look) -> View:
    asked.set()
    assert let_answer.wait(60)
    return stock(look)


@pytest.fixture
def section(tmp_path: Path) -> Section:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "stock.html").write_text(
        '{% extends "page.html" %}{% block content %}<h1>{{ who }} has {{ stock.hats|number }}</h1>'
        "{% if can_administer %}<form>Take one</form>{% endif %}{% endblock %}"
    )
    STOCK["hats"] = 3
    return Section(
        "stock",
        "Stock <&>",
        "/stock",
        [
            Route("GET", "/stock", Access.VIEW, stock, "The stock."),
            Route("GET", "/stock/away", Access.VIEW, away, "A page that needs a server."),
            Route("GET", "/stock/hang", Access.VIEW, hang, "A page that hangs."),
            Route("POST", "/stock/take", Access.ADMINISTER, take, "Takes a hat."),
        ],
        templates,
        {"taken": "One hat is taken."},
    )


def test_a_page_has_the_frame_and_the_console_has_its_entry(open_as: Open, section: Section) -> None:
    vera = open_as("vera", sections=[section])
    page = vera.get("/stock").text
    assert "<h1>vera has 3</h1>" in page
    assert '<a href="/stock" aria-current="page">Stock &lt;&amp;&gt;</a>' in page
    assert "Take one" not in page
    assert '<a href="/stock">Stock' in vera.get("/").text
    assert vera.document("/stock")["stock"] == {"hats": 3}
    assert vera.document("/openapi.json")["paths"]["/stock/take"]["post"]["x-right"] == "administer"


def test_a_console_without_the_section_has_no_entry(open_as: Open, section: Section) -> None:
    assert "/stock" not in open_as("vera").get("/").text
    assert open_as("vera").get("/stock").status_code == 404


def test_the_guard_decides_about_its_pages_and_the_audit_has_its_changes(
    console: Console, open_as: Open, section: Section
) -> None:
    nobody = open_as(None, sections=[section])
    assert nobody.get("/stock").status_code == 303
    assert nobody.get("/stock").headers["location"].startswith("/log-in")
    assert open_as("otto", sections=[section]).post("/stock/take", {"reason": "cold"}).status_code == 403
    anna = open_as("anna", sections=[section])
    foreign = {"Origin": "http://elsewhere", "Sec-Fetch-Site": "cross-site"}
    assert anna.post("/stock/take", {"reason": "cold"}, headers=foreign).status_code == 403
    assert anna.post("/stock/take").status_code == 400  # no reason
    assert STOCK["hats"] == 3
    answer = anna.post("/stock/take", {"reason": "cold"})
    assert answer.headers["location"] == "/stock?told=taken"
    assert "One hat is taken." in anna.get("/stock?told=taken").text
    rows = [(one["who"], one["what"], one["why"], one["outcome"]) for one in console.audit.rows()]
    assert rows[-2:] == [("anna", "take", "cold", "begun"), ("anna", "take", "cold", "done")]


def test_a_read_only_console_refuses_its_changes(console: Console, open_as: Open, section: Section) -> None:
    anna = open_as("anna", of=replace(console, is_read_only=True), sections=[section])
    assert anna.post("/stock/take", {"reason": "cold"}).status_code == 403
    assert "Take one" not in anna.get("/stock").text


def test_a_server_that_is_away_is_named(open_as: Open, section: Section) -> None:
    answer = open_as("vera", sections=[section]).get("/stock/away")
    assert answer.status_code == 502
    assert "The store of hats does not answer." in answer.text


def test_pages_that_hang_do_not_hold_the_pages_of_the_console(open_as: Open, section: Section) -> None:
    vera = open_as("vera", sections=[section])
    let_answer.clear()
    asked.clear()
    with ThreadPoolExecutor(8) as threads:
        hanging = [threads.submit(vera.get, "/stock/hang") for _ in range(8)]
        try:
            assert asked.wait(20)
            assert vera.get("/queues").status_code == 200
            assert not any(one.done() for one in hanging)
        finally:
            let_answer.set()
        assert [one.result().status_code for one in hanging] == [200] * 8


@pytest.mark.parametrize(
    ("href", "path", "said"),
    [
        ("/queues", "/queues/mine", "taken by other pages"),
        ("/log-in", "/log-in/mine", "taken by other pages"),
        ("/", "/mine", "not of the form"),
        ("/a/b", "/a/b/c", "not of the form"),
        ("/stock", "/stocks", "not below"),
        ("/stock", "/", "not below"),
    ],
)
def test_a_section_keeps_to_its_own_path(
    open_as: Open, section: Section, href: str, path: str, said: str
) -> None:
    routes = [Route("GET", path, Access.VIEW, stock, "The stock.")]
    with pytest.raises(SectionRefused, match=said):
        open_as("vera", sections=[replace(section, href=href, routes=routes)])


def test_two_sections_do_not_share_a_path(open_as: Open, section: Section) -> None:
    with pytest.raises(SectionRefused, match="taken by other pages"):
        open_as("vera", sections=[section, replace(section, name="other")])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.such.module:STOCK", "No module named"),
        ("json:STOCK", "no attribute 'STOCK'"),
        ("json", "module:variable"),
        ("json:loads", "is a function, and no Section"),
    ],
)
def test_a_name_that_is_no_section_is_refused_with_the_reason(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SectionRefused, match=said):
        section_of(name)
    url = "kafka://127.0.0.1:1/shop-?group_id=shop"
    arguments = [url, "console", "--port", "0", "--data", str(tmp_path), "--pages", name]
    done = CliRunner().invoke(app, arguments, prog_name="dkb")
    assert done.exit_code == 2, done.output
    assert said in done.stderr
