"""dkb dlq: what is selected, what has to be confirmed, and what is done."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
import pytest
from dramatiq.message import Message

from broker.kafka.types import TopicPartition
from broker.testing import Kit, advance, drain, pending
from tests.broker.console.conftest import Dkb

Sent = list[Message[None]]


@pytest.fixture
def five_dead(kit: Kit) -> Sent:
    """Three ValueErrors, a minute later two KeyErrors, of the queue mail."""

    @dramatiq.actor(max_retries=0, queue_name="mail")
    def task(what: str, number: int) -> None:
        raise {"value": ValueError, "key": KeyError}[what](f"number {number}")

    sent = [task.send("value", number) for number in range(3)]
    drain(raise_errors=False)
    advance(seconds=60)
    sent += [task.send("key", number) for number in range(3, 5)]
    drain(raise_errors=False)
    return sent


@pytest.fixture
def dead_ids(dkb: Dkb) -> Callable[[], list[str]]:
    def ids() -> list[str]:
        return [row["message_id"] for row in dkb("dlq", "list", "mail", "--json").document["dead_letters"]]

    return ids


Ids = Callable[[], list[str]]


def test_dlq_list_selects_by_each_condition_and_shows_the_latest(five_dead: Sent, dkb: Dkb) -> None:
    def selected(*conditions: str) -> list[str]:
        rows = dkb("dlq", "list", "--json", *conditions).document["dead_letters"]
        return [row["message_id"] for row in rows]

    ids = [message.message_id for message in five_dead]
    assert selected() == ids
    assert selected("--error", "KeyError") == ids[3:]
    assert selected("--text", "number 2") == ids[2:3]
    assert selected("--since", "30s") == ids[3:]
    assert selected("--until", "30s") == ids[:3]
    assert selected("--id", ids[4], "--id", ids[0]) == [ids[0], ids[4]]
    assert selected("--actor", "other") == []
    assert selected("mail", "--limit", "1") == ids[4:]
    text = dkb("dlq", "list", "--limit", "1").out
    assert "KeyError" in text
    assert "4 earlier ones are left out" in text


def test_dlq_errors_groups_and_dlq_show_has_traceback_and_arguments(five_dead: Sent, dkb: Dkb) -> None:
    rows = dkb("dlq", "errors", "--json").document["errors"]
    assert [(row["error_type"], row["count"], row["last_error"]) for row in rows] == [
        ("ValueError", 3, "number 2"),
        ("KeyError", 2, "'number 4'"),
    ]
    document = dkb("dlq", "errors", "--limit", "1", "--json").document
    assert ([row["error_type"] for row in document["errors"]], document["count"]) == (["ValueError"], 2)
    rows = dkb("dlq", "errors", "--text", "number 4", "--json").document["errors"]
    assert [(row["error_type"], row["count"]) for row in rows] == [("KeyError", 1)]
    first = five_dead[0].message_id
    (shown,) = dkb("dlq", "show", "mail", first, "--json").document["dead_letters"]
    assert shown["args"] == ["value", 0]
    assert "Traceback" in shown["traceback"]
    text = dkb("dlq", "show", "mail", first).out
    assert "ValueError: number 0" in text
    assert '["value", 0]' in text
    unknown = dkb("dlq", "show", "mail", "none")
    assert (unknown.code, unknown.err) == (1, "dkb: The queue 'mail' has no open dead letter of none.\n")


def test_a_redrive_is_a_dry_run_by_default(five_dead: Sent, dkb: Dkb, dead_ids: Ids) -> None:
    ran = dkb("dlq", "redrive", "mail", "--error", "KeyError")
    assert ran.code == 0
    assert "Would redrive 2 dead letters of 'mail' (KeyError 2)." in ran.out
    assert "A dry run: nothing was changed" in ran.err
    assert len(dead_ids()) == 5
    assert pending("mail") == []


def test_two_dead_letters_of_one_failure_are_told_and_their_message_is_redriven_once(
    five_dead: Sent, kit: Kit, dkb: Dkb, dead_ids: Ids
) -> None:
    # Given what a crash between a dead letter and the commit of its message leaves
    log = kit.cluster.topics["shop-mail_dlq"].logs
    partition, record = next((n, r) for n, found in enumerate(log) for r in found.records)
    kit.cluster.append(
        TopicPartition("shop-mail_dlq", partition), record.key, record.value, headers=record.headers
    )
    twice = "1 dead letter of them is the second of one failure of a message, as a crash leaves two"
    assert f"{twice}: a redrive of both runs it once." in dkb("dlq", "list", "mail").err
    ran = dkb("dlq", "redrive", "mail", "--all")
    assert "Would redrive 6 dead letters" in ran.out
    assert f"{twice}: the message runs once." in ran.out
    ran = dkb("dlq", "redrive", "mail", "--all", "--limit", "1")
    assert "--limit leaves it out" in ran.err
    ran = dkb("dlq", "redrive", "mail", "--all", "--apply", "--yes", "--reason", "it is well", "--json")
    assert (ran.document["selected"], ran.document["sent"], ran.document["repeated"]) == (6, 5, 1)
    assert dead_ids() == []
    assert len(pending("mail")) == 5


@pytest.mark.parametrize("action", ["redrive", "discard"])
def test_without_a_condition_all_is_needed_and_with_apply_a_reason(
    five_dead: Sent, dkb: Dkb, dead_ids: Ids, action: str
) -> None:
    ran = dkb("dlq", action, "mail", "--apply", "--yes", "--reason", "a test")
    assert (ran.code, "add --all" in ran.err) == (2, True)
    ran = dkb("dlq", action, "mail", "--apply", "--yes", "--all")
    assert (ran.code, "needs --reason" in ran.err) == (2, True)
    assert len(dead_ids()) == 5


def test_an_applied_redrive_asks_for_the_number_and_does_nothing_without_it(
    five_dead: Sent, dkb: Dkb, dead_ids: Ids
) -> None:
    arguments = ("dlq", "redrive", "mail", "--error", "KeyError", "--apply", "--reason", "it is back")
    for typed in ("3\n", "y\n", ""):
        ran = dkb(*arguments, typed=typed)
        assert (ran.code, ran.out) == (6, "")
        assert "redrive 2 dead letters of 'mail'. Type 2 to confirm" in ran.err
    assert len(dead_ids()) == 5
    ran = dkb(*arguments, "--rate", "1", "--json", typed="2\n")
    assert ran.code == 0
    document = ran.document
    assert (document["dry_run"], document["selected"], document["sent"]) == (False, 2, 2)
    assert {message.message_id for message in pending("mail")} == {m.message_id for m in five_dead[3:]}
    assert len(dead_ids()) == 3
    rows = dkb("dlq", "history", "--json").document["resolutions"]
    assert {(row["action"], row["reason"], row["operation"]) for row in rows} == {
        ("redrive", "it is back", document["operation"])
    }
    assert sum(row["count"] for row in rows if row["state"] == "done") == 2


def test_a_redrive_with_the_rate_0_has_no_limit_and_a_negative_rate_is_refused(
    five_dead: Sent, dkb: Dkb, dead_ids: Ids
) -> None:
    arguments = ("dlq", "redrive", "mail", "--all", "--apply", "--yes", "--reason", "it is back", "--rate")
    for rate in ("-1", "nan", "inf"):
        ran = dkb(*arguments, rate)
        assert (ran.code, ran.out) == (2, "")
    assert len(dead_ids()) == 5
    assert dkb(*arguments, "0").code == 0
    assert len(pending("mail")) == 5


def test_an_interrupted_redrive_says_how_many_are_done_and_the_repeat_does_the_rest(
    five_dead: Sent, dkb: Dkb, dead_ids: Ids, interrupt_after: Callable[[int], None]
) -> None:
    arguments = (
        "dlq",
        "redrive",
        "mail",
        "--all",
        "--apply",
        "--yes",
        "--reason",
        "it is back",
        "--rate",
        "1",
    )
    interrupt_after(2)
    ran = dkb(*arguments)
    assert (ran.code, ran.out) == (130, "")
    assert "dkb: Interrupted: 2 of 5 dead letters were redriven" in ran.err
    assert "The same command does the rest" in ran.err
    assert len(dead_ids()) == 3
    assert "Redriven: 3 dead letters" in dkb(*arguments).out
    assert sorted(m.message_id for m in pending("mail")) == sorted(m.message_id for m in five_dead)


def test_an_interrupted_discard_with_a_limit_says_how_to_do_the_rest(
    five_dead: Sent, dkb: Dkb, interrupt_after: Callable[[int], None]
) -> None:
    interrupt_after(1)
    ran = dkb("dlq", "discard", "mail", "--limit", "4", "--apply", "--yes", "--reason", "a test", "--all")
    assert ran.code == 130
    assert "Interrupted: 4 of 4 dead letters were discarded" in ran.err
    assert "with --limit for the rest" in ran.err


def test_a_discard_with_a_limit_takes_the_oldest(five_dead: Sent, dkb: Dkb, dead_ids: Ids) -> None:
    ran = dkb(
        "dlq",
        "discard",
        "mail",
        "--all",
        "--limit",
        "2",
        "--apply",
        "--yes",
        "--reason",
        "old",
        "--by",
        "ops",
    )
    assert (ran.code, ran.out) == (0, "Discarded: 2 dead letters of 'mail' (ValueError 2).\n")
    assert dead_ids() == [message.message_id for message in five_dead[2:]]
    assert pending("mail") == []
    (row,) = dkb("dlq", "history", "mail", "--json").document["resolutions"]
    assert (row["by"], row["reason"], row["count"]) == ("ops", "old", 2)
