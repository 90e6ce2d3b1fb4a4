"""What the console changes, and that the audit has it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import dramatiq
import pytest

from broker import EventKind, HistoryEvent
from broker.console.web.collector import MAX_MESSAGE_CHARS
from broker.console.web.looks import Console
from broker.produce.record import Record
from broker.reports.history_format import encode_batch
from broker.testing import Kit, advance, drain, kafka_away
from tests.broker.console.test_worker_verbs import Tell, tell
from tests.broker.console.web.conftest import Browser, Open
from tests.broker.reports.samples import report
from tests.waiting import wait_until

__all__ = ["tell"]


class MailServerAway(Exception):
    """The mail server does not answer."""


@pytest.fixture
def fail(kit: Kit, console: Console) -> Callable[..., list[str]]:
    """Lets so many messages of a queue become dead letters, and returns their ids."""

    @dramatiq.actor(queue_name="mail", max_retries=0)
    def send_mail(order: int, text: str = "", **others: object) -> None:
        raise MailServerAway(text)

    @dramatiq.actor(queue_name="images", max_retries=0)
    def resize() -> None:
        raise ValueError("no image")

    def fail(mails: int, images: int = 0, **options: str) -> list[str]:
        sent = [send_mail.send(number, **options) for number in range(mails)]
        sent += [resize.send() for _ in range(images)]
        drain(raise_errors=False)
        console.collector.read_once()
        return [message.message_id for message in sent]

    return fail


def form_of(page: str) -> dict[str, list[str]]:
    """The hidden fields of the form of a page."""
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page):
        fields.setdefault(html.unescape(name), []).append(html.unescape(value))
    return fields


def ended(browser: Browser, location: str) -> dict[str, object]:
    """The job, once it has ended."""

    def answer() -> dict[str, object] | None:
        job: dict[str, object] = browser.document(location)
        return job if job["state"] in ("done", "failed") else None

    return wait_until(answer, deadline_s=30, what="the job ends")


def audit_of(console: Console) -> list[tuple[str, str, str]]:
    return [(row["who"], row["what"], row["outcome"]) for row in console.audit.rows()]


def test_all_that_a_filter_shows_is_redriven_after_its_count_is_typed(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    fail(3, images=2)
    otto = open_as("otto")
    page = otto.get("/dead-letters/resolve?action=redrive&error=MailServerAway").text
    assert "redrive 3 dead letters" in page
    assert "whose error is MailServerAway" in page
    form = {**form_of(page), "reason": "it is back", "rate": "50"}
    refused = otto.post("/dead-letters/redrive", {**form, "count": "2"})
    assert (refused.status_code, "3 dead letters match now" in refused.text) == (400, True)
    assert otto.post("/dead-letters/redrive", {**form, "count": "3", "reason": " "}).status_code == 400
    assert otto.post("/dead-letters/redrive", {**form, "count": "3", "rate": "0"}).status_code == 400
    answer = otto.post("/dead-letters/redrive", {**form, "count": "3"})
    assert answer.status_code == 303
    job = ended(otto, answer.headers["location"])
    assert (job["state"], job["done"], job["outcome"]) == ("done", 3, "3 redriven")
    assert otto.get(answer.headers["location"]).status_code == 200
    assert len(list(kit.broker.dead_letters("mail"))) == 0
    assert len(list(kit.broker.dead_letters("images"))) == 2
    (done,) = [one for one in kit.broker.dead_letter_queue.history("mail") if one.state.value == "done"]
    assert (done.by, done.reason) == ("otto", "it is back")
    assert audit_of(console)[-2:] == [
        ("otto", "redrive", "begun: 3"), ("otto", "redrive", "done: 3 redriven"),
    ]  # fmt: skip


def test_dead_letters_after_the_one_that_was_counted_are_left_out(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    fail(1)
    otto = open_as("otto")
    form = form_of(otto.get("/dead-letters/resolve?action=redrive&queue=mail").text)
    kit.advance(seconds=1)
    (late,) = fail(1)
    answer = otto.post("/dead-letters/redrive", {**form, "reason": "r", "count": "1"})
    assert ended(otto, answer.headers["location"])["outcome"] == "1 redriven"
    assert [one.message.message_id for one in kit.broker.dead_letters("mail") if one.message] == [late]


def test_selected_dead_letters_are_discarded_and_those_that_others_resolved_are_told(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    ids = fail(3, images=1)
    anna = open_as("anna")
    rows = anna.document("/dead-letters")["dead_letters"]
    chosen = [row for row in rows if row["message_id"] in (ids[0], ids[1], ids[3])]
    places = [f"{row['part']}:{row['place']}:{row['queue']}" for row in chosen]
    page = anna.get("/dead-letters/resolve", params={"action": "discard", "place": places}).text
    form = form_of(page)
    assert sorted(form["place"]) == sorted(places)
    kit.broker.discard("mail", dry_run=False, reason="another", message_id=ids[0])
    answer = anna.post("/dead-letters/discard", {**form, "reason": "tests", "count": "3"})
    job = ended(anna, answer.headers["location"])
    assert job["outcome"] == "2 discarded, 1 were resolved by others meanwhile"
    assert [one.message.message_id for one in kit.broker.dead_letters("mail") if one.message] == [ids[2]]


def test_an_empty_filter_is_refused(console: Console, open_as: Open, fail: Callable[..., list[str]]) -> None:
    fail(1)
    anna = open_as("anna")
    assert "empty filter" in anna.get("/dead-letters/resolve?action=discard").text
    answer = anna.post("/dead-letters/discard", {"before_ms": "9" * 15, "reason": "r", "count": "1"})
    assert (answer.status_code, "empty filter" in answer.text) == (400, True)
    assert anna.get("/dead-letters/resolve?action=other&queue=mail").status_code == 400
    assert anna.get("/dead-letters/resolve?action=redrive&place=x").status_code == 400
    assert anna.get("/dead-letters/resolve?action=redrive&queue=images").status_code == 404


def test_a_redrive_without_kafka_fails_says_so_and_can_be_repeated(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    fail(1)
    otto = open_as("otto")
    form = {**form_of(otto.get("/dead-letters/resolve?action=redrive&queue=mail").text), "reason": "r"}
    with kafka_away():
        answer = otto.post("/dead-letters/redrive", {**form, "count": "1"})
        assert ended(otto, answer.headers["location"])["state"] == "failed"
    answer = otto.post("/dead-letters/redrive", {**form, "count": "1"})
    assert ended(otto, answer.headers["location"])["outcome"] == "1 redriven"


def test_a_pause_names_its_author_and_reason_and_is_shown_at_once(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    fail(1)
    otto = open_as("otto")
    assert otto.post("/queues/mail/pause").status_code == 400
    answer = otto.post("/queues/mail/pause", {"reason": "the mail server is down"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/queues/mail?told=paused")
    command = kit.broker.paused_queues()["mail"]
    assert (command.by, command.reason) == ("otto", "the mail server is down")
    page = otto.get("/queues/mail?told=paused").text
    assert "Paused by otto" in page
    assert "The pause is recorded" in page
    otto.post("/queues/mail/resume")
    assert kit.broker.paused_queues() == {}
    assert "Paused by" not in otto.get("/queues/mail").text
    assert otto.post("/queues/other/pause", {"reason": "r"}).status_code == 404
    assert audit_of(console) == [
        ("otto", "POST /queues/mail/pause", "refused"),
        ("otto", "pause", "begun"), ("otto", "pause", "done"),
        ("otto", "resume", "begun"), ("otto", "resume", "done"),
        ("otto", "POST /queues/other/pause", "refused"),
    ]  # fmt: skip


def test_an_action_that_fails_is_in_the_audit_with_the_reason(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    fail(1)
    with kafka_away():
        assert open_as("otto").post("/queues/mail/pause", {"reason": "r"}).status_code == 502
    assert audit_of(console)[1][2].startswith("failed: ")


def test_a_worker_is_told_to_be_quiet_by_an_operator_and_to_stop_by_an_admin(
    kit: Kit, console: Console, open_as: Open, tell: Tell
) -> None:
    tell(report(worker_id="h:1:a", at_ms=kit.clock.wall_ms()))
    console.collector.read_once()
    form = {"id": "h:1:a", "reason": "a leak"}
    assert open_as("otto").post("/worker/quiet", form).status_code == 303
    assert open_as("otto").post("/worker/stop", form).status_code == 403
    assert open_as("anna").post("/worker/stop", form).status_code == 303
    assert open_as("anna").post("/worker/stop", {**form, "id": "other"}).status_code == 404
    assert [row[1:] for row in audit_of(console)] == [
        ("quiet", "begun"), ("quiet", "done"), ("POST /worker/stop", "refused"), ("stop", "begun"),
        ("stop", "done"), ("POST /worker/stop", "refused"),
    ]  # fmt: skip


def test_a_delayed_message_runs_now_or_is_cancelled(kit: Kit, console: Console, open_as: Open) -> None:
    ran = []

    @dramatiq.actor(queue_name="mail")
    def task(number: int) -> None:
        ran.append(number)

    first, second = (task.send_with_options(args=(n,), delay=60_000) for n in (1, 2))
    console.collector.read_once()
    anna = open_as("anna")
    answer = anna.post("/task/cancel", {"id": first.message_id})
    assert answer.headers["location"] == "/tasks?told=cancelled"
    answer = anna.post("/task/run-now", {"id": second.message_id})
    assert answer.headers["location"] == "/tasks?told=forwarded"
    drain()
    assert ran == [2]
    assert anna.post("/task/cancel").status_code == 400


def test_a_message_is_sent_again_with_edited_arguments_and_names_its_origin(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    (origin,) = fail(1, text="hello", password="swordfish")
    anna = open_as("anna")
    (row,) = anna.document("/dead-letters")["dead_letters"]
    place = {"queue": "mail", "partition": row["part"], "offset": row["place"]}
    page = anna.get("/send-again", params=place).text
    assert "swordfish" not in page
    form = {**form_of(page), "args": "[7]", "kwargs": '{"text": "good bye", "password": "•••"}'}
    assert anna.post("/send-again", form).status_code == 303
    (sent,) = kit.pending("mail")
    assert (sent.args, sent.kwargs) == ((7,), {"text": "good bye", "password": "swordfish"})
    assert sent.message_id != origin
    assert sent.options["origin_message_id"] == origin
    known = [{"relation": "sent again as", "message_id": sent.message_id, "actor": ""}]
    assert anna.document(f"/task?id={origin}")["related"] == known
    drain(raise_errors=False)
    console.collector.read_once()
    known = [{"relation": "sent again from", "message_id": origin, "actor": ""}]
    assert anna.document(f"/task?id={sent.message_id}")["related"] == known
    assert f'<a class="id" href="/task?id={origin}">' in anna.get(f"/task?id={sent.message_id}").text
    for edited in ({"args": "7"}, {"args": "["}, {"kwargs": "[]"}, {"offset": "999"}):
        assert anna.post("/send-again", {**form, **edited}).status_code in (400, 404), edited
    assert open_as("otto").post("/send-again", form).status_code == 400
    assert ("anna", "see arguments", "done") in audit_of(console)


def test_a_task_that_has_succeeded_shows_its_arguments_out_of_the_log_and_is_sent_again(
    kit: Kit, console: Console, open_as: Open
) -> None:
    @dramatiq.actor(queue_name="mail")
    def task(number: int, password: str) -> None: ...

    task.send(1, password="other")
    advance(seconds=60)
    sent = task.send(2, password="swordfish")
    appended_ms = kit.clock.wall_ms()
    advance(seconds=60)
    drain()
    at_ms = kit.clock.wall_ms()
    event = HistoryEvent(
        EventKind.SUCCEEDED, sent.message_id, "task", "mail", 1, at_ms, "a:1:x",
        run_s=1.0, queue_s=(at_ms - appended_ms) / 1000 - 1.0,
    )  # fmt: skip
    value = encode_batch("a:1:x", [event], unrecorded={}, dropped=0)
    kit.broker.parts.publisher.publish([Record(kit.broker.parts.topics.history, value)])
    console.collector.read_once()
    path = f"/task?id={sent.message_id}"
    # Given a look without the arguments, and one without the right to them
    anna = open_as("anna")
    page = anna.get(path).text
    assert anna.document(path)["message"] is None
    assert "swordfish" not in page
    assert "arguments=1" in page
    assert open_as("vera").document(f"{path}&arguments=1")["message"] is None
    assert ("anna", "see arguments", "done") not in audit_of(console)

    # When somebody with the right asks for them
    shown = anna.document(f"{path}&arguments=1")

    # Then they are those of the record, without secrets, and the audit knows it
    assert shown["message"]["args"] == [2]
    assert shown["message"]["kwargs"] == {"password": "•••"}
    assert shown["record"] == {"place": "shop-mail/0/1", "state": "completed"}
    assert ("anna", "see arguments", "done") in audit_of(console)

    # And the message is sent again, with what was edited
    assert f"/send-again?id={sent.message_id}" in anna.get(f"{path}&arguments=1").text
    page = anna.get(f"/send-again?id={sent.message_id}").text
    assert "swordfish" not in page
    assert "The dead letter stays" not in page
    form = {**form_of(page), "args": "[7]", "kwargs": '{"password": "•••"}'}
    assert anna.post("/send-again", form).status_code == 303
    (again,) = kit.pending("mail")
    assert (again.args, again.kwargs) == ((7,), {"password": "swordfish"})
    assert again.options["origin_message_id"] == sent.message_id
    assert open_as("otto").get(f"/send-again?id={sent.message_id}").status_code == 400

    # When the log has lost the record
    advance(days=8)
    anna = open_as("anna")
    # Then both say so
    assert anna.document(f"{path}&arguments=1")["message"] is None
    assert "has no record of it any more" in anna.get(f"{path}&arguments=1").text
    assert anna.get(f"/send-again?id={sent.message_id}").status_code == 404
    assert anna.get("/send-again?id=nobody").status_code == 404


def test_a_message_that_the_cache_has_cut_is_not_sent_again(
    console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    fail(1, text="x" * MAX_MESSAGE_CHARS)
    (row,) = open_as("anna").document("/dead-letters")["dead_letters"]
    place = {"queue": "mail", "partition": str(row["part"]), "offset": str(row["place"])}
    assert open_as("anna").post("/send-again", place).status_code == 400


def test_a_dead_letter_that_came_during_the_last_round_is_left_out_of_a_redrive(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(2)
    names = kit.broker.queue_names

    def meanwhile() -> list[str]:
        advance(seconds=5)
        kit.broker.actors["send_mail"].send(9)
        drain(raise_errors=False)
        return names()

    monkeypatch.setattr(kit.broker, "queue_names", meanwhile)
    console.collector.read_once()
    otto = open_as("otto")
    assert otto.document("/dead-letters?queue=mail")["count"] == 3
    assert otto.document("/dead-letters/resolve?action=redrive&queue=mail")["count"] == 2


def test_a_message_that_waits_is_aborted_by_an_admin_with_a_reason(
    kit: Kit, console: Console, open_as: Open
) -> None:
    ran = []

    @dramatiq.actor(queue_name="mail")
    def task(number: int) -> None:
        ran.append(number)

    first, _ = task.send(1), task.send(2)
    console.collector.read_once()
    form = {"id": first.message_id, "reason": "the order was withdrawn"}
    assert open_as("otto").post("/task/abort", form).status_code == 403
    anna = open_as("anna")
    assert anna.post("/task/abort", {**form, "reason": " "}).status_code == 400
    assert anna.post("/task/abort", {"reason": "r"}).status_code == 400
    assert anna.post("/task/abort", form, headers={"Origin": "http://elsewhere"}).status_code == 403
    answer = anna.post("/task/abort", form)
    assert answer.headers["location"] == f"/tasks?id={first.message_id}&told=aborted"
    assert "The abort stands" in anna.get(answer.headers["location"]).text
    drain()
    assert ran == [2]
    assert [row for row in audit_of(console) if row[1] == "abort"] == [
        ("anna", "abort", "begun"), ("anna", "abort", "done"),
    ]  # fmt: skip


def test_the_task_page_offers_an_abort_while_the_task_runs_or_waits_to_run_again(
    kit: Kit, console: Console, open_as: Open, fail: Callable[..., list[str]]
) -> None:
    @dramatiq.actor(queue_name="mail", min_backoff=60_000)
    def task() -> None:
        raise MailServerAway

    retried = task.send().message_id
    drain(raise_errors=False)
    (dead,) = fail(1)
    assert "Abort…" in open_as("anna").get(f"/task?id={retried}").text
    assert "Abort…" not in open_as("otto").get(f"/task?id={retried}").text
    assert "Abort…" not in open_as("anna").get(f"/task?id={dead}").text
