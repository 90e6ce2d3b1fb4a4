"""The pages, and that they tell what Kafka has."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import dramatiq
import pytest

from broker.console.web.looks import Console, View
from broker.console.web.rendering import Renderer
from broker.console.web.store import Row
from broker.console.web.users import User
from broker.reaper.death_note import DeathNote
from broker.reports.counters import ActorCounters
from broker.reports.histogram import Histogram
from broker.reports.report import ControlState
from broker.testing import Kit, advance, drain, kafka_away
from tests.broker.console.test_worker_verbs import Tell, four_workers, tell
from tests.broker.console.web.conftest import Open
from tests.broker.reports.samples import report

__all__ = ["tell"]

PAGES = [
    "/",
    "/queues",
    "/queues/mail",
    "/tasks",
    "/dead-letters",
    "/actors",
    "/workers",
    "/audit",
    "/health",
]
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"


class MailServerAway(Exception):
    """The mail server does not answer."""


@pytest.fixture
def failed(kit: Kit) -> str:
    """The id of a message whose actor has failed for good."""

    @dramatiq.actor(queue_name="mail", max_retries=0)
    def send_mail(order: int, password: str) -> None:
        raise MailServerAway(f"order {order}")

    message = send_mail.send(7, password="swordfish")
    drain(raise_errors=False)
    return message.message_id


def test_each_page_is_html_and_json(console: Console, open_as: Open, failed: str) -> None:
    console.collector.read_once()
    assert console.collector.condition.error == ""
    vera = open_as("vera")
    for path in PAGES:
        page = vera.get(path)
        assert page.status_code == 200, page.text
        assert page.headers["content-type"].startswith("text/html")
        assert "</html>" in page.text
        assert vera.document(path)["read_ms"] == console.collector.condition.read_ms


def test_the_overview_says_what_is_not_well(
    kit: Kit, console: Console, open_as: Open, failed: str, tell: Tell
) -> None:
    four_workers(kit, tell)
    console.collector.read_once()
    problems = open_as("vera").document("/")["problems"]
    texts = [(one["severity"], one["text"], one["href"]) for one in problems]
    assert ("error", "1 worker stuck", "/workers?state=stuck") in texts
    assert ("warning", "1 worker silent", "/workers?state=silent") in texts
    assert ("warning", "1 dead letter", "/dead-letters") in texts
    assert texts[0][0] == "error"
    states = {row["worker"]: row["state"] for row in open_as("vera").document("/workers")["workers"]}
    assert states == {"a:1:silent": "silent", "b:2:busy": "busy", "c:3:stuck": "stuck", "d:4:killed": "gone"}
    page = open_as("vera").get("/worker", params={"id": "c:3:stuck"})
    assert "m-2" in page.text


def test_all_is_well_when_nothing_is_wrong(kit: Kit, console: Console, open_as: Open) -> None:
    kit.broker.apply_topics(kit.broker.plan_topics("mail"))
    console.collector.read_once()
    assert "All is well" in open_as("vera").get("/").text


def test_a_namespace_without_a_queue_is_not_called_well(console: Console, open_as: Open) -> None:
    console.collector.read_once()
    assert "All is well" not in open_as("vera").get("/").text


def test_a_queue_page_names_dead_owners_and_workers_that_do_not_obey_its_pause(
    kit: Kit, console: Console, open_as: Open, failed: str, tell: Tell
) -> None:
    kit.broker.pause("mail", reason="a test")
    deaf = ControlState(pauses_unknown=True)
    tell(report(worker_id="a:1:deaf", queues=("mail",), partitions={"mail": (0,)}, control=deaf))
    console.collector.read_once()
    page = open_as("vera").get("/queues/mail").text
    assert "Tasks may still begin on a:1:deaf" in page
    assert '<span class="dot s-idle">idle</span> <a class="id" href="/worker?id=a%3A1%3Adeaf">' in page
    tell(DeathNote("a:1:deaf", kit.clock.wall_ms(), signal=9))
    console.collector.read_once()
    page = open_as("vera").get("/queues/mail").text
    assert "may still begin on a:1:deaf" not in page
    assert '<span class="dot s-idle">' not in page.partition("<h2>Partitions</h2>")[2].partition("<h2>")[0]


def test_an_unknown_queue_worker_task_or_dead_letter_is_not_found(
    console: Console, open_as: Open, failed: str
) -> None:
    console.collector.read_once()
    vera = open_as("vera")
    for path in (
        "/queues/other", "/worker?id=other", "/actor?name=other", "/task?id=other", "/task",
        "/dead-letters/mail/0/999", "/other",
    ):  # fmt: skip
        assert vera.get(path).status_code == 404, path
        assert "error" in vera.get(path, headers={"Accept": "application/json"}).json()


def test_dead_letters_are_grouped_and_filtered(console: Console, open_as: Open, failed: str) -> None:
    console.collector.read_once()
    vera = open_as("vera")
    document = vera.document("/dead-letters")
    (group,) = document["groups"]
    assert (group["queue"], group["actor"], group["error_type"], group["count"]) == (
        "mail", "send_mail", "MailServerAway", 1,
    )  # fmt: skip
    assert sum(group["hours"]) == 1
    assert [row["message_id"] for row in document["dead_letters"]] == [failed]
    for query, count in (
        ("error=MailServerAway&actor=send_mail&since=1h", 1), ("text=order 7", 1), ("text=order 8", 0),
        ("error=ValueError", 0), ("queue=other", 0), ("until=1h", 0),
    ):  # fmt: skip
        assert vera.document(f"/dead-letters?{query}")["count"] == count, query
    assert vera.get("/dead-letters?since=soon").status_code == 400
    assert vera.get("/dead-letters?before=1:2").status_code == 400


def test_the_list_of_dead_letters_has_pages(
    kit: Kit, console: Console, open_as: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.console.web.dead_letter_pages.PAGE", 2)

    @dramatiq.actor(queue_name="mail", max_retries=0)
    def task() -> None:
        raise ValueError

    ids = [task.send().message_id for _ in range(5)]
    drain(raise_errors=False)
    console.collector.read_once()
    found, query = [], "/dead-letters"
    for size in (2, 2, 1):
        document = open_as("vera").document(query)
        found += [row["message_id"] for row in document["dead_letters"]]
        assert len(document["dead_letters"]) == size
        query = f"/dead-letters?before={document['next']}"
    assert document["next"] is None
    assert sorted(found) == sorted(ids)


def test_arguments_are_masked_until_one_who_may_see_them_asks_and_the_audit_notes_it(
    console: Console, open_as: Open, failed: str
) -> None:
    console.collector.read_once()
    path = f"/task?id={failed}"
    (shown,) = open_as("vera").document(f"{path}&arguments=1")["dead_letters"]
    assert shown["message"]["args"] == ["•••"]
    (shown,) = open_as("anna").document(path)["dead_letters"]
    assert shown["message"]["args"] == ["•••"]
    assert [row["what"] for row in console.audit.rows()] == []
    (shown,) = open_as("anna").document(f"{path}&arguments=1")["dead_letters"]
    assert shown["message"]["args"] == [7]
    assert shown["message"]["kwargs"] == {"password": "•••"}
    assert [(row["who"], row["what"], row["subject"]) for row in console.audit.rows()] == [
        ("anna", "see arguments", failed)
    ]
    assert "swordfish" not in open_as("anna").get(f"{path}&arguments=1").text


def test_a_search_for_an_argument_needs_the_right_and_never_finds_a_secret(
    console: Console, open_as: Open, failed: str
) -> None:
    console.collector.read_once()
    assert open_as("vera").get("/tasks?text=7").status_code == 400
    anna = open_as("anna")
    assert [row["message_id"] for row in anna.document("/tasks?text=7")["tasks"]] == [failed]
    assert anna.document("/tasks?text=swordfish")["tasks"] == []
    assert [row["what"] for row in console.audit.rows()] == ["search arguments"] * 2


def test_a_task_has_its_life_its_error_and_its_traceback(
    console: Console, open_as: Open, failed: str
) -> None:
    console.collector.read_once()
    document = open_as("vera").document(f"/task?id={failed}")
    assert document["status"] == "dead"
    (dead,) = document["dead_letters"]
    assert dead["error_type"] == "MailServerAway"
    assert "in send_mail" in dead["own_frames"]
    assert "dramatiq/worker.py" in dead["traceback"]
    assert "dramatiq/worker.py" not in dead["own_frames"]
    page = open_as("vera").get(f"/dead-letters/mail/{dead['partition']}/{dead['offset']}").text
    assert failed in page


def test_tasks_are_found_by_status_actor_and_error(console: Console, open_as: Open, failed: str) -> None:
    console.collector.read_once()
    vera = open_as("vera")
    for query, ids in (
        ("status=dead", [failed]), ("status=succeeded", []), ("actor=send_mail", [failed]),
        ("error=MailServerAway&queue=mail", [failed]), ("error=ValueError", []),
        (f"id={failed[:8]}", [failed]),
    ):  # fmt: skip
        assert [row["message_id"] for row in vera.document(f"/tasks?{query}")["tasks"]] == ids, query
    assert vera.get("/tasks?status=other").status_code == 400
    assert vera.get("/tasks?since=soon").status_code == 400


def test_delayed_messages_are_listed_by_their_due_time(kit: Kit, console: Console, open_as: Open) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    message = task.send_with_options(delay=60_000)
    console.collector.read_once()
    delayed = open_as("vera").document("/queues/mail")["delayed"]
    assert [row["message_id"] for row in delayed["messages"]] == [message.message_id]
    assert open_as("vera").document(f"/task?id={message.message_id}")["status"] == "delayed"


def test_nothing_that_a_message_holds_becomes_markup(kit: Kit, console: Console, open_as: Open) -> None:
    @dramatiq.actor(queue_name="mail", actor_name=HOSTILE, max_retries=0)
    def task(text: str, **others: str) -> None:
        raise ValueError(text)

    message = task.message(HOSTILE, **{HOSTILE: HOSTILE}).copy(message_id=HOSTILE)
    kit.broker.enqueue(message)
    drain(raise_errors=False)
    console.collector.read_once()
    anna = open_as("anna")
    (row,) = anna.document("/dead-letters")["dead_letters"]
    assert row["message_id"] == HOSTILE
    for path, params in (
        ("/", {}), ("/tasks", {"text": HOSTILE}), ("/tasks", {"id": HOSTILE}), ("/tasks", {"actor": HOSTILE}),
        ("/dead-letters", {}), ("/dead-letters", {"text": HOSTILE}), ("/actors", {}), ("/audit", {}),
        ("/actor", {"name": HOSTILE}), ("/task", {"id": HOSTILE, "arguments": "1"}),
        (f"/dead-letters/mail/{row['part']}/{row['place']}", {"arguments": "1"}), ("/health", {}),
        ("/audit", {"who": HOSTILE}), ("/queues/" + HOSTILE.replace("/", ""), {}),
    ):  # fmt: skip
        text = anna.get(path, params=params).text
        assert "<script>alert" not in text, path
    assert "&lt;script&gt;" in anna.get("/task", params={"id": HOSTILE, "arguments": "1"}).text


def test_kafka_away_is_told_with_its_time_and_the_last_state_stays(
    kit: Kit, console: Console, open_as: Open, failed: str
) -> None:
    console.collector.read_once()
    read_ms = console.collector.condition.read_ms
    with kafka_away():
        advance(seconds=30)
        console.collector.read_once()
        since_ms = console.collector.condition.failing_since_ms
        advance(seconds=30)
        console.collector.read_once()
        document = open_as("vera").document("/")
        assert (document["read_ms"], document["failing_since_ms"]) == (read_ms, since_ms)
        page = open_as("vera").get("/").text
        assert "Kafka is unreachable" in page
        assert "mail" in page
    console.collector.read_once()
    assert open_as("vera").document("/")["failing_since_ms"] is None


def test_a_defect_is_a_500_whose_details_the_log_alone_has(
    console: Console, open_as: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = open_as("otto")

    def fail(*_: object) -> None:
        raise ValueError("a detail of the inside")

    monkeypatch.setattr(console.store, "query", fail)
    answers = [
        browser.get("/queues/mail"),
        browser.get("/tasks", headers={"Accept": "application/json"}),
        browser.post("/queues/mail/resume", headers={"Accept": "application/json"}),
    ]
    for answer in answers:
        assert answer.status_code == 500
        assert "detail of the inside" not in answer.text
    assert caplog.text.count("ValueError: a detail of the inside") >= len(answers)


@pytest.mark.parametrize(
    "path",
    [
        "/tasks?since=soon",
        "/tasks?since=99999999999d",
        "/tasks?status=other",
        "/dead-letters?since=soon",
        "/dead-letters?until=99999999999999999d",
        "/dead-letters?before=1:1:99999999999999999999:mail",
        "/dead-letters?before=1:1:mail",
        f"/dead-letters?before={'9' * 5_000}:1:1:mail",
        "/dead-letters/mail/0/99999999999999999999",
        "/dead-letters/mail/-1/0",
        "/dead-letters/resolve?action=redrive&place=0:99999999999999999999:mail",
        "/dead-letters/resolve?action=redrive&place=0:٣:mail",
        "/send-again?queue=mail&partition=0&offset=99999999999999999999",
        "/send-again?queue=mail",
    ],
)
def test_wrong_input_is_a_400_that_says_what_is_wrong(console: Console, open_as: Open, path: str) -> None:
    console.collector.read_once()
    answer = open_as("anna").get(path, headers={"Accept": "application/json"})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]


def test_a_page_is_made_once_for_all_browsers_of_a_user_until_something_changes(
    kit: Kit, console: Console, open_as: Open, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.collector.read_once()
    made: list[str] = []
    page = Renderer.page

    def note(renderer: Renderer, view: View, *, user: User, url: str) -> str:
        made.append(f"{user.name} {url}")
        return page(renderer, view, user=user, url=url)

    monkeypatch.setattr(Renderer, "page", note)
    otto, vera = open_as("otto"), open_as("vera")
    first = otto.get("/")
    assert otto.get("/").text == first.text
    assert "Log out" in vera.get("/").text
    assert made == ["otto /", "vera /"]
    assert otto.document("/")["queues"]
    otto.post("/queues/mail/pause", {"reason": "r"})
    assert "mail is paused" in otto.get("/").text
    console.collector.read_once()
    otto.get("/")
    assert made == ["otto /", "vera /", "otto /", "otto /"]


def test_a_task_names_what_follows_it(kit: Kit, console: Console, open_as: Open) -> None:
    @dramatiq.actor(queue_name="mail", max_retries=0)
    def fail() -> None:
        raise MailServerAway

    @dramatiq.actor(queue_name="mail")
    def tell(*_: object) -> None: ...

    first, second = fail.message_with_options(on_failure=tell), tell.message()
    (first | second).run()
    drain(raise_errors=False)
    console.collector.read_once()
    assert open_as("vera").document(f"/task?id={first.message_id}")["related"] == [
        {"relation": "its pipeline continues with", "message_id": second.message_id, "actor": "tell"},
        {"relation": "its failure calls", "message_id": None, "actor": "tell"},
    ]


def test_a_queue_names_the_worker_of_each_partition(
    kit: Kit, console: Console, open_as: Open, tell: Tell, failed: str
) -> None:
    tell(report(worker_id="h:1:a", at_ms=kit.clock.wall_ms(), partitions={"mail": (0,)}))
    console.collector.read_once()
    (partition,) = open_as("vera").document("/queues/mail")["partitions"]
    assert partition["owner"] == "h:1:a"
    assert '<a class="id" href="/worker?id=h%3A1%3Aa">' in open_as("vera").get("/queues/mail").text


def test_actors_have_their_rate_and_their_quantiles(
    kit: Kit, console: Console, open_as: Open, tell: Tell
) -> None:
    for succeeded in (100, 150):
        times = Histogram(0, (succeeded,), float(succeeded))
        counters = ActorCounters(succeeded=succeeded, run_time=times, queue_time=times)
        tell(report(worker_id="h:1:a", actors={"pay": counters}, at_ms=kit.clock.wall_ms()))
        console.collector.read_once()
        advance(seconds=10)
    (row,) = open_as("vera").document("/actors")["actors"]
    assert row["per_s"] == pytest.approx(5.0)
    assert row["run_p99_s"] == row["queue_p50_s"] == row["queue_p99_s"] == row["run_p50_s"]
    assert "Queued p50" in open_as("vera").get("/actors").text


def test_a_queue_has_its_lanes_that_wait_the_longest_first(kit: Kit, console: Console, open_as: Open) -> None:
    @dramatiq.actor(queue_name="mail", key_order="ordered", min_backoff=3_600_000, max_backoff=3_600_000)
    def task(key: str) -> None:
        raise MailServerAway(key)

    for key, count in (("short", 1), ("<b>long</b>", 3)):
        for _ in range(count):
            task.send_with_options(args=(key,), partition_key=key)
    drain(raise_errors=False)
    console.collector.read_once()
    lanes = open_as("vera").document("/queues/mail")["lanes"]
    assert [(lane["key"], lane["count"]) for lane in lanes] == [("<b>long</b>", 3), ("short", 1)]
    page = open_as("vera").get("/queues/mail").text
    assert "&lt;b&gt;long&lt;/b&gt;" in page
    assert "<b>long" not in page


def noted_statements(console: Console, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The statements of the pages from now on, with their parameters."""
    statements: list[tuple[str, Any]] = []
    query = console.store.query

    def note(statement: str, parameters: Any = ()) -> list[Row]:
        statements.append((statement, parameters))
        return query(statement, parameters)

    monkeypatch.setattr(console.store, "query", note)
    return statements


