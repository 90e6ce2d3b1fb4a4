"""dkb schedules."""

from __future__ import annotations

import dramatiq
import pytest

from broker import Every
from broker.testing import Kit, advance, pending
from tests.broker.console.conftest import Dkb


@pytest.fixture
def digest(kit: Kit) -> str:
    """The name of a schedule that runs every hour."""

    @dramatiq.actor(queue_name="mail")
    def send_digest(user: int) -> None: ...

    kit.broker.schedules.put("digest", send_digest, Every(hours=1), args=(7,), by="ops")
    kit.broker.enqueue(send_digest.message(1))
    return "digest"


def test_schedules_list_has_times_and_the_next_run(kit: Kit, dkb: Dkb, digest: str) -> None:
    (row,) = dkb("schedules", "list", "--json").document["schedules"]
    assert (row["schedule"], row["actor"], row["queue"], row["args"]) == (
        "digest",
        "send_digest",
        "mail",
        [7],
    )
    assert (row["by"], row["source"], row["last_ms"], row["paused"]) == ("ops", "operator", None, False)
    assert row["next_ms"] > kit.clock.wall_ms()
    assert dkb("schedules", "list", "--actor", "other", "--json").document["schedules"] == []
    advance(hours=2)
    assert "overdue since" in dkb("schedules", "list").out


def test_a_namespace_without_schedules_says_so_and_gets_no_topic(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("schedules", "list")
    assert (ran.code, ran.err) == (0, "There is no schedule.\n")
    assert kit.cluster.topics == {}


def test_a_pause_is_shown_with_who_and_why_until_resume(kit: Kit, dkb: Dkb, digest: str) -> None:
    ran = dkb("schedules", "pause", digest, "--reason", "wrong numbers", "--by", "ann", "--json")
    row = ran.document["schedule"]
    assert (row["paused"], row["paused_by"], row["pause_reason"], row["next_ms"]) == (
        True, "ann", "wrong numbers", None,
    )  # fmt: skip
    assert "digest is paused by ann: wrong numbers" in dkb("schedules", "list").out
    assert dkb("schedules", "resume", digest).out == "The schedule 'digest' is resumed.\n"
    assert dkb("schedules", "resume", digest).out == "'digest' was not paused.\n"


def test_run_enqueues_a_message_now_and_prints_its_id(kit: Kit, dkb: Dkb, digest: str) -> None:
    ran = dkb("schedules", "run", digest)
    assert ran.code == 0
    sent = next(message for message in pending("mail") if message.args == (7,))
    assert ran.out == f"{sent.message_id}\n"
    assert sent.options["schedule"] == "digest"


def test_delete_asks_and_then_deletes(kit: Kit, dkb: Dkb, digest: str) -> None:
    assert dkb("schedules", "delete", digest, typed="no\n").code == 6
    assert len(kit.broker.schedules.list()) == 1
    assert dkb("schedules", "delete", digest, typed="1\n").code == 0
    assert kit.broker.schedules.list() == []


@pytest.mark.parametrize("verb", [("pause", "--reason", "x"), ("resume",), ("run",), ("delete", "--yes")])
def test_an_unknown_schedule_is_exit_code_1_and_names_those_that_there_are(
    kit: Kit, dkb: Dkb, digest: str, verb: tuple[str, ...]
) -> None:
    ran = dkb("schedules", verb[0], "digets", *verb[1:])
    assert (ran.code, ran.err) == (1, "dkb: There is no schedule 'digets'; there are: digest.\n")
