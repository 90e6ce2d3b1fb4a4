"""dkb replay and replays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from broker.testing import Kit, advance, drain, pending
from tests.broker.console.conftest import Dkb


@pytest.fixture
def receipts(kit: Kit) -> list[str]:
    """The ids of three completed messages of the actor ``receipt``, and two later ones of ``letter``."""

    @dramatiq.actor(queue_name="mail")
    def receipt(number: int) -> None: ...

    @dramatiq.actor(queue_name="mail")
    def letter(number: int) -> None: ...

    sent = [receipt.send(number) for number in range(3)]
    drain()
    advance(seconds=3600)
    sent += [letter.send(number) for number in range(2)]
    drain()
    return [message.message_id for message in sent]


def waiting() -> list[str]:
    return [message.message_id for message in pending("mail")]


def test_a_replay_is_a_dry_run_that_counts_what_would_run_again(receipts: list[str], dkb: Dkb) -> None:
    ran = dkb("replay", "mail", "--actor", "receipt")
    assert ran.code == 0
    assert "Would run 3 messages of 'mail' again." in ran.out
    assert "A dry run: nothing was changed" in ran.err
    assert waiting() == []

    def selected(*conditions: str) -> dict[str, Any]:
        document = dkb("replay", "mail", "--json", *conditions).document
        return dict(document["actors"])

    assert selected("--all") == {"receipt": 3, "letter": 2}
    assert selected("--from", "30m") == {"letter": 2}
    assert selected("--to", "30m") == {"receipt": 3}
    assert selected("--all", "--limit", "1") == {"receipt": 1}
    assert dkb("replays", "--json").document["replays"] == []


def test_an_applied_replay_asks_for_the_number_and_keeps_its_record(receipts: list[str], dkb: Dkb) -> None:
    arguments = ("replay", "mail", "--actor", "receipt", "--apply", "--reason", "they were empty")
    for typed in ("2\n", "y\n", ""):
        ran = dkb(*arguments, typed=typed)
        assert (ran.code, ran.out) == (6, "")
        assert "run 3 messages of 'mail' again. Type 3 to confirm" in ran.err
    assert waiting() == []
    ran = dkb(*arguments, "--by", "ops", "--json", typed="3\n")
    document = ran.document
    assert (ran.code, document["dry_run"], document["sent"], document["ids"]) == (0, False, 3, "same")
    assert waiting() == receipts[:3]
    (row,) = dkb("replays", "mail", "--json").document["replays"]
    assert (row["id"], row["state"], row["by"], row["reason"], row["sent"]) == (
        document["id"], "done", "ops", "they were empty", 3,
    )  # fmt: skip
    assert dkb("replays", "other", "--json").document["replays"] == []
    assert "they were empty" in dkb("replays").out


def test_messages_that_wait_or_are_dead_are_left_alone_with_the_reason(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail", max_retries=0)
    def task(*, fails: bool) -> None:
        if fails:
            raise ValueError

    task.send(fails=False)
    task.send(fails=True)
    drain(raise_errors=False)
    task.send(fails=False)
    ran = dkb("replay", "mail", "--all")
    assert "Would run 1 message of 'mail' again." in ran.out
    assert "it is a dead letter: redrive or discard it" in ran.out
    assert "it is not complete: it waits or runs" in ran.out


def test_new_ids_are_given_when_asked_for(receipts: list[str], dkb: Dkb) -> None:
    ran = dkb(
        "replay", "--actor", "letter", "--ids", "new", "--rate", "0", "--apply", "--yes", "--reason", "x",
    )  # fmt: skip
    assert (ran.code, "Sent 2 messages of 'mail' again." in ran.out) == (0, True)
    assert len(waiting()) == 2
    assert not set(waiting()) & set(receipts)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("mail",), 2, "add --all"),
        (("mail", "--all", "--apply", "--yes"), 2, "--apply needs --reason"),
        (("--actor", "unknown"), 2, "Name the queue"),
        (("male", "--all"), 1, "no queue 'male'"),
        (("mail", "--from", "1h", "--to", "2h"), 2, "is not before"),
        (("mail", "--from", "soon"), 2, "'soon' is no time"),
        (("mail", "--all", "--rate", "inf"), 2, "rate_per_s=inf: pass a positive number"),
        (("mail", "--all", "--rate", "-1"), 2, "--rate"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused_and_nothing_is_sent(
    receipts: list[str], dkb: Dkb, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = dkb("replay", *arguments)
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert waiting() == []


def test_an_interrupted_replay_says_how_many_were_sent_and_the_repeat_sends_the_rest(
    receipts: list[str], dkb: Dkb, interrupt_after: Callable[[int], None]
) -> None:
    arguments = ("replay", "mail", "--actor", "receipt", "--apply", "--yes", "--reason", "x", "--rate", "1")
    interrupt_after(2)
    ran = dkb(*arguments)
    assert (ran.code, ran.out) == (130, "")
    assert "dkb: Interrupted: 2 of 3 messages were sent again" in ran.err
    assert len(waiting()) == 2
    assert dkb(*arguments, "--json").document["sent"] == 1
    assert sorted(waiting()) == sorted(receipts[:3])
