"""dkb topics plan, apply and check."""

from __future__ import annotations

import json
import shlex

import dramatiq
import pytest
from typer.testing import CliRunner

from broker import KafkaBroker
from broker.console.command import app
from broker.testing import Kit, drain
from tests.broker.console.conftest import Dkb

#: The topics of an application with the queue mail, in the namespace shop-.
TOPICS = [
    "shop-mail",
    "shop-mail_dlq",
    "shop-mail_lanes",
    "shop-delayed",
    "shop-dramatiq_workers",
    "shop-dramatiq_history",
    "shop-dramatiq_control",
]


def test_a_plan_has_each_topic_of_a_queue_and_creates_none(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("topics", "plan", "mail", "--partitions", "12", "--replication", "1", "--json")
    document = ran.document
    planned = {row["topic"]: row for row in document["topics"]}
    assert set(TOPICS) <= planned.keys()
    assert {row["exists"] for row in planned.values()} == {False}
    assert (planned["shop-mail"]["partitions"], planned["shop-mail"]["replication"]) == (12, 1)
    assert planned["shop-dramatiq_control"]["partitions"] == 1
    assert planned["shop-delayed"]["settings"]["cleanup.policy"] == "compact"
    create = next(line for line in document["topic_commands"] if "--topic shop-mail " in line)
    assert "--create" in create
    assert "--partitions 12 --replication-factor 1" in create
    assert "--config retention.ms=604800000" in create
    assert kit.cluster.topics == {}
    assert "missing" in dkb("topics", "plan", "mail").out


def test_a_plan_of_more_copies_than_the_cluster_has_nodes_is_refused(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("topics", "plan", "mail", "--replication", "3")
    assert (ran.code, "the cluster has 1 node(s), and each copy takes one" in ran.err) == (2, True)


def test_the_rights_of_each_client_are_planned_and_a_web_process_only_writes(kit: Kit, dkb: Dkb) -> None:
    document = dkb("topics", "plan", "mail", "--json").document

    def rights(client: str) -> set[tuple[str, str, str]]:
        return {
            (row["operation"], row["kind"], row["name"])
            for row in document["rights"]
            if row["client"] == client and not row["optional"]
        }

    assert rights("web") == {("WRITE", "topic", "shop-mail"), ("WRITE", "topic", "shop-delayed")}
    assert ("WRITE", "topic", "shop-mail_dlq") in rights("worker")
    assert ("READ", "topic", "shop-mail_dlq") not in rights("worker")
    assert ("WRITE", "topic", "shop-dramatiq_control") not in rights("worker")
    assert ("DELETE", "topic", "shop-mail") in rights("operator")
    assert {operation for operation, _, _ in rights("console")} == {"READ", "DESCRIBE"}
    optional = {(row["operation"], row["name"]) for row in document["rights"] if row["optional"]}
    assert {name for operation, name in optional if operation != "DESCRIBE_CONFIGS"} == {
        "shop-dramatiq_schedules",
        "shop-dramatiq_schedules.owners",
        "dramatiq.shop-mail.flushed",
    }
    assert any("--allow-principal User:worker" in line for line in document["acl_commands"])


def test_a_plan_as_commands_names_the_users_and_is_a_script(kit: Kit, dkb: Dkb) -> None:
    ran = dkb("topics", "plan", "mail", "--as", "commands", "--principal", "web=shop-web")
    lines = ran.out.splitlines()
    assert all(line.startswith(("kafka-topics.sh ", "kafka-acls.sh ")) for line in lines)
    assert any("User:shop-web --operation Write --topic shop-mail" in line for line in lines)
    ran = dkb("topics", "plan", "mail", "--principal", "web=x", "--principal", "web=y")
    assert (ran.code, "'web=y' is the second user of web, after 'x'" in ran.err) == (2, True)
    ran = dkb("topics", "plan", "mail", "--principal", "nobody=x")
    assert (ran.code, "is no CLIENT=USER" in ran.err) == (2, True)


@pytest.mark.parametrize("user", ["CN=web, O=Shop", 'it\'s $(reboot); "x"'])
def test_a_shell_takes_the_user_of_a_planned_command_as_one_argument(kit: Kit, dkb: Dkb, user: str) -> None:
    ran = dkb("topics", "plan", "mail", "--as", "commands", "--principal", f"web={user}")
    users = [
        arguments[arguments.index("--allow-principal") + 1]
        for arguments in map(shlex.split, ran.out.splitlines())
        if "--allow-principal" in arguments
    ]
    assert f"User:{user}" in users
    assert set(users) == {f"User:{user}", "User:worker", "User:operator", "User:console"}


def test_apply_is_a_dry_run_and_then_creates_what_is_missing_and_nothing_else(kit: Kit, dkb: Dkb) -> None:
    kit.cluster.create_topic("shop-mail", 2)
    ran = dkb("topics", "apply", "mail", "--partitions", "3")
    assert (ran.code, "Would create" in ran.out) == (0, True)
    assert set(kit.cluster.topics) == {"shop-mail"}
    assert dkb("topics", "apply", "mail", "--apply", typed="1\n").code == 6
    ran = dkb("topics", "apply", "mail", "--partitions", "3", "--apply", "--yes", "--json")
    document = ran.document
    assert set(TOPICS) - {"shop-mail"} <= set(document["created"])
    assert all(row["exists"] for row in document["topics"])
    assert set(kit.cluster.topics) == {"shop-mail", *document["created"]}
    assert len(kit.cluster.topics["shop-delayed"].partitions) == 3
    assert len(kit.cluster.topics["shop-mail"].partitions) == 2
    # What existed is compared, with the command that changes it.
    found = [row for row in document["differences"] if row["subject"] == "partitions"]
    assert [(row["topic"], row["planned"], row["found"]) for row in found] == [("shop-mail", "3", "2")]
    assert found[0]["command"].endswith("--alter --topic shop-mail --partitions 3")
    assert dkb("topics", "apply", "mail", "--apply", "--json").document["created"] == []


def test_an_application_runs_on_the_topics_that_apply_has_created(kit: Kit, dkb: Dkb) -> None:
    runs: list[int] = []

    @dramatiq.actor(queue_name="mail")
    def task(number: int) -> None:
        runs.append(number)

    created = dkb("topics", "apply", "--apply", "--yes", "--json").document["created"]
    task.send(1)
    task.send_with_options(args=(2,), delay=1_000)
    drain()
    assert runs == [1]
    assert set(kit.cluster.topics) == set(created)
    assert dkb("topics", "check", "--strict").code == 0


def test_the_policy_that_loses_messages_is_a_difference_from_the_plan(kit: Kit, dkb: Dkb) -> None:
    create = dkb("topics", "plan", "mail", "--json").document["topic_commands"]
    for topic in ("shop-mail", "shop-mail_dlq", "shop-dramatiq_history"):
        (line,) = [line for line in create if f"--topic {topic} " in line]
        assert "--config cleanup.policy=delete" in line
    dkb("topics", "apply", "mail", "--apply", "--yes")
    kit.cluster.topics["shop-mail"].settings["cleanup.policy"] = "compact"
    for verb in ("plan", "apply", "check"):
        differences = dkb("topics", verb, "mail", "--json").document["differences"]
        assert [(row["topic"], row["subject"], row["planned"], row["found"]) for row in differences] == [
            ("shop-mail", "cleanup.policy", "delete", "compact")
        ]


def test_a_finding_and_a_difference_of_a_retention_have_one_remedy(kit: Kit, dkb: Dkb) -> None:
    dkb("topics", "apply", "mail", "--apply", "--yes")
    for topic in ("shop-mail", "shop-mail_dlq"):
        kit.cluster.topics[topic].settings["retention.ms"] = "60000"
    document = dkb("topics", "check", "mail", "--json").document
    remedies = {row["subject"]: row["remedy"] for topic in document["topics"] for row in topic["findings"]}
    commands = {row["topic"]: row["command"] for row in document["differences"]}
    assert remedies == commands
    assert remedies["shop-mail_dlq"].endswith("--add-config retention.ms=2592000000")


def test_check_names_each_difference_and_strict_makes_it_an_exit_code(kit: Kit, dkb: Dkb) -> None:
    dkb("topics", "apply", "mail", "--apply", "--yes")
    kit.cluster.topics["shop-mail"].settings["retention.ms"] = "86400000"
    del kit.cluster.topics["shop-mail_lanes"]
    ran = dkb("topics", "check", "--json")
    document = ran.document
    assert ran.code == 0
    assert {
        (row["topic"], row["subject"], row["planned"], row["found"]) for row in document["differences"]
    } == {
        ("shop-mail", "retention.ms", "604800000", "86400000"),
        ("shop-mail_lanes", "topic", "lanes", None),
    }
    assert dkb("topics", "check", "--strict").code == 1
    assert "Differences from the plan" in dkb("topics", "check").out
    assert dkb("topics", "check", "--retention", "1d", "--strict", "mail").code == 1  # the lanes are missing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan",), "name the queues of the plan"),
        (("plan", "dramatiq_x"), "names beginning with 'dramatiq_' are kept"),
        (("plan", "mail", "--retention", "soon"), "'soon' is no duration"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(
    kit: Kit, dkb: Dkb, arguments: tuple[str, ...], said: str
) -> None:
    ran = dkb("topics", *arguments)
    assert (ran.code, said in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("arguments", "differences"),
    [
        (["--bootstrap", "kafka:9092", "--namespace", "shop-"], set()),
        (["--bootstrap", "kafka:9092", "--partitions", "4"], {"partitions"}),
        (["--bootstrap", "kafka:9092", "--retention", "7d"], {"retention.ms"}),
        (["--url", "kafka://kafka:9092/shop-?partitions=4"], {"partitions"}),
        (["--url", "kafka://kafka:9092/shop-?group_id=shop"], set()),
        (["--app", "shop.tasks"], {"partitions", "retention.ms"}),
    ],
)
def test_who_does_not_know_the_application_does_not_plan_its_partitions_and_its_retention(
    kit: Kit, arguments: list[str], differences: set[str]
) -> None:
    # Given a queue with values of its own, and a broker with the defaults
    others = KafkaBroker(namespace="shop-")
    with Kit(others, cluster=kit.cluster).use():
        kit.cluster.create_topic("shop-mail", 3, settings={"retention.ms": "259200000"})
        for verb in ("plan", "check"):
            ran = CliRunner().invoke(app, ["topics", verb, "mail", "--json", *arguments], obj=others)
            found = [row for row in json.loads(ran.stdout)["differences"] if row["topic"] == "shop-mail"]
            mine = {"partitions", "retention.ms"}
            assert {row["subject"] for row in found if row["subject"] in mine} == differences
