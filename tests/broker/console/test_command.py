"""The command as such: its target, its errors, its options."""

from __future__ import annotations

import re
import subprocess
import sys

import dramatiq
import pytest
from typer.testing import CliRunner

from broker.console.app import arranged
from broker.console.command import app
from broker.console.target import Target, TargetRefused
from broker.kafka.errors import TopicAuthorizationFailedError
from broker.kafka.types import TopicPartition
from broker.reports.report import encode_report
from broker.testing import Kit, drain
from broker.testing.memory.faults import Request
from dev.stack import ROOT
from tests.broker.console.conftest import Dkb
from tests.broker.reports.samples import report

VERBS = {"status", "workers"}


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("status", "status"),
        ("shop.tasks status", "--app shop.tasks status"),
        ("shop.tasks:broker workers --json", "--json --app shop.tasks:broker workers"),
        ("kafka://h:1/n status", "--url kafka://h:1/n status"),
        ("status --bootstrap h:1 mail", "--bootstrap h:1 status mail"),
        ("--namespace=n status", "--namespace=n status"),
        ("status -- --json", "status -- --json"),
    ],
)
def test_the_target_may_come_first_and_common_options_may_follow_the_verb(typed: str, parsed: str) -> None:
    assert arranged(typed.split(), VERBS) == parsed.split()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("stauts", "'stauts' is no verb. Did you mean 'status'?"),
        ("stauts --watch", "'stauts' is no verb. Did you mean 'status'?"),
        ("stauts mail", "Neither 'stauts' nor 'mail' is a verb. Did you mean 'status'?"),
        ("shop wrokers", "Neither 'shop' nor 'wrokers' is a verb. Did you mean 'workers'?"),
        ("shop", "'shop' is no verb. A verb follows an application: dkb shop status."),
        ("shop.tasks stauts", "No such command 'stauts'"),
    ],
)
def test_a_misspelt_verb_is_named(dkb: Dkb, monkeypatch: pytest.MonkeyPatch, typed: str, said: str) -> None:
    monkeypatch.setenv("DKB_URL", "kafka://h:1/n")
    ran = dkb(*typed.split())
    assert (ran.code, ran.out) == (2, "")
    assert said in " ".join(ran.err.split())


def test_a_word_before_help_is_an_application(dkb: Dkb) -> None:
    assert dkb("shop", "--help").code == 0
    assert dkb("shop", "status", "--help").code == 0


def test_a_target_is_one_of_an_application_a_url_and_servers() -> None:
    with pytest.raises(TargetRefused, match="Which Kafka"):
        Target().broker()
    with pytest.raises(TargetRefused, match="leave out --namespace"):
        Target(url="kafka://h:1", namespace="n").broker()
    with pytest.raises(TargetRefused, match=r"neither a verb .* nor an application"):
        Target(application="stauts").broker()
    broker = Target(bootstrap="h:1,i:2", namespace="n-", group="g").broker()
    assert broker.parts.settings.namespace == "n-"
    assert broker.parts.settings.group_id == "g"


def test_an_unreachable_kafka_is_one_sentence_and_exit_code_3(kit: Kit, dkb: Dkb) -> None:
    with kit.kafka_away():
        ran = dkb("workers", "--timeout", "1")
    assert (ran.code, ran.out) == (3, "")
    assert len(ran.err.splitlines()) == 1


def test_a_missing_right_is_one_sentence_that_names_it_and_exit_code_4(kit: Kit, dkb: Dkb) -> None:
    kit.cluster.create_topic("shop-dramatiq_workers")
    kit.cluster.append(TopicPartition("shop-dramatiq_workers", 0), b"a:1:x", encode_report(report()))
    kit.cluster.refuse(
        Request.FETCH, lambda: TopicAuthorizationFailedError({"shop-dramatiq_workers"}), times=None
    )
    ran = dkb("workers")
    assert (ran.code, ran.out) == (4, "")
    assert "READ on the topic 'shop-dramatiq_workers'" in ran.err
    assert len(ran.err.splitlines()) == 1


