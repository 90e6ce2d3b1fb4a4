"""The page of schedules, and its changes."""

from __future__ import annotations

import dramatiq
import pytest

from broker import Every
from broker.console.web.looks import Console
from broker.testing import Kit, advance, kafka_away, pending
from tests.broker.console.web.conftest import Open


@pytest.fixture
def digest(kit: Kit, console: Console) -> str:
    """The name of a schedule that runs every hour, which the console has read."""

    @dramatiq.actor(queue_name="mail")
    def send_digest(user: int) -> None: ...

    kit.broker.schedules.put("digest", send_digest, Every(hours=1), args=(4711,), by="ops")
    kit.broker.enqueue(send_digest.message(1))
    console.collector.read_once()
    return "digest"


def test_the_page_has_the_times_of_a_schedule_and_not_its_arguments(
    console: Console, open_as: Open, digest: str
) -> None:
    vera = open_as("vera")
    (row,) = vera.document("/schedules")["schedules"]
    assert (row["schedule"], row["actor"], row["queue"], row["paused"], row["missed"]) == (
        "digest", "send_digest", "mail", False, 0,
    )  # fmt: skip
    assert row["last_ms"] is None
    assert not row["overdue"]
    page = vera.get("/schedules").text
    assert str(row["timing"]) in page
    assert "4711" not in page + vera.get("/schedules", headers={"Accept": "application/json"}).text
    advance(hours=2)
    assert "overdue since" in vera.get("/schedules").text


def test_a_pause_needs_a_reason_is_in_the_audit_and_ends_with_resume(
    kit: Kit, console: Console, open_as: Open, digest: str
) -> None:
    otto = open_as("otto")
    assert otto.post("/schedules/pause", {"name": digest}).status_code == 400
    assert otto.post("/schedules/pause", {"name": digest, "reason": "wrong numbers"}).status_code == 303
    found = kit.broker.schedules.get(digest)
    assert found is not None
    assert (found.is_paused, found.paused_by, found.pause_reason) == (True, "otto", "wrong numbers")
    # The page has it at once, and not with the next round.
    page = otto.get("/schedules").text
    assert "by otto: wrong numbers" in page
    assert otto.post("/schedules/resume", {"name": digest}).status_code == 303
    assert otto.document("/schedules")["schedules"][0]["paused"] is False
    rows = [
        (row["who"], row["what"], row["subject"], row["outcome"])
        for row in console.audit.rows()
        if row["outcome"] != "refused"
    ]
    assert sorted(rows) == sorted(
        ("otto", f"{what} schedule", "digest", outcome)
        for what in ("pause", "resume") for outcome in ("begun", "done")
    )  # fmt: skip


def test_run_now_enqueues_a_message_beside_the_occurrences(
    kit: Kit, console: Console, open_as: Open, digest: str
) -> None:
    answer = open_as("otto").post("/schedules/run", {"name": digest}, headers={"Accept": "application/json"})
    sent = answer.json()["message_id"]
    assert [message.args for message in pending("mail") if message.message_id == sent] == [(4711,)]


def test_an_administrator_deletes_a_schedule_with_a_reason(
    kit: Kit, console: Console, open_as: Open, digest: str
) -> None:
    form = {"name": digest, "reason": "nobody reads it"}
    assert open_as("otto").post("/schedules/delete", form).status_code == 403
    anna = open_as("anna")
    assert anna.post("/schedules/delete", {"name": digest}).status_code == 400
    assert kit.broker.schedules.get(digest) is not None
    assert anna.post("/schedules/delete", form).status_code == 303
    assert kit.broker.schedules.get(digest) is None
    assert "There is no schedule." in anna.get("/schedules").text


def test_an_unknown_schedule_is_not_found_and_one_that_is_gone_neither(
    kit: Kit, console: Console, open_as: Open, digest: str
) -> None:
    otto = open_as("otto")
    assert otto.post("/schedules/run", {"name": "other"}).status_code == 404
    assert otto.post("/schedules/run", {}).status_code == 400
    kit.broker.schedules.delete(digest)
    assert otto.post("/schedules/run", {"name": digest}).status_code == 404
    assert [row["outcome"] for row in console.audit.rows() if row["outcome"].startswith("failed")]


def test_a_change_that_kafka_does_not_take_is_told_as_failed(
    kit: Kit, console: Console, open_as: Open, digest: str
) -> None:
    otto = open_as("otto")
    with kafka_away():
        answer = otto.post("/schedules/pause", {"name": digest, "reason": "a test"})
    assert answer.status_code == 502
    outcomes = [row["outcome"].split(":")[0] for row in console.audit.rows()]
    assert outcomes[:2] == ["begun", "failed"]
