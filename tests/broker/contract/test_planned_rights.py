"""The rights of ``broker.plan_topics``: each kind of client works with exactly these, and needs each one."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import BrokerConnectionError
from kafka import KafkaAdminClient
from typer.testing import CliRunner, Result

from broker import CancelUndecided, ClientKind, Every, KafkaBroker, PlannedRight
from broker.console.command import app
from broker.console.exits import ExitCode
from broker.kafka.rights import logger as rights_logger
from broker.kafka.rights import name_for_tool
from broker.partition_keys.lane import SequenceNumber
from broker.partition_keys.record_format import Place, Waiting, waiting_record
from dev.apache_kafka import ApacheKafkaServer
from tests.broker.contract.backends import KafkaBackend
from tests.broker.contract.conftest import StartWorker
from tests.broker.contract.test_rights import (
    Client,
    MakeBroker,
    kafka,
    make_broker,
    message,
    users,
)
from tests.broker.dead_letters.samples import QUEUE, add_dead_letter
from tests.waiting import wait_until

__all__ = ["kafka", "make_broker", "users"]

pytestmark = [
    pytest.mark.real_kafka(reason="tell its clients apart"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

DEADLINE_S = 90
LATER_MS = 3_600_000
SCHEDULE = "nightly"
#: What kafka-acls.sh runs; kafka.admin.AclCommand before Kafka 4.1.
ACL_TOOL = "org.apache.kafka.tools.AclCommand"


class Planned(Client):
    """One user, and the plan of the application that it belongs to."""

    def planned(self, kind: ClientKind) -> list[PlannedRight]:
        plan = self.owner.plan_topics(QUEUE)
        return [right for right in plan.rights if right.client is kind and not right.is_optional]

    def grant_planned(
        self, kind: ClientKind, *, but: PlannedRight | None = None, may_see: bool = True
    ) -> None:
        """Grant what is planned, without the right ``but``; ``may_see`` its resource nevertheless."""
        rights = [(r.operation, r.kind, r.name) for r in self.planned(kind) if r != but]
        if but is not None and but.operation != "DESCRIBE" and may_see:
            rights.append(("DESCRIBE", but.kind, but.name))
        self.grant(*rights)


@pytest.fixture
def make_client(
    kafka: ApacheKafkaServer, users: Iterator[str], namespace: str
) -> Iterator[Callable[[], Planned]]:
    """Users without a right, on a cluster that has the topics of the plan."""
    owner = KafkaBroker(kafka.address, namespace=namespace)
    owner.declare_queue(QUEUE)
    plan = owner.apply_topics(owner.plan_topics(QUEUE))
    assert plan.missing == ()
    yield lambda: Planned(kafka, owner, next(users), namespace, [])
    owner.close()


@pytest.fixture
def topic_names(kafka: ApacheKafkaServer) -> Callable[[], set[str]]:
    def names() -> set[str]:
        admin = KafkaAdminClient(bootstrap_servers=kafka.address)
        try:
            return set(admin.list_topics())
        finally:
            admin.close()

    return names


def web_questions(broker: KafkaBroker) -> Iterator[Callable[[], object]]:
    yield lambda: broker.enqueue(message())
    yield lambda: broker.enqueue(message(), delay=LATER_MS)


def console_questions(broker: KafkaBroker) -> Iterator[Callable[[], object]]:
    yield broker.queue_names
    yield lambda: broker.count(QUEUE)
    yield broker.queues
    yield lambda: broker.delayed(QUEUE)
    yield lambda: list(broker.dead_letters(QUEUE))
    yield lambda: broker.find(QUEUE, completed=True)
    yield broker.workers
    yield broker.history
    yield broker.paused_queues
    yield broker.replays
    yield broker.check_topics


def questions_about_schedules(broker: KafkaBroker, kind: ClientKind) -> Iterator[Callable[[], object]]:
    yield broker.schedules.list
    if kind is ClientKind.OPERATOR:
        yield lambda: broker.schedules.pause(SCHEDULE)


def operator_questions(broker: KafkaBroker) -> Iterator[Callable[[], object]]:
    yield from console_questions(broker)
    yield lambda: broker.import_dead_letters(QUEUE, [], dry_run=False, reason="a test")
    yield lambda: broker.redrive(QUEUE, dry_run=False, reason="a test")
    yield lambda: broker.replay(QUEUE, dry_run=False, reason="a test")
    yield lambda: broker.pause(QUEUE, reason="a test")
    yield lambda: broker.resume(QUEUE)
    yield lambda: broker.quiet("some-worker", allow_unseen=True)
    yield lambda: broker.cancel("some-message", timeout_s=0.2)
    yield lambda: broker.flush(QUEUE)


QUESTIONS = {
    ClientKind.WEB: web_questions,
    ClientKind.CONSOLE: console_questions,
    ClientKind.OPERATOR: operator_questions,
}


def refusals(questions: Iterator[Callable[[], object]]) -> Iterator[str]:
    """The texts of the refusals that questions meet."""
    for question in questions:
        try:
            with contextlib.suppress(CancelUndecided):  # no worker runs here
                question()
        except BrokerConnectionError as e:
            yield f"{e} {getattr(e, 'failures', '')}"


def let_one_wait_in_a_lane(broker: KafkaBroker) -> None:
    """Put a message into the lanes topic: its rights are needed while one waits there."""
    topics = broker.parts.topics
    place = Place(broker.parts.group_of(QUEUE), 0, SequenceNumber(0, 0))
    waiting = Waiting(place, b"a", LATER_MS, message(partition_key="a").encode(), ())
    record = waiting_record(topics.lanes(QUEUE), waiting, destination=topics.queue(QUEUE))
    assert broker.parts.publisher.publish([record]) == {}


def names(text: str, right: PlannedRight) -> bool:
    """Whether the sentence of a refusal has the right, its resource, and the command that grants it."""
    sentence = text.partition(" Everything that ")[0]
    named = f"{right.operation} on the {right.kind} '{right.name}'"
    # One command may grant the same operation on several resources.
    operation = name_for_tool(right.operation)
    command = rf"--operation {operation} (--\w+ \S+ )*--{right.kind} {re.escape(right.name)}(?![\w-])"
    return named in sentence and re.search(command, sentence) is not None


def test_kafkas_own_tool_takes_the_printed_commands(
    make_client: Callable[[], Planned], make_broker: MakeBroker, kafka: ApacheKafkaServer
) -> None:
    client = make_client()
    names = {kind.value: f"{client.user}-{kind}" for kind in ClientKind}
    commands = client.owner.plan_topics(QUEUE).acl_commands(names | {ClientKind.OPERATOR: client.user})
    for command in commands:
        script, *arguments = shlex.split(command)
        assert script == "kafka-acls.sh"
        kafka.run_tool(ACL_TOOL, *arguments)

    client.owner.enqueue(message())
    assert list(refusals(QUESTIONS[ClientKind.OPERATOR](make_broker(client)))) == []


@pytest.mark.parametrize("may_see", [True, False], ids=["may see the topics", "may not"])
@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_client_needs_each_of_its_planned_rights_and_no_other_one(
    make_client: Callable[[], Planned], make_broker: MakeBroker, kind: ClientKind, may_see: bool
) -> None:
    client = make_client()
    client.grant_planned(kind)
    client.owner.enqueue(message())
    add_dead_letter(client.owner, [message()])
    assert list(refusals(QUESTIONS[kind](make_broker(client)))) == []

    unnamed = []
    for missing in client.planned(kind):
        if missing.name.endswith("_lanes") and not may_see:
            continue  # it counts as absent, unless the commits of workers list messages in it
        # A topic without records is not read, and a redrive needs something to send.
        client.owner.resume(QUEUE)
        client.owner.enqueue(message(), delay=LATER_MS)
        add_dead_letter(client.owner, [message()])
        if missing.name.endswith("_lanes"):
            let_one_wait_in_a_lane(client.owner)
        without = make_client()
        without.grant_planned(kind, but=missing, may_see=may_see)
        texts = list(refusals(QUESTIONS[kind](make_broker(without))))
        # Of a topic that may not be seen, Kafka tells no more.
        if not any(names(text, missing) if may_see else missing.name in text for text in texts):
            unnamed.append((missing, texts))
    assert unnamed == []


@pytest.mark.parametrize("kind", [ClientKind.CONSOLE, ClientKind.OPERATOR])
def test_who_sees_or_changes_schedules_needs_each_of_the_optional_rights_to_them(
    make_client: Callable[[], Planned], make_broker: MakeBroker, kind: ClientKind
) -> None:
    client = make_client()
    task = dramatiq.actor(broker=client.owner, actor_name="task", queue_name=QUEUE)(lambda: None)
    client.owner.schedules.put(SCHEDULE, task, Every(hours=24))
    needed = [
        right
        for right in client.owner.plan_topics(QUEUE).rights
        if right.client is kind
        and right.name.endswith("_schedules")
        and right.operation != "DESCRIBE_CONFIGS"
    ]

    def refused(*rights: PlannedRight) -> list[str]:
        user = make_client()
        user.grant_planned(kind)
        user.grant(*((right.operation, right.kind, right.name) for right in rights))
        return list(refusals(questions_about_schedules(make_broker(user), kind)))

    assert needed
    assert refused(*needed) == []
    for missing in needed:
        texts = refused(*(right for right in needed if right != missing))
        assert any(missing.name in text and missing.operation in text for text in texts), (missing, texts)


#: Verbs that look at everything, or at what a client without a queue's topics may not see.
VERBS = (
    ("status", "--sample", "0"),
    ("queues",),
    ("workers",),
    ("actors",),
    ("top",),
    ("tasks",),
    ("dlq", "list"),
    ("dlq", "errors"),
    ("dlq", "history"),
    ("dlq", "list", QUEUE),
    ("schedules", "list"),
    ("replays",),
    ("healthcheck",),
    ("healthcheck", "--worker"),
    ("topics", "check"),
    ("topics", "plan"),
)


def dkb(broker: KafkaBroker, *arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), obj=broker, prog_name="dkb")


@pytest.mark.parametrize("declares", [True, False], ids=["with the application", "without"])
def test_a_verb_says_which_right_is_missing_and_never_that_there_is_nothing(
    make_client: Callable[[], Planned],
    server_backend: KafkaBackend,
    declares: bool,
) -> None:
    client = make_client()
    add_dead_letter(client.owner, [message()])
    for verb in VERBS:
        broker = server_backend.broker(**client.settings())
        if declares:
            broker.declare_queue(QUEUE)
        ran = dkb(broker, *verb)
        broker.close()
        assert ran.exit_code == ExitCode.FORBIDDEN, (verb, ran.stdout, ran.stderr)
        assert ran.stdout == "", verb
        assert "It takes the right" in ran.stderr, verb
        assert f"--allow-principal User:{client.user} --operation" in ran.stderr, verb
        assert f"--topic {client.namespace}" in ran.stderr, verb


#: Verbs that change something.
CHANGES = (
    ("pause", QUEUE, "--reason", "x", "--wait", "0"),
    ("resume", QUEUE),
    ("quiet", "WORKER"),
    ("stop", "WORKER"),
    ("abort", "some-message", "--reason", "x", "--wait", "0.1"),
    ("cancel", "some-message", "--wait", "0.1"),
    ("retry", "DELAYED", "--wait", "0.1"),
    ("enqueue", "task", "--queue", QUEUE),
    ("enqueue", "task", "--queue", QUEUE, "--delay", "1h"),
    ("purge", QUEUE, "--apply", "--yes"),
    ("dlq", "redrive", QUEUE, "--all", "--apply", "--yes", "--reason", "x"),
    ("dlq", "discard", QUEUE, "--all", "--apply", "--yes", "--reason", "x"),
    ("dlq", "import", QUEUE, "FILE", "--resolved", "--apply", "--yes", "--reason", "x"),
    ("replay", QUEUE, "--all", "--apply", "--yes", "--reason", "x"),
    ("schedules", "pause", "nightly", "--reason", "x"),
    ("schedules", "resume", "nightly"),
    ("schedules", "run", "nightly"),
    ("schedules", "delete", "nightly", "--yes"),
)


def test_a_verb_that_may_not_change_anything_names_the_right(
    make_client: Callable[[], Planned],
    server_backend: KafkaBackend,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    # Given something to change, and a client that may look at everything
    client = make_client()
    owner = client.owner
    dramatiq.actor(broker=owner, actor_name="task", queue_name=QUEUE)(lambda: None)
    owner.schedules.put("nightly", "task", Every(days=1))
    delayed = owner.enqueue(message(), delay=LATER_MS)
    owner.enqueue(message())
    start_worker(owner)
    wait_until(lambda: owner.workers(), deadline_s=DEADLINE_S, what="a report")
    wait_until(lambda: owner.count(QUEUE) == 1, deadline_s=DEADLINE_S, what="a completed message")
    (worker,) = owner.workers()
    add_dead_letter(owner, [message()])
    file = tmp_path / "dead_letters.jsonl"
    file.write_text(dkb(owner, "dlq", "export", QUEUE).stdout)
    owner.discard(QUEUE, dry_run=False, reason="a test")
    add_dead_letter(owner, [message()])
    client.grant_planned(ClientKind.CONSOLE)
    client.grant(("READ", "topic", f"{client.namespace}dramatiq_schedules"))

    failed = {}
    for verb in CHANGES:
        broker = server_backend.broker(**client.settings())
        replaced = {"DELAYED": delayed.message_id, "FILE": str(file), "WORKER": worker.worker_id}
        ran = dkb(broker, *(replaced.get(word, word) for word in verb))
        broker.close()
        if ran.exit_code != ExitCode.FORBIDDEN or "It takes the right" not in ran.stderr:
            failed[verb] = (ran.exit_code, ran.stdout, ran.stderr)
    assert failed == {}


def test_a_doctor_without_rights_finds_each_of_them(
    make_client: Callable[[], Planned], server_backend: KafkaBackend
) -> None:
    broker = server_backend.broker(**make_client().settings())
    ran = dkb(broker, "doctor", "--json")
    broker.close()
    assert ran.exit_code == ExitCode.FINDING, ran.stderr
    document = json.loads(ran.stdout)
    denied = {row["subject"] for row in document["findings"] if row["check"] == "rights"}
    assert {"topics", "queues", "workers", "history", "pauses"} <= denied
    assert not denied & set(document["checked"])


def test_a_queue_that_may_not_be_seen_is_not_called_missing(
    make_client: Callable[[], Planned], server_backend: KafkaBackend
) -> None:
    # Given a client that may see another queue of the namespace
    client = make_client()
    client.owner.parts.topics.ensure([f"{client.namespace}other"])
    client.grant(("DESCRIBE", "topic", f"{client.namespace}other"))
    for verb in (("status", QUEUE), ("dlq", "list", QUEUE), ("tasks", "--queue", QUEUE, "--arg", "x")):
        broker = server_backend.broker(**client.settings())
        ran = dkb(broker, *verb)
        assert ran.exit_code == ExitCode.FORBIDDEN, (verb, ran.stdout, ran.stderr)
        assert f"--topic {client.namespace}{QUEUE}" in ran.stderr, verb
        # One that is not there is.
        client.grant(("DESCRIBE", "topic", f"{client.namespace}none"))
        ran = dkb(broker, *(name.replace(QUEUE, "none") for name in verb))
        broker.close()
        assert ran.exit_code == ExitCode.FINDING, (verb, ran.stdout, ran.stderr)
        assert "There is no queue 'none': there are other." in ran.stderr


def test_a_queue_that_workers_serve_and_a_client_may_not_see_is_named(
    make_client: Callable[[], Planned], server_backend: KafkaBackend, start_worker: StartWorker
) -> None:
    # Given a console that may see one of two queues
    client = make_client()
    client.grant_planned(ClientKind.CONSOLE)
    hidden = "hidden"
    client.owner.declare_queue(hidden)
    start_worker(client.owner)
    wait_until(
        lambda: any(w.report and hidden in w.report.queues for w in client.owner.workers()),
        deadline_s=DEADLINE_S,
        what="a report",
    )
    topic = f"--topic {client.namespace}{hidden}"

    # When it asks about all queues, or about the one
    def ask(*arguments: str) -> Result:
        broker = server_backend.broker(**client.settings())
        try:
            return dkb(broker, *arguments)
        finally:
            broker.close()

    # Then the other one is named
    status = ask("status", "--sample", "0", "--json")
    assert [row["queue"] for row in json.loads(status.stdout)["queues"]] == [QUEUE]
    (missing,) = json.loads(status.stdout)["missing"]
    assert topic in missing
    assert status.exit_code == ExitCode.OK
    doctor = ask("doctor", "--json")
    rights = {
        row["subject"]: row["finding"]
        for row in json.loads(doctor.stdout)["findings"]
        if row["check"] == "rights"
    }
    assert topic in rights[f"queue {hidden}"]
    health = ask("healthcheck")
    assert health.exit_code == ExitCode.FORBIDDEN
    assert topic in health.stderr
    assert ask("healthcheck", "--queue", QUEUE).exit_code == ExitCode.OK
    assert json.loads(ask("status", QUEUE, "--sample", "0", "--json").stdout)["missing"] == []


def test_an_exporter_with_the_planned_rights_is_up(
    make_client: Callable[[], Planned], server_backend: KafkaBackend, kafka: ApacheKafkaServer
) -> None:
    client = make_client()
    client.grant_planned(ClientKind.CONSOLE)
    client.owner.enqueue(message())
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    admin.delete_topics([f"{client.namespace}dramatiq_schedules"])

    def export() -> Result:
        broker = server_backend.broker(**client.settings())
        try:
            return dkb(broker, "metrics", "--once")
        finally:
            broker.close()

    # Without the optional right to the schedules' topic, they are left out, whether there is one or not
    ran = export()
    assert ran.exit_code == ExitCode.OK, ran.stderr
    assert set(re.findall(r'dramatiq_kafka_up\{source="(\w+)"\} 1.0', ran.stdout)) == {"queues", "reports"}
    assert 'dramatiq_kafka_state_age_seconds{source="schedules"}' not in ran.stdout
    assert "dramatiq_kafka_schedules{" not in ran.stdout

    # With it, no schedules are no error
    optional = [right for right in client.owner.plan_topics(QUEUE).rights if right.is_optional]
    client.grant(*((r.operation, r.kind, r.name) for r in optional if r.client is ClientKind.CONSOLE))
    ran = export()
    assert ran.exit_code == ExitCode.OK, ran.stderr
    assert 'dramatiq_kafka_up{source="schedules"} 1.0' in ran.stdout
    assert 'dramatiq_kafka_schedules{state="active"} 0.0' in ran.stdout

    # And a missing right is no unreachable Kafka
    client = make_client()
    assert export().exit_code == ExitCode.FORBIDDEN


def test_a_worker_with_the_planned_rights_runs_everything_and_creates_nothing(
    make_client: Callable[[], Planned],
    make_broker: MakeBroker,
    start_worker: StartWorker,
    topic_names: Callable[[], set[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = make_client()
    client.grant_planned(ClientKind.WORKER)
    before = topic_names()
    broker: Any = make_broker(client)
    runs: list[str] = []

    @dramatiq.actor(broker=broker, actor_name="task", queue_name=QUEUE, max_retries=1, min_backoff=10)
    def task(what: str = "plain") -> None:
        runs.append(what)
        if what == "fails":
            raise ValueError(what)

    with caplog.at_level(logging.WARNING, logger=rights_logger.name):
        start_worker(broker)
        client.owner.enqueue(message().copy(args=("plain",)))
        client.owner.enqueue(message().copy(args=("delayed",)), delay=500)
        for _ in range(2):
            client.owner.enqueue(message(partition_key="a").copy(args=("keyed",)))
        client.owner.enqueue(message(partition_key="b").copy(args=("fails",)))
        client.owner.join(QUEUE, timeout=DEADLINE_S * 1000)
    assert sorted(runs) == ["delayed", "fails", "fails", "keyed", "keyed", "plain"]
    assert len(list(client.owner.dead_letters(QUEUE))) == 1
    wait_until(lambda: client.owner.workers(), deadline_s=DEADLINE_S, what="a report")
    wait_until(lambda: list(client.owner.history()), deadline_s=DEADLINE_S, what="the history")
    assert [record.getMessage() for record in caplog.records if "allow" in record.getMessage()] == []
    assert topic_names() == before