def commands() -> list[tuple[str, ...]]:
    import typer

    def walk(group: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = []
        for name, one in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(one, "commands"):
                found += walk(one, (*path, name))
            else:
                found.append((*path, name))
        return found

    return walk(typer.main.get_command(app), ())


@pytest.mark.parametrize("verb", commands(), ids=" ".join)
def test_each_verb_has_help_with_an_example_of_itself(dkb: Dkb, verb: tuple[str, ...]) -> None:
    ran = dkb(*verb, "--help")
    assert ran.code == 0
    assert re.search(r"Examples?:\n +dkb [^\n]*" + " ".join(verb), ran.out), ran.out


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("dkb sta", {"status"}),
        ("dkb shop.tasks st", {"status", "stop"}),
        ("dkb dlq red", {"redrive"}),
        ("dkb status --wa", {"--watch"}),
    ],
)
def test_a_shell_completes_verbs_and_options_also_behind_a_target(typed: str, completed: set[str]) -> None:
    env = {
        "_DKB_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    ran = CliRunner().invoke(app, [], env=env, prog_name="dkb")
    assert set(ran.stdout.split()) == completed


def test_a_value_error_that_nobody_expects_is_no_wrong_usage(
    kit: Kit, dkb: Dkb, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workers(*args: object, **kwargs: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(kit.broker, "workers", workers)
    with pytest.raises(ValueError, match="a fault"):
        dkb("workers")


FAULTY = """
from broker import KafkaBroker
from broker.console.__main__ import main

KafkaBroker.ping = lambda self, timeout_s: int("a fault")
main()
"""


def test_a_fault_of_the_command_is_exit_code_70_with_its_traceback() -> None:
    command = [sys.executable, "-c", FAULTY, "--bootstrap", "127.0.0.1:1", "healthcheck"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (70, "")
    assert "Traceback" in ran.stderr
    assert "a fault" in ran.stderr


INTERRUPTED_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == NAME:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from broker.console.__main__ import main

main()
"""


@pytest.mark.parametrize("name", ["broker.console.command", "an_application"])
def test_an_interrupt_of_the_imports_is_exit_code_130_without_a_traceback(name: str) -> None:
    code = f"NAME = {name!r}\n{INTERRUPTED_IMPORT}"
    command = [sys.executable, "-c", code, "an_application", "status"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "dkb: interrupted\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("workers", "--within", "soon"),
        ("replay", "mail", "--from", "1h", "--to", "2h"),
        ("replay", "mail", "--all", "--rate", "nan"),
        ("dlq", "list", "--since", "yesterday"),
        ("topics", "plan", "mail", "--retention", "0s"),
        ("topics", "plan", "mail", "--principal", "x"),
        ("topics", "plan", "not a name"),
        ("plan", "mail", "--since", "2030-01-01"),
        ("enqueue", "task", "--delay", "800000d"),
        ("enqueue", "task", "--key", ""),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_exit_code_2_with_a_sentence(
    kit: Kit, dkb: Dkb, arguments: tuple[str, ...]
) -> None:
    @dramatiq.actor(queue_name="mail")
    def task() -> None: ...

    task.send()
    ran = dkb(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def test_a_damaged_record_of_a_redrive_is_a_finding_and_no_wrong_usage(kit: Kit, dkb: Dkb) -> None:
    @dramatiq.actor(queue_name="mail", max_retries=0)
    def task() -> None:
        raise OSError("away")

    task.send()
    drain(raise_errors=False)
    kit.cluster.append(TopicPartition("shop-mail_dlq", 0), None, b"x", [("dead-letter-resolution", b"")])
    ran = dkb("dlq", "list", "mail")
    assert (ran.code, ran.out) == (1, "")
    assert "is damaged or of a later version" in ran.err
