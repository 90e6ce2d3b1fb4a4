"""An operator's ten questions, one command each, without the application's code, while a worker is busy,
stuck, frozen and killed. docs/operating.md is this session.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from broker import KafkaBroker
from dev.stack import ROOT, Stack
from tests.broker.console.documents_schema import check
from tests.broker.features.command_line import CommandLine
from tests.waiting import wait_until

DEADLINE_S = 120.0


@dataclass(frozen=True)
class Operator:
    """Runs the command in a process of its own. It knows servers and names, and no code of the application.

    Attributes:
      transcript: Receives each call with its output as text; None for no transcript.
    """

    target: tuple[str, ...]
    transcript: Path | None

    def run(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "broker.console", *self.target, *arguments]
        ran = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, input=typed, timeout=DEADLINE_S, check=False
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran

    def show(self, *arguments: str) -> None:
        """Let the transcript keep the output as a person's pipe gets it; nothing without a transcript."""
        if self.transcript is not None:
            self.act(*arguments)

    def act(self, *arguments: str, typed: str = "") -> None:
        """Run a command that changes something."""
        ran = self.run(*arguments, typed=typed)
        if self.transcript is not None:
            with self.transcript.open("a", encoding="utf-8") as file:
                file.write(f"$ dkb {' '.join(arguments)}\n{ran.stdout}{ran.stderr}[{ran.returncode}]\n\n")

    def ask(self, *arguments: str) -> dict[str, Any]:
        """The JSON document of an answer."""
        ran = self.run(*arguments, "--json")
        assert ran.stdout, ran.stderr
        document: dict[str, Any] = json.loads(ran.stdout)
        check(document)
        return document


@pytest.fixture
def operator(stack: Stack, namespace: str) -> Operator:
    target = ("--bootstrap", stack.bootstrap_servers, "--namespace", namespace)
    transcript = os.environ.get("OPERATING_TRANSCRIPT")
    return Operator((*target, "--group", f"{namespace}workers"), Path(transcript) if transcript else None)


@pytest.fixture
def sender(stack: Stack, namespace: str) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(stack.bootstrap_servers, namespace=namespace, group_id=f"{namespace}workers")
    yield broker
    broker.close()


@pytest.fixture
def shop(stack: Stack, namespace: str, tmp_path: Path) -> Iterator[CommandLine]:
    env = {**os.environ, "SHOP_SERVERS": stack.bootstrap_servers, "SHOP_NAMESPACE": namespace}
    command = CommandLine(
        "tests.broker.console.shop", "--processes", "1", "--threads", "4", env=env, log=tmp_path / "shop.log"
    )
    command.start()
    command.wait_for_boots(1)
    yield command
    command.kill()


def send(broker: KafkaBroker, queue: str, actor: str, *args: Any) -> str:
    broker.declare_queue(queue)
    message: Message[None] = dramatiq.Message(queue, actor, args, {}, {})
    return str(broker.enqueue(message).message_id)


def eventually(what: str, question: Any) -> Any:
    return wait_until(question, deadline_s=DEADLINE_S, what=what)