def test_a_task_is_found_by_its_id_or_its_beginning_which_an_index_answers(
    console: Console, open_as: Open, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.collector.read_once()
    query = console.store.query
    statements = noted_statements(console, monkeypatch)
    for wanted, count in ((failed, 1), (failed[:9], 1), (failed[1:9], 0)):
        assert len(open_as("vera").document(f"/tasks?id={wanted}")["tasks"]) == count
    searches = [one for one in statements if "ORDER BY" in one[0]]
    assert searches
    for statement, parameters in searches:
        plan = query(f"EXPLAIN QUERY PLAN {statement}", parameters)
        assert "message_id>? AND message_id<?" in plan[0]["detail"]


def test_the_tasks_of_an_actor_and_of_a_queue_are_found_by_an_index_in_the_order_of_the_page(
    console: Console, open_as: Open, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.collector.read_once()
    query = console.store.query
    statements = noted_statements(console, monkeypatch)
    assert len(open_as("vera").document("/tasks?actor=send_mail")["tasks"]) == 1
    assert len(open_as("vera").document("/tasks?queue=mail")["tasks"]) == 1
    searches = [one for one in statements if "ORDER BY at_ms" in one[0] or "ORDER BY e.at_ms" in one[0]]
    assert len(searches) == 4
    for statement, parameters in searches:
        details = [row["detail"] for row in query(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        column = "actor" if parameters["actor"] else "queue"
        assert f"({column}=? AND at_ms>?)" in details[0]
        assert not any("TEMP B-TREE" in detail for detail in details)
        later = [detail for detail in details if detail.startswith("SEARCH l ")]
        assert all("event_of_message (message_id=?" in detail for detail in later)
        assert bool(later) == ("FROM event e" in statement)


def test_a_text_is_found_in_an_error_in_its_last_line_and_in_the_frames_before(
    console: Console, open_as: Open, failed: str
) -> None:
    console.collector.read_once()
    vera = open_as("vera")
    (letter,) = vera.document("/dead-letters")["dead_letters"]
    traceback = vera.document(f"/dead-letters/mail/{letter['part']}/{letter['place']}")["dead_letter"][
        "traceback"
    ]
    assert traceback.splitlines()[-1].endswith("MailServerAway: order 7")
    for text in (*traceback.splitlines(), "order 7", "Away: order", "raise MailServerAway("):
        found = vera.document(f"/dead-letters?{urlencode({'text': text})}")
        assert (found["count"], [group["count"] for group in found["groups"]]) == (1, [1]), text
    assert vera.document("/dead-letters?text=order 8")["count"] == 0