def the_worker(operator: Operator, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        rows = operator.ask("workers", "--state", state)["workers"]
        return rows[0] if rows else None

    found: dict[str, Any] = eventually(f"a worker that is {state}", look)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_of_ten_questions_has_one_command_while_a_worker_is_busy_stuck_frozen_and_killed(
    operator: Operator, sender: KafkaBroker, shop: CommandLine, stack: Stack
) -> None:
    for order in range(6):
        send(sender, "mail", "send_mail", order)
    for order in range(2):
        send(sender, "mail", "check_address", order)
    long = send(sender, "images", "resize", "cat.png", 3_600.0)
    eventually(
        "five dead letters", lambda: sum(r["count"] for r in operator.ask("dlq", "errors")["errors"]) == 5
    )
    busy = the_worker(operator, "busy")

    # 1. Is everything all right?
    operator.show("doctor")
    assert operator.ask("healthcheck", "--max-dead", "3")["healthy"] is False

    # 2. How long are the queues, how old is their oldest message, when are they empty?
    operator.show("status")
    rows = {row["queue"]: row for row in operator.ask("status")["queues"]}
    assert (rows["mail"]["dead"], rows["mail"]["waiting"], rows["mail"]["workers"]) == (5, 0, 1)
    assert rows["mail"]["ledger_difference"] == 0
    assert (rows["images"]["running"], rows["images"]["waiting"]) == (1, 0)

    # 3. Which workers are there, and how are they?
    operator.show("workers")
    assert (busy["running"], busy["threads"], busy["versions"]["app"]) == (1, 4, "2.4.0")

    # 4. What runs, where, and for how long?
    operator.show("top")
    (running,) = operator.ask("top")["running"]
    assert (running["message_id"], running["actor"]) == (long, "resize")
    assert (running["progress"], running["progress_text"]) == (0.4, "scaling cat.png")

    # 5. Why do messages fail?
    operator.show("dlq", "errors")
    errors = {row["error_type"]: row for row in operator.ask("dlq", "errors")["errors"]}
    assert {name: row["count"] for name, row in errors.items()} == {"MailServerAway": 3, "ValueError": 2}

    # 6. What became of this message?
    dead = errors["MailServerAway"]["last_message_id"]
    operator.show("task", "show", dead)
    life = operator.ask("task", "show", dead)
    assert life["status"] == "dead"
    events = [row["event"] for row in life["events"]]
    assert [name for name in events if name in ("retried", "dead_lettered")] == ["retried", "dead_lettered"]

    # 7. How do I run those of one error again?
    operator.show("dlq", "redrive", "mail", "--error", "MailServerAway")
    redrive = (
        "dlq",
        "redrive",
        "mail",
        "--error",
        "MailServerAway",
        "--apply",
        "--reason",
        "the server is back",
    )
    assert operator.run(*redrive, typed="5\n").returncode == 6
    assert len(operator.ask("dlq", "list", "mail")["dead_letters"]) == 5
    operator.act(*redrive, typed="3\n")
    eventually(
        "the redriven messages to fail again",
        lambda: (
            (found := operator.ask("dlq", "list", "--error", "MailServerAway"))["count"] == 3
            and all(row["redrives"] == 1 for row in found["dead_letters"])
        ),
    )
    operator.show("dlq", "history", "mail")

    # 8. How do I stop a queue, and start it again?
    operator.act("pause", "mail", "--reason", "the mail server is down")
    held = send(sender, "mail", "send_mail", 100)
    operator.show("status", "mail", "--sample", "0")
    assert operator.ask("task", "show", held)["status"] == "waiting"
    assert operator.ask("status", "--sample", "0", "mail")["queues"][0]["paused"] is True
    operator.act("resume", "mail")
    eventually("its run", lambda: operator.ask("task", "show", held)["status"] == "succeeded")

    ask_the_rest(operator)

    # 9. Is a stuck or frozen worker alive?
    send(sender, "images", "scan", "dog.png", 3_600.0)
    stuck = the_worker(operator, "stuck")
    operator.show("workers")
    assert "is past its limit, and no run has ended since" in stuck["reason"]
    assert operator.run("healthcheck", "--worker", "--host", stuck["host"]).returncode == 1
    os.kill(busy["pid"], signal.SIGSTOP)
    silent = the_worker(operator, "silent")
    operator.show("workers")
    assert "no report for" in silent["reason"]
    operator.show("healthcheck", "--worker", "--host", silent["host"])
    assert operator.run("healthcheck", "--worker", "--host", silent["host"]).returncode == 1
    assert operator.ask("task", "show", long)["status"] == "running"

    # 10. What ended a worker, and where is its task now?
    os.kill(busy["pid"], signal.SIGKILL)
    gone = the_worker(operator, "gone")
    operator.show("workers")
    assert gone["worker"] == busy["worker"]
    if stack.name == "real":
        assert (gone["signal"], "SIGKILL" in gone["reason"]) == (9, True)
    eventually("the task to wait", lambda: operator.ask("task", "show", long)["status"] != "running")
    operator.show("task", "show", long)
    life = operator.ask("task", "show", long)
    # Its worker may have died before a commit noted that it was taken.
    assert life["status"] in ("waiting", "interrupted")
    assert "worker gone" in [row["event"] for row in life["events"]]


def ask_the_rest(operator: Operator) -> None:
    """What the ten questions leave out: a message by hand, a delay that ends now, a replay, the load."""
    enqueue = ("enqueue", "send_mail", "[200]", "--queue", "mail", "--delay", "1h")
    delayed = operator.ask(*enqueue)["message_id"]
    operator.act("retry", delayed)
    eventually("its run", lambda: operator.ask("task", "show", delayed)["status"] == "succeeded")
    replay = ("replay", "mail", "--actor", "send_mail")
    operator.show(*replay)
    found = operator.ask(*replay)
    # Five of them have succeeded, and three are dead letters.
    assert (found["dry_run"], found["to_send"], found["actors"]) == (True, 5, {"send_mail": 5})
    assert found["skipped"]["it is a dead letter: redrive or discard it"] == 3
    operator.show("plan", "mail")
    measured = operator.ask("plan", "mail")["measured"]
    assert (measured["backlog"], measured["threads"]) == (0, 4)
    assert measured["runs"] >= 10
    operator.show("topics", "check")
    assert operator.run("topics", "check").returncode == 0


def test_servers_that_do_not_answer_are_one_sentence_and_exit_code_3(operator: Operator) -> None:
    away = Operator(("--bootstrap", "127.0.0.1:1"), None)
    ran = away.run("status", "--timeout", "1")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert len(ran.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in ran.stderr


def test_an_application_named_first_declares_its_actors(
    stack: Stack, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_SERVERS", stack.bootstrap_servers)
    monkeypatch.setenv("SHOP_NAMESPACE", namespace)
    found = Operator(("tests.broker.console.shop",), None).ask("actors")
    assert [row["actor"] for row in found["actors"]] == ["check_address", "resize", "scan", "send_mail"]
